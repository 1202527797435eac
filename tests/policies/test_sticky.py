from typing import Any

import pytest
from pydantic import ValidationError

from router.policies.sticky import Sticky
from tests.policies.requests import Head


def unit_of(sticky: dict[str, Any], head: Head) -> bytes | None:
    return Sticky.model_validate(sticky).build()(head)


def test_a_header_is_the_unit_byte_for_byte_whatever_the_case_of_its_name() -> None:
    head = Head({b"x-user-id": b" \xff Ann"})

    assert unit_of({"header": "X-User-Id"}, head) == b" \xff Ann"


def test_a_cookie_is_the_unit() -> None:
    assert unit_of({"cookie": "uid"}, Head(cookies={b"uid": b"42"})) == b"42"


def test_the_address_is_the_unit_even_when_it_is_not_an_address() -> None:
    assert unit_of({"client_ip": True}, Head(client="10.0.0.1")) == b"10.0.0.1"
    assert unit_of({"client_ip": True}, Head(client="\udcff")) == b"\\udcff"


def test_a_certificate_s_subject_is_the_unit_or_else_its_first_other_name() -> None:
    sticky, names = {"client_cert": True}, ("DNS:a", "URI:b")
    assert unit_of(sticky, Head(client_cert="CN=a", client_names=names)) == b"CN=a"
    assert unit_of(sticky, Head(client_names=names)) == b"DNS:a"
    assert unit_of(sticky, Head()) is None


@pytest.mark.parametrize("sticky", [{"header": "x"}, {"cookie": "x"}])
def test_absent_empty_and_overlong_values_are_no_unit(sticky: dict[str, Any]) -> None:
    def head(value: bytes) -> Head:
        return Head({b"x": value}, {b"x": value})

    assert not unit_of(sticky, Head())
    assert not unit_of(sticky, head(b""))
    assert unit_of(sticky, head(b"x" * 256)) == b"x" * 256
    assert unit_of(sticky, head(b"x" * 257)) is None


def test_cookies_are_issued_with_all_their_attributes() -> None:
    plain = Sticky.model_validate({"cookie": "uid"})
    secure = Sticky.model_validate({"cookie": "uid", "max_age": "1h", "secure": True})

    assert plain.set_cookie() == (
        b"uid=",
        b"; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax",
    )
    assert secure.set_cookie() == (
        b"uid=",
        b"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure",
    )
    assert Sticky.model_validate({"header": "x"}).set_cookie() is None


@pytest.mark.parametrize(
    ("sticky", "message"),
    [
        ({}, "exactly one of header, cookie, client_ip"),
        ({"header": "x", "cookie": "y"}, "exactly one of header, cookie, client_ip"),
        ({"header": "x", "max_age": "1h"}, "properties of a cookie"),
        ({"client_ip": True, "secure": True}, "properties of a cookie"),
        ({"client_ip": False}, "Input should be True"),
        ({"header": "x y"}, "'x y' is not a header name"),
        ({"cookie": "a;b"}, "'a;b' is not a cookie name"),
        ({"cookie": "a\n"}, "is not a cookie name"),
        ({"cookie": "a", "max_age": "500ms"}, "greater than or equal to 1"),
        ({"jwt": "sub"}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_not_one_source_is_refused(sticky: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Sticky.model_validate(sticky)
