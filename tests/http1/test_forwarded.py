import ipaddress

import pytest

from router.http1.forwarded import ClientAddress, Network, is_within, peer_address
from tests.http1.samples import relayed_fields, request, request_with

NETWORKS: tuple[Network, ...] = (
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("2001:db8::/32"),
)
TRUSTED = peer_address("10.0.0.9", NETWORKS)
STRANGER = peer_address("192.0.2.7", NETWORKS)
STRANGERS_LINES = b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n"


@pytest.mark.parametrize(
    ("host", "within"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("unknown", False),
        ("10.0.0.1:80", False),
    ],
)
def test_an_address_is_looked_for_in_networks_of_both_families(host: str, within: bool) -> None:
    assert is_within(host, NETWORKS) is within
    assert not is_within(host, ())


def test_a_strangers_forwarding_fields_are_replaced() -> None:
    head = request_with(
        b"x-forwarded-for: 10.0.0.1",
        b"x-forwarded-proto: https",
        b"x-forwarded-host: other",
        b"forwarded: for=10.0.0.1",
        peer=STRANGER,
    )
    assert head.client == "192.0.2.7"
    assert head.forwarded == STRANGERS_LINES
    assert relayed_fields(head) == [b"host: h"]


def test_a_stranger_is_not_believed_for_having_passed_a_proxy() -> None:
    head = request_with(
        b"via: 1.1 a",
        b"x-forwarded-for: 10.0.0.1",
        b"x-forwarded-proto: https",
        b"x-forwarded-host: other",
        peer=STRANGER,
    )
    assert head.client == "192.0.2.7"
    assert head.forwarded == STRANGERS_LINES.replace(b"via: ", b"via: 1.1 a, ")


def test_a_via_field_grows_whoever_sent_it() -> None:
    head = request_with(b"Via: 1.0 a, 1.1 b", b"via: 1.1 c", b"via:", peer=STRANGER)
    assert head.forwarded == (
        b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\n"
        b"via: 1.0 a, 1.1 b, 1.1 c, 1.1 pointsman\r\n"
    )


def test_via_names_the_version_the_client_spoke() -> None:
    head = request(b"GET / HTTP/1.0\r\nhost: h", STRANGER)
    assert head.forwarded == STRANGERS_LINES.replace(b"1.1 pointsman", b"1.0 pointsman")


@pytest.mark.parametrize(
    ("lines", "client", "forwarded"),
    [
        pytest.param(
            [],
            "10.0.0.9",
            b"x-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="nothing-given",
        ),
        pytest.param(
            [b"X-Forwarded-For: 203.0.113.5", b"X-Forwarded-Proto: https"],
            "203.0.113.5",
            b"x-forwarded-for: 203.0.113.5, 10.0.0.9\r\nx-forwarded-proto: https\r\n"
            b"via: 1.1 pointsman\r\n",
            id="client-and-scheme",
        ),
        pytest.param(
            [b"x-forwarded-for: 1.1.1.1, 203.0.113.5,10.1.1.1"],
            "203.0.113.5",
            b"x-forwarded-for: 1.1.1.1, 203.0.113.5, 10.1.1.1, 10.0.0.9\r\n"
            b"x-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="nearest-address-that-is-no-proxy",
        ),
        pytest.param(
            [b"x-forwarded-for: 1.1.1.1", b"x-forwarded-for: 203.0.113.5"],
            "203.0.113.5",
            b"x-forwarded-for: 1.1.1.1, 203.0.113.5, 10.0.0.9\r\n"
            b"x-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="two-fields",
        ),
        pytest.param(
            [b"x-forwarded-for: 10.2.2.2, 10.1.1.1"],
            "10.2.2.2",
            b"x-forwarded-for: 10.2.2.2, 10.1.1.1, 10.0.0.9\r\n"
            b"x-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="all-are-proxies",
        ),
        pytest.param(
            [b"x-forwarded-for: 203.0.113.5, unknown, 10.1.1.1"],
            "10.1.1.1",
            b"x-forwarded-for: 203.0.113.5, unknown, 10.1.1.1, 10.0.0.9\r\n"
            b"x-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="nothing-beyond-a-word-is-believed",
        ),
        pytest.param(
            [b"x-forwarded-for: 2001:db9::5"],
            "2001:db9::5",
            b"x-forwarded-for: 2001:db9::5, 10.0.0.9\r\n"
            b"x-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="ipv6",
        ),
        pytest.param(
            [b"x-forwarded-proto: gopher", b"x-forwarded-host: api.example"],
            "10.0.0.9",
            b"x-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: http\r\nvia: 1.1 pointsman\r\n",
            id="host-given-and-scheme-unknown",
        ),
    ],
)
def test_a_trusted_proxy_says_who_the_client_is(
    lines: list[bytes], client: str, forwarded: bytes
) -> None:
    head = request_with(*lines, peer=TRUSTED)
    assert head.client == client
    assert head.forwarded == forwarded
    assert relayed_fields(head) == [b"host: h"]
    told = b"api.example" if b"x-forwarded-host: api.example" in lines else b"h"
    assert head.forwarded_host == b"x-forwarded-host: %b\r\n" % told


OTHERS = (
    b"X-Forwarded-Prefix: /a",
    b"x-forwarded-port: 1",
    b"X-Forwarded-Port: 2",
    b"X-Real-IP: 1",
)


def test_a_strangers_other_forwarding_fields_are_taken_out() -> None:
    head = request_with(*OTHERS, b"x-forwarded: kept", peer=STRANGER)
    assert relayed_fields(head) == [b"host: h", b"x-forwarded: kept"]


def test_a_trusted_proxys_other_forwarding_fields_are_relayed_under_their_names() -> None:
    head = request_with(*OTHERS, peer=TRUSTED)
    assert sorted(relayed_fields(head)) == sorted([b"host: h", *OTHERS])
    assert head.header(b"x-forwarded-prefix") == b"/a"
    assert head.header(b"x-forwarded-port") == b"1, 2"


def test_one_request_leaves_nothing_on_the_connection_for_the_next() -> None:
    request_with(b"x-forwarded-for: 203.0.113.5", peer=TRUSTED)
    assert request_with(peer=TRUSTED).client == "10.0.0.9"
    assert request_with(peer=TRUSTED).forwarded == TRUSTED.forwarded


SUBJECT, NAMES = r"CN=batch,O=Acme\, Inc.", ("DNS:batch.internal", "URI:spiffe://acme/batch")
CERTIFICATE = (
    rb"x-client-cert-subject: CN=batch,O=Acme\, Inc." + b"\r\n"
    b"x-client-cert-san: DNS:batch.internal, URI:spiffe://acme/batch\r\n"
)


def test_a_connection_with_tls_is_told_on_with_its_certificate() -> None:
    peer = peer_address("203.0.113.9", (), is_tls=True, subject=SUBJECT, names=NAMES)
    head = request_with(peer=peer)
    assert head.forwarded == (
        b"x-forwarded-for: 203.0.113.9\r\nx-forwarded-proto: https\r\nvia: 1.1 pointsman\r\n"
        + CERTIFICATE
    )
    assert (head.client_cert, head.client_names) == (SUBJECT, NAMES)


def test_without_a_certificate_nothing_is_said_of_one() -> None:
    head = request_with(peer=peer_address("203.0.113.9", (), is_tls=True))
    assert b"cert" not in head.forwarded
    assert (head.client_cert, head.client_names) == ("", ())


@pytest.mark.parametrize(
    ("lines", "proto"),
    [
        ([b"x-forwarded-for: 203.0.113.5"], b"https"),
        ([b"x-forwarded-proto: http"], b"http"),
        ([b"x-forwarded-proto: https"], b"https"),
        ([b"via: 1.1 other"], b"https"),
    ],
)
def test_a_trusted_proxy_may_say_another_scheme_but_no_certificate(
    lines: list[bytes], proto: bytes
) -> None:
    networks = TRUSTED.networks
    peer = peer_address("10.0.0.9", networks, is_tls=True, subject=SUBJECT, names=NAMES)
    head = request_with(*lines, b"x-client-cert-subject: CN=root", peer=peer)
    assert b"x-forwarded-proto: %b\r\n" % proto in head.forwarded
    assert head.forwarded.endswith(CERTIFICATE)
    assert relayed_fields(head) == [b"host: h"]


@pytest.mark.parametrize("name", [b"X-Client-Cert-Subject", b"x-client-cert-san"])
@pytest.mark.parametrize("peer", [STRANGER, TRUSTED])
def test_nobody_else_can_say_whose_certificate_it_was(name: bytes, peer: ClientAddress) -> None:
    head = request_with(name + b": CN=root", name + b": CN=root", peer=peer)
    assert relayed_fields(head) == [b"host: h"]
    assert b"root" not in head.forwarded
