"""Bodies and streams end to end, over real sockets."""

import hashlib
import http.client
import os
import socket
from pathlib import Path

import pytest

from tests.serve.harness import DEADLINE_S, call, document, poll, serving, total
from tests.serve.origins import Servers

pytestmark = pytest.mark.process

MIB = 1024 * 1024


def test_events_arrive_one_by_one(tmp_path: Path, servers: Servers) -> None:
    v1, _ = servers
    with serving(tmp_path, document(servers)) as router:
        connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
        connection.request("GET", "/plain/stream?events=5")
        v1.let()
        response = connection.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        for number in range(5):
            # the server sends the next event only after this one was read here
            assert response.readline() + response.readline() == b"data: v1 %d\n\n" % number
            v1.let()
        assert response.read() == b""
        connection.close()


def test_five_mebibytes_go_up_and_come_down_byte_for_byte(tmp_path: Path, servers: Servers) -> None:
    body = os.urandom(5 * MIB)
    with serving(tmp_path, document(servers)) as router:
        answer = call(router.listen, "POST", "/plain/echo", body)
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(body)))
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()


def test_a_body_of_unknown_length_is_relayed_whole(tmp_path: Path, servers: Servers) -> None:
    pieces = [os.urandom(100_000) for _ in range(10)]
    with serving(tmp_path, document(servers)) as router:
        connection = http.client.HTTPConnection(router.listen, timeout=DEADLINE_S)
        connection.request("POST", "/plain/echo", iter(pieces), encode_chunked=True,
                           headers={"transfer-encoding": "chunked"})  # fmt: skip
        assert connection.getresponse().read() == b"".join(pieces)
        connection.close()


def test_a_body_above_the_limit_is_refused(tmp_path: Path, servers: Servers) -> None:
    v1, _ = servers
    with serving(tmp_path, document(servers, downstream={"body_bytes": "64KiB"})) as router:
        answer = call(router.listen, "POST", "/plain/echo", b"x" * (64 * 1024 + 1))
        assert answer.status == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:pointsman:problem:body-too-large"
        assert not v1.served


def test_an_upgrade_to_an_unknown_protocol_is_not_passed_on(
    tmp_path: Path, servers: Servers
) -> None:
    """RFC 9110 section 7.8: a server may ignore `upgrade`; the endpoint sees an ordinary GET."""
    v1, _ = servers
    headers = {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AA"}
    with serving(tmp_path, document(servers)) as router:
        answer = call(router.listen, "GET", "/plain/x", headers=headers)
        assert (answer.status, answer.body) == (200, b"v1")
        assert not {"upgrade", "connection", "http2-settings"} & v1.served[0].headers.keys()


def test_a_websocket_is_relayed_both_ways_as_it_comes(tmp_path: Path, servers: Servers) -> None:
    ask = (
        b"GET /plain/switch HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with serving(tmp_path, document(servers)) as router:
        host, _, port = router.listen.rpartition(":")
        with socket.create_connection((host, int(port)), DEADLINE_S) as raw:
            raw.sendall(ask)
            reader = raw.makefile("rb")
            assert reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
            head = b"".join(iter(reader.readline, b"\r\n")).lower()
            assert b"upgrade: websocket" in head
            assert b"x-router-variant: v1" in head
            for _ in range(20):
                piece = os.urandom(10_000)
                raw.sendall(piece)
                assert reader.read(len(piece)) == piece
            raw.shutdown(socket.SHUT_WR)
            assert reader.read() == b""
            reader.close()
        poll(lambda: router.metrics()["pointsman_requests_in_flight"] == 0, "ended")
        assert total(router.metrics(), "pointsman_requests_total", code="1xx") == 1


def test_a_switch_of_protocol_that_nobody_asked_for_is_refused(
    tmp_path: Path, servers: Servers
) -> None:
    with serving(tmp_path, document(servers)) as router:
        answer = call(router.listen, "GET", "/plain/switch")
        assert answer.status == 502
        assert answer.json()["type"] == "urn:pointsman:problem:upstream-malformed"
        assert call(router.listen, "GET", "/plain/x").status == 200


def test_an_endpoint_that_is_down_is_told_as_such(tmp_path: Path) -> None:
    with serving(tmp_path, document([("v1", "http://127.0.0.1:1")])) as router:
        answer = call(router.listen, "GET", "/plain/x")
        assert answer.status == 502
        assert answer.json()["type"] == "urn:pointsman:problem:upstream-connect"
        assert total(router.metrics(), "pointsman_refused_total") == 1
