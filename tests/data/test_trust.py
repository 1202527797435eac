"""Certificates renewed under open connections; bad ones leave what is in force."""

import ssl
from pathlib import Path

import pytest

from router.messages import PemFiles
from tests.data.harness import document, eventually, request
from tests.data.tls import TlsLab, TlsWire


async def serial(tls_lab: TlsLab) -> object:
    """Which certificate a new client is shown."""
    wire = await tls_lab.client()
    shown = wire.ssl.getpeercert()
    assert shown is not None
    wire.close()
    return shown["serialNumber"]


async def ask(wire: TlsWire) -> int:
    wire.send(request())
    return (await wire.message()).status


async def test_new_handshakes_show_the_renewed_certificate_and_open_connections_stay(
    tls_lab: TlsLab,
) -> None:
    config = tls_lab.listening(document(await tls_lab.lab.answering()))
    router = await tls_lab.start(config)
    kept = await tls_lab.client()
    first = await serial(tls_lab)
    tls_lab.authority.issue("localhost", "127.0.0.1")
    assert await serial(tls_lab) == first
    before = router.worker.handshakes.context
    router.send(PemFiles(tls_lab.texts(config)))
    await eventually(lambda: router.worker.handshakes.context is not before)
    assert await serial(tls_lab) != first
    assert await ask(kept) == 200


async def test_texts_of_no_use_leave_what_is_in_force(
    tls_lab: TlsLab, caplog: pytest.LogCaptureFixture
) -> None:
    config = tls_lab.listening(document(await tls_lab.lab.answering()))
    router = await tls_lab.start(config)
    first = await serial(tls_lab)
    for texts in ({}, dict.fromkeys(tls_lab.texts(config), "nonsense")):
        caplog.clear()
        router.send(PemFiles(texts))
        await eventually(lambda: "certificates_not_taken" in caplog.text)
        assert await serial(tls_lab) == first


async def test_a_trial_without_its_files_is_objected_to(tls_lab: TlsLab) -> None:
    config = document(await tls_lab.lab.answering())
    router = await tls_lab.start(config)
    error = (await router.prepare(tls_lab.listening(config))).error
    assert error is not None
    assert error.startswith("KeyError")
    assert (await tls_lab.lab.ask(request())).status == 200


async def test_an_unchanged_listener_keeps_its_sessions_over_a_reload(tls_lab: TlsLab) -> None:
    config = tls_lab.listening(document(await tls_lab.lab.answering()))
    router = await tls_lab.start(config)
    before = router.worker.handshakes.context
    await tls_lab.reload({**config, "drain_timeout": "20s"})
    assert router.worker.handshakes.context is before


async def test_tls_can_begin_and_end_at_a_reload(tls_lab: TlsLab) -> None:
    plain = document(await tls_lab.lab.answering())
    await tls_lab.start(plain)
    in_clear = await tls_lab.lab.client()
    await tls_lab.reload(tls_lab.listening(plain))
    encrypted = await tls_lab.client()
    assert await ask(encrypted) == 200
    in_clear.send(request())
    assert (await in_clear.message()).status == 200
    await tls_lab.reload(plain)
    assert await ask(encrypted) == 200
    assert (await tls_lab.lab.ask(request())).status == 200


async def test_endpoints_are_met_with_the_renewed_cas(tls_lab: TlsLab, tmp_path: Path) -> None:
    origin = await tls_lab.answering()
    config = tls_lab.document(origin)
    router = await tls_lab.start(config)
    assert (await tls_lab.lab.ask(request())).status == 200
    (tmp_path / "other").mkdir()
    other = type(tls_lab.authority)(tmp_path / "other")
    router.send(PemFiles({str(tls_lab.authority.path): other.path.read_text()}))
    context = router.pool().tls_context
    await eventually(lambda: router.pool().tls_context is not context)
    assert (await tls_lab.lab.ask(request())).status == 200  # on the connection that is open
    router.pool().endpoints[0].idle[0].transport.abort()
    await eventually(lambda: router.pool().open == 0)
    assert (await tls_lab.lab.ask(request())).status == 502


async def test_later_texts_win_over_earlier_ones_that_took_longer(tls_lab: TlsLab) -> None:
    config = tls_lab.listening(document(await tls_lab.lab.answering()))
    router = await tls_lab.start(config)
    trust, snapshot = router.worker.trust, router.worker.snapshot
    parsed = snapshot.table.config
    early = await trust.build(parsed, tls_lab.texts(config))
    tls_lab.authority.issue("localhost", "127.0.0.1")
    late = await trust.build(parsed, tls_lab.texts(config))
    trust.adopt(late, snapshot)
    trust.adopt(early, snapshot)
    assert router.worker.handshakes.context is late.contexts.listener
    assert isinstance(late.contexts.listener, ssl.SSLContext)
