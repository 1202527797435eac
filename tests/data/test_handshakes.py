"""Handshakes that end well or badly, with clients and with endpoints: bounded, counted, told."""

import asyncio
import functools
import re
import ssl
from typing import Any

import pytest

from router.data.handshakes import outcome_of
from router.messages import Drain
from tests.certificates import Authority, server
from tests.data.harness import OK, Wire, a_bug, document, eventually, request, soon
from tests.data.tls import Cut, TlsLab, TlsWire

_CLIENT_HELLO_HEAD = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


async def start(tls_lab: TlsLab, **changes: Any) -> None:
    config = document(await tls_lab.lab.answering())
    tls = changes.pop("tls", {})
    await tls_lab.start(tls_lab.listening({**config, **changes}, **tls))


async def handshakes(tls_lab: TlsLab) -> dict[str, int]:
    """Outcome -> how many."""
    router = tls_lab.router
    await router.flush()
    name = "pointsman_tls_handshakes_total"
    return {key[1]: count for key, count in router.counters.items() if key[0] == name}


# with clients


async def test_a_handshake_that_ends_well_is_counted(tls_lab: TlsLab) -> None:
    await start(tls_lab)
    for _ in range(3):
        await tls_lab.client()
    assert await handshakes(tls_lab) == {"ok": 3}


async def test_who_speaks_http_is_told_to_speak_tls(tls_lab: TlsLab) -> None:
    await start(tls_lab)
    client = await tls_lab.lab.client()
    client.send(request())
    answer = await client.message()
    assert (answer.status, answer.problem()) == (400, "malformed-request")
    assert b"this port speaks TLS: use https" in answer.body
    assert await client.end() == b""
    assert await handshakes(tls_lab) == {"not-tls": 1}
    assert tls_lab.router.counted("refused", "malformed-request") == 1
    assert tls_lab.router.requests["", "", "4xx"] == 1


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"\x00" * 100, "not-tls"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not-tls"),
        (b"\x16\x03\x01\x00\x05hello", "failed"),
        (b"\x80\x2e\x01\x00\x02" + b"\x00" * 60, "failed"),
    ],
)
async def test_what_is_no_handshake_ends_the_connection_in_silence(
    tls_lab: TlsLab, data: bytes, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    await start(tls_lab)
    caplog.clear()
    client = await tls_lab.lab.client()
    client.send(data)
    assert await client.is_ended()
    found = await handshakes(tls_lab)
    assert sum(found.values()) == 1
    assert set(found) <= {outcome, "failed", "version"}
    assert caplog.records == []


@pytest.mark.parametrize("data", [b"", _CLIENT_HELLO_HEAD])
async def test_a_client_that_does_not_go_on_is_sent_away_in_time(
    tls_lab: TlsLab, data: bytes
) -> None:
    await start(tls_lab, downstream={"handshake_timeout": "50ms"})
    client = await tls_lab.lab.client()
    client.send(data)
    assert await client.is_ended()
    assert await handshakes(tls_lab) == {"timeout": 1}
    assert not tls_lab.router.worker.handshakes.in_progress


async def test_the_timeout_is_that_of_the_handshake_only(tls_lab: TlsLab) -> None:
    await start(tls_lab, downstream={"handshake_timeout": "50ms"})
    client = await tls_lab.client()
    late = await tls_lab.lab.client()
    assert await late.is_ended()
    client.send(request())
    assert (await client.message()).status == 200


@pytest.mark.parametrize("is_reset", [True, False])
async def test_a_client_that_leaves_is_forgotten(tls_lab: TlsLab, is_reset: bool) -> None:
    await start(tls_lab)
    client = await tls_lab.lab.client()
    client.send(_CLIENT_HELLO_HEAD)
    under_way = tls_lab.router.worker.handshakes.in_progress
    await eventually(lambda: len(under_way) == 1)
    client.reset() if is_reset else client.close()
    await eventually(lambda: not under_way)
    assert await handshakes(tls_lab) == {"closed": 1}


async def test_a_client_that_does_not_believe_us_says_so(tls_lab: TlsLab) -> None:
    await start(tls_lab)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError):
        await tls_lab.client(context)
    await eventually(lambda: not tls_lab.router.worker.handshakes.in_progress)
    assert await handshakes(tls_lab) == {"rejected": 1}


async def test_handshakes_count_towards_the_bound_on_connections(
    tls_lab: TlsLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.data.handshakes._SURPLUS_MAX", 1)
    await start(tls_lab, downstream={"connections": 2})
    served = await tls_lab.client()
    under_way = [await tls_lab.lab.client() for _ in range(2)]
    await eventually(lambda: len(tls_lab.router.worker.handshakes.in_progress) == 2)
    one_too_many = await tls_lab.lab.client()
    assert await one_too_many.is_ended()
    served.send(request())
    assert (await served.message()).status == 200
    under_way[0].close()
    await eventually(lambda: len(tls_lab.router.worker.handshakes.in_progress) == 1)
    assert await tls_lab.client()
    await tls_lab.router.flush()
    assert tls_lab.router.counted("refused", "too-many-connections") == 1


@pytest.mark.parametrize(
    ("collaborator", "method"),
    [("acceptor", "look"), ("handshakes", "begin"), ("clients", "peer_of"), ("clients", "enter")],
)
async def test_a_bug_while_a_connection_is_taken_closes_it_and_is_counted(
    tls_lab: TlsLab, monkeypatch: pytest.MonkeyPatch, collaborator: str, method: str
) -> None:
    """Before its handshake, or when that is done."""
    await start(tls_lab)
    router = tls_lab.router
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    with monkeypatch.context() as broken:
        broken.setattr(getattr(router.worker, collaborator), method, a_bug)
        client = await tls_lab.connect()
        assert await client.is_ended()
    assert client.received == b""
    assert not router.connections
    assert not router.worker.handshakes.in_progress
    assert [type(context["exception"]) for context in reported] == [RuntimeError]
    await router.flush()
    assert router.counted("refused", "internal") == 1
    client = await tls_lab.client()
    client.send(request())
    assert (await client.message()).status == 200


async def test_a_handshake_under_way_when_the_worker_leaves_is_served(tls_lab: TlsLab) -> None:
    await start(tls_lab)
    client = await tls_lab.connect()
    with pytest.raises(ssl.SSLWantReadError):
        client.ssl.do_handshake()
    client.writer.write(client.outgoing.read(50))
    await eventually(lambda: tls_lab.router.worker.handshakes.in_progress)
    tls_lab.router.send(Drain(0.0, 5.0))
    departure = tls_lab.router.worker.departure
    await eventually(lambda: departure._has_stopped_accepting)
    assert not departure.ended.done()
    await client.shake()
    client.send(request())
    answer = await client.message()
    assert (answer.status, answer.field("connection")) == (200, "close")
    assert tls_lab.router.run is not None
    await soon(asyncio.wait([tls_lab.router.run]))


async def test_a_handshake_that_never_ends_does_not_keep_a_worker(tls_lab: TlsLab) -> None:
    await start(tls_lab)
    client = await tls_lab.lab.client()
    client.send(_CLIENT_HELLO_HEAD)
    await eventually(lambda: tls_lab.router.worker.handshakes.in_progress)
    tls_lab.router.send(Drain(0.0, 60.0))
    assert tls_lab.router.run is not None
    await soon(asyncio.wait([tls_lab.router.run]))


# clients' certificates


def mutual(tls_lab: TlsLab, auth: str) -> dict[str, Any]:
    return {"client_ca": str(tls_lab.authority.path), "client_auth": auth}


async def test_a_required_certificate_is_required(tls_lab: TlsLab) -> None:
    await start(tls_lab, tls=mutual(tls_lab, "required"))
    client = await tls_lab.client()  # in TLS 1.3 the client is done before it is refused
    with pytest.raises(ssl.SSLError, match="certificate required"):
        await soon(client.fill())
    assert await handshakes(tls_lab) == {"client-certificate": 1}


@pytest.mark.parametrize("auth", ["optional", "required"])
async def test_a_certificate_of_another_ca_is_refused(tls_lab: TlsLab, auth: str) -> None:
    await start(tls_lab, tls=mutual(tls_lab, auth))
    directory = tls_lab.authority.directory / "other"
    directory.mkdir()
    foreign = Authority(directory).issue("batch.example")
    client = await tls_lab.client(tls_lab.authority.client(foreign))
    with pytest.raises(ssl.SSLError, match="unknown ca"):
        await soon(client.fill())
    assert await handshakes(tls_lab) == {"client-certificate": 1}


async def test_the_endpoint_is_told_whose_certificate_it_is(tls_lab: TlsLab) -> None:
    origin = await tls_lab.lab.answering()
    await tls_lab.start(tls_lab.listening(document(origin), **mutual(tls_lab, "optional")))
    pair = tls_lab.authority.issue("b.example", common_name="bätch", organization="Acme, Inc.")
    known = await tls_lab.client(tls_lab.authority.client(pair))
    nobody = await tls_lab.client()
    forged = (b"X-Client-Cert-Subject: CN=root", b"x-client-cert-san: DNS:root")
    for client in (known, nobody):
        client.send(request(b"GET", b"/", None, *forged))
        assert (await client.message()).status == 200
    plain, without = origin.requests
    subject = plain.field("x-client-cert-subject")
    assert subject is not None
    assert re.fullmatch(r"CN=b\\C3\\A4tch,OU=[^,]+,O=Acme\\, Inc.", subject)
    assert plain.field("x-client-cert-san") == "DNS:b.example"
    assert without.values("x-client-cert-subject") == []
    assert without.values("x-client-cert-san") == []


async def test_routes_and_units_follow_the_certificate(tls_lab: TlsLab) -> None:
    batch, other = await tls_lab.lab.answering(), await tls_lab.lab.answering()
    policy = {
        "type": "canary",
        "stable": "v1",
        "canary": "v2",
        "weight": "50%",
        "sticky": {"client_cert": True},
    }
    match = {"client_cert": {"subject": {"prefix": "CN=batch,"}, "san": "DNS:batch.example"}}
    config = {
        "backends": {"v1": {"endpoints": [other.url]}, "v2": {"endpoints": [batch.url]}},
        "routes": [
            {"name": "batch", "match": match, "backend": "v2"},
            {"name": "rest", "policy": policy},
        ],
    }
    await tls_lab.start(tls_lab.listening(config, **mutual(tls_lab, "optional")))

    @functools.cache
    def context_of(name: str | None) -> ssl.SSLContext:
        names = {"common_name": name, "organization": "Acme"}
        pair = tls_lab.authority.issue(f"{name}.example", **names) if name else None
        return tls_lab.authority.client(pair)

    async def answered_by(name: str | None) -> tuple[str | None, str | None]:
        client = await tls_lab.client(context_of(name))
        found = set()
        for _ in range(3):
            client.send(request())
            answer = await client.message()
            found.add((answer.field("x-router-route"), answer.field("x-router-variant")))
        (one,) = found
        return one

    assert await answered_by("batch") == ("batch", "v2")
    assert await answered_by(None) == ("rest", "v1")
    names = [f"user-{i}" for i in range(12)]
    first = [await answered_by(name) for name in names]
    assert {route for route, _ in first} == {"rest"}
    assert {variant for _, variant in first} == {"v1", "v2"}
    assert [await answered_by(name) for name in names] == first


# with endpoints


async def test_an_endpoint_is_asked_by_its_name(tls_lab: TlsLab) -> None:
    asked: list[str | None] = []
    context = server(tls_lab.server)
    context.sni_callback = lambda connection, name, _: asked.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    origin = await tls_lab.answering(context)
    origin.name = "localhost"
    await tls_lab.start(tls_lab.document(origin))
    assert (await tls_lab.lab.ask(request())).status == 200
    (wire,) = [one for one in origin.wires if one.received]
    assert isinstance(wire, TlsWire)
    assert wire.ssl.selected_alpn_protocol() == "http/1.1"
    assert wire.ssl.version() == "TLSv1.3"
    assert asked == ["localhost"]


async def test_the_name_to_expect_may_be_another(tls_lab: TlsLab) -> None:
    pair = tls_lab.authority.issue("model.internal")
    origin = await tls_lab.answering(server(pair))
    await tls_lab.start(tls_lab.document(origin, server_name="model.internal"))
    assert (await tls_lab.lab.ask(request())).status == 200


async def refusal(tls_lab: TlsLab, config: dict[str, Any], reason: str = "tls") -> str:
    """The detail of the 502 that a request gets."""
    router = await tls_lab.start(config)
    answer = await tls_lab.lab.ask(request())
    assert (answer.status, answer.problem()) == (502, "upstream-connect")
    await router.flush()
    assert router.counted("upstream_failures", "v1", reason) >= 1
    assert router.pool().open == 0
    detail: str = answer.body.decode().partition('"detail":"')[2].partition('"')[0]
    return detail.partition(": ")[2]


async def test_an_endpoint_with_another_name_is_refused(tls_lab: TlsLab) -> None:
    origin = await tls_lab.answering(server(tls_lab.authority.issue("other.internal")))
    origin.name = "localhost"
    assert await refusal(tls_lab, tls_lab.document(origin)) == (
        "certificate verify failed: hostname mismatch, certificate is not valid for 'localhost'"
    )


async def test_an_endpoint_of_an_unknown_ca_is_refused(tls_lab: TlsLab) -> None:
    origin = await tls_lab.answering()
    detail = await refusal(tls_lab, document(origin))
    assert detail.startswith("certificate verify failed: ")
    assert "local issuer" in detail


async def test_an_endpoint_whose_certificate_expired_is_refused(tls_lab: TlsLab) -> None:
    pair = tls_lab.authority.issue("127.0.0.1", days=-1)
    origin = await tls_lab.answering(server(pair))
    detail = await refusal(tls_lab, tls_lab.document(origin))
    assert detail == "certificate verify failed: certificate has expired"


async def test_without_verifying_anybody_will_do(tls_lab: TlsLab) -> None:
    pair = tls_lab.authority.issue("other.internal", days=-1)
    origin = await tls_lab.answering(server(pair))
    await tls_lab.start(document(origin, tls={"verify": False}))
    assert (await tls_lab.lab.ask(request())).status == 200


async def test_an_endpoint_that_does_not_speak_tls_is_refused(tls_lab: TlsLab) -> None:
    async def script(wire: Wire) -> None:
        await wire.fill()
        wire.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    origin = await tls_lab.lab.origin(script)
    config = tls_lab.document(origin)
    config["backends"]["v1"]["endpoints"] = [origin.url.replace("http:", "https:")]
    assert await refusal(tls_lab, config) == "TLS handshake failed: it does not speak TLS"


async def test_an_endpoint_that_leaves_in_the_handshake_is_refused(tls_lab: TlsLab) -> None:
    async def script(wire: Wire) -> None:
        await wire.fill()
        wire.writer.close()

    origin = await tls_lab.lab.origin(script)
    config = tls_lab.document(origin)
    config["backends"]["v1"]["endpoints"] = [origin.url.replace("http:", "https:")]
    assert await refusal(tls_lab, config) == "TLS handshake failed: it closed the connection"


async def test_the_time_to_connect_includes_the_handshake(tls_lab: TlsLab) -> None:
    async def script(wire: Wire) -> None:
        await wire.ended.wait()

    origin = await tls_lab.lab.origin(script)
    config = tls_lab.document(origin)
    backend = config["backends"]["v1"]
    backend["endpoints"] = [origin.url.replace("http:", "https:")]
    backend["timeout"] = {"connect": "100ms"}
    router = await tls_lab.start(config)
    answer = await tls_lab.lab.ask(request())
    assert (answer.status, answer.problem()) == (504, "upstream-connect-timeout")
    assert router.pool().open == 0
    assert await soon(origin.wires[0].is_ended())


async def test_our_certificate_is_shown_to_who_asks(tls_lab: TlsLab) -> None:
    context = server(tls_lab.server)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls_lab.authority.path)
    origin = await tls_lab.answering(context)
    pair = tls_lab.authority.issue("router.internal", common_name="router")
    await tls_lab.start(tls_lab.document(origin, **pair.as_yaml()))
    assert (await tls_lab.lab.ask(request())).status == 200
    (wire,) = origin.wires
    assert isinstance(wire, TlsWire)
    found: Any = wire.ssl.getpeercert()
    assert found["subject"][-1] == (("commonName", "router"),)


async def test_an_endpoint_that_misses_our_certificate_fails_the_request(tls_lab: TlsLab) -> None:
    context = server(tls_lab.server)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls_lab.authority.path)
    origin = await tls_lab.answering(context)
    await tls_lab.start(tls_lab.document(origin))
    answer = await tls_lab.lab.ask(request(b"POST", b"/", b"x"))
    assert (answer.status, answer.problem()) == (502, "upstream-reset")
    assert b"TLS failed: tlsv13 alert certificate required" in answer.body
    assert origin.requests == []


async def test_endpoints_with_and_without_tls_stand_side_by_side(tls_lab: TlsLab) -> None:
    secure, plain = await tls_lab.answering(), await tls_lab.lab.answering()
    await tls_lab.start(tls_lab.document(secure, plain))
    for _ in range(40):
        assert (await tls_lab.lab.ask(request())).status == 200
    assert secure.requests
    assert plain.requests
    assert not any(one.field("x-client-cert-subject") for one in plain.requests)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (TimeoutError(), "timeout"),
        (Cut(), "closed"),
        (ValueError("not UTF-8"), "failed"),
        (ssl.SSLError(1, "[SSL] unknown"), "failed"),
    ],
)
def test_an_outcome_is_one_of_few_words(error: Exception | None, outcome: str) -> None:
    assert outcome_of(error) == outcome


async def test_a_request_is_sent_again_when_a_kept_connection_has_ended(tls_lab: TlsLab) -> None:
    async def script(wire: Wire) -> None:
        assert isinstance(wire, TlsWire)
        await origin.next_request(wire)
        wire.send(OK)
        await origin.next_request(wire)
        wire.writer.close()

    origin = await tls_lab.origin(script)
    router = await tls_lab.start(tls_lab.document(origin))
    for _ in range(4):
        assert (await tls_lab.lab.ask(request())).status == 200
    await router.flush()
    assert router.requests["all", "v1", "2xx"] == 4
    assert (origin.accepted, len(origin.requests)) == (4, 7)
