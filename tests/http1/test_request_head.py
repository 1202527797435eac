"""What a head answers whoever asks, and what is added when it is written."""

import pytest

from router.http1.request_head import name_endpoint, write_request_head
from tests.http1.samples import request, request_with


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        pytest.param([b"cookie: a=1; uid=u; b=2"], b"u", id="among-others"),
        pytest.param([b"cookie: uid=u"], b"u", id="alone"),
        pytest.param([b"cookie:uid=u;a=1"], b"u", id="no-spaces"),
        pytest.param([b"cookie: a=1", b"cookie: uid=u"], b"u", id="second-field"),
        pytest.param([b"cookie: uid=u; uid=v"], b"u", id="first-wins"),
        pytest.param([b'cookie: uid="u"'], b"u", id="quoted"),
        pytest.param([b"cookie: uid=a=b"], b"a=b", id="equals-in-value"),
        pytest.param([b"cookie: uid="], b"", id="empty"),
        pytest.param([b"cookie: uid"], None, id="no-equals"),
        pytest.param([b"cookie: UID=u"], None, id="names-have-case"),
        pytest.param([b"cookie: xuid=u; uid2=u"], None, id="whole-name-only"),
        pytest.param([b"cookie: a=x, uid=u"], None, id="comma-does-not-separate"),
        pytest.param([b"x: uid=u"], None, id="no-cookie-field"),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(lines: list[bytes], value: bytes | None) -> None:
    assert request_with(*lines).cookie(b"uid") == value


def test_extra_lines_stand_before_the_forwarding_fields() -> None:
    head = request(b"GET / HTTP/1.1\r\nhost: h")
    assert write_request_head(head, 0, b"id", b"x-router-shadow: true\r\n") == (
        b"GET / HTTP/1.1\r\nhost: h\r\nx-request-id: id\r\nx-router-shadow: true\r\n"
        b"x-forwarded-host: h\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\n"
        b"via: 1.1 pointsman\r\n\r\n"
    )


def test_a_head_answers_what_a_policy_may_ask() -> None:
    head = request(
        b"POST /m/x?q=1 HTTP/1.1\r\nHost: API.example.:8443\r\nX-User: u1\r\nx-user: u2\r\n"
        b"connection: Keep-Alive, X-Gone\r\nx-gone: 1"
    )
    assert (head.method, head.host, head.path) == (b"POST", b"api.example", b"/m/x")
    assert head.client == "192.0.2.7"
    assert head.header(b"x-user") == b"u1, u2"
    assert head.header(b"x-gone") is None
    assert head.header(b"x-other") is None


def test_http_1_0_without_a_host_asks_for_that_of_its_endpoint() -> None:
    head = request(b"GET / HTTP/1.0")
    name_endpoint(head, b"10.0.0.1:8000")
    assert head.header(b"host") == b"10.0.0.1:8000"
    named = request(b"GET / HTTP/1.0\r\nhost: h")
    name_endpoint(named, b"10.0.0.1:8000")
    assert named.header(b"host") == b"h"
