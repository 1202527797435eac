"""Types of single values: what is canonical, what is refused."""

import re
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from router import units
from router.config import values


def accepts(kind: Any, value: str) -> str:
    result: str = TypeAdapter(kind).validate_python(value)
    return result


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (values.Name, "v1.2_b-c", "v1.2_b-c"),
        (values.HeaderName, "X-User-Id", "x-user-id"),
        (values.Address, "0.0.0.0:8080", "0.0.0.0:8080"),
        (values.Address, "[::]:0", "[::]:0"),
        (values.Address, "localhost:65535", "localhost:65535"),
        (values.EndpointUrl, "http://Model-0.ns.svc:8000/", "http://model-0.ns.svc:8000"),
        (values.EndpointUrl, "HTTP://10.0.0.1", "http://10.0.0.1"),
        (values.EndpointUrl, "HTTPS://Model-0/", "https://model-0"),
        (values.EndpointUrl, "http://[FE80::1]:80", "http://[fe80::1]:80"),
        (values.EndpointUrl, "http://a_b:1", "http://a_b:1"),
        (values.Network, "10.0.0.0/8", "10.0.0.0/8"),
        (values.Network, "::1", "::1"),
        (units.Regex, "a|b", "a|b"),
        (values.Host, "API.Example.org.", "api.example.org"),
        (values.Host, "*.Example.org", "*.example.org"),
        (values.Host, "[::1]", "[::1]"),
        (values.Path, "/", "/"),
        (values.Path, "/v2/models/a%20b/", "/v2/models/a%20b/"),
        (values.Method, "M-SEARCH", "M-SEARCH"),
        (values.StateUrl, "memory:", "memory:"),
        (values.StateUrl, "sqlite:///a/b.db", "sqlite:///a/b.db"),
    ],
)
def test_a_value_is_taken_in_its_canonical_form(kind: Any, value: str, result: str) -> None:
    assert accepts(kind, value) == result


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (values.Name, ""),
        (values.Name, "-a"),
        (values.Name, "a b"),
        (values.Name, "a" * 64),
        (values.Name, "a\n"),
        (values.Name, "é"),
        (values.HeaderName, "a b"),
        (values.HeaderName, "a:"),
        (values.Address, "8080"),
        (values.Address, ":8080"),
        (values.Address, "0.0.0.0:65536"),
        (values.Address, "0.0.0.0:-1"),
        (values.Address, "example.org:80"),
        (values.Address, "::1:80"),
        (values.Address, "[127.0.0.1]:80"),
        (values.Address, "0.0.0.0:\u0661"),
        (values.EndpointUrl, "model:8000"),
        (values.EndpointUrl, "ftp://a:1"),
        (values.EndpointUrl, "https://a:0"),
        (values.EndpointUrl, "https://a:65536"),
        (values.EndpointUrl, "http://"),
        (values.EndpointUrl, "http://a:0"),
        (values.EndpointUrl, "http://a:65536"),
        (values.EndpointUrl, "http://a b:1"),
        (values.EndpointUrl, "http://a:1/v2"),
        (values.EndpointUrl, "http://a:1?x"),
        (values.EndpointUrl, "http://a:1#x"),
        (values.EndpointUrl, "http://[a]:1"),
        (values.EndpointUrl, "http://[:::]:1"),
        (values.EndpointUrl, "http://a:1\n"),
        (values.Network, "10.0.0.1/8"),
        (values.Network, "10"),
        (units.Regex, "("),
        (units.Regex, "a{99999999999}"),
        (units.Regex, "(" * 5000 + ")" * 5000),
        (values.Host, "a:80"),
        (values.Host, "*"),
        (values.Host, "a.*.b"),
        (values.Host, "-a"),
        (values.Path, "a"),
        (values.Path, ""),
        (values.Path, "/a?b"),
        (values.Path, "/a#b"),
        (values.Path, "/é"),
        (values.Path, "/-/feedback"),
        (values.Method, "get"),
        (values.StateUrl, "redis://"),
        (values.StateUrl, "sqlite://a.db"),
    ],
)
def test_a_value_of_another_form_is_refused_by_a_sentence(kind: Any, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        accepts(kind, value)
    (details,) = caught.value.errors()
    assert details["type"] == "value_error"


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        accepts(values.EndpointUrl, "http://user:hunter2@a:1")
    (details,) = caught.value.errors()
    assert str(details["ctx"]["error"]) == (
        "an endpoint carries no user name or password, write http://host:port"
    )


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.1.2.3:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(address: str, is_loopback: bool) -> None:
    assert values.is_loopback(address) is is_loopback


def test_an_address_is_split_into_host_and_port() -> None:
    assert values.split_address("[::1]:80") == ("::1", 80)
    assert values.split_address("localhost:0") == ("localhost", 0)


@pytest.mark.parametrize(
    "url", ["redis://u:pa/ss@host:x", "rediss://:p@ss@host/db", "redis://:pass@"]
)
def test_a_state_store_that_is_refused_keeps_its_password_to_itself(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(values.StateUrl).validate_python(url)
    assert "is not a state store" in (said := caught.value.errors()[0]["msg"])
    assert not re.search("pa|ss@|ss/", said.partition(" is not")[0])
