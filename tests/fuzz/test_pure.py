"""A short, seeded piece of the long runs of the pure parsers."""

import faulthandler

import pytest

from router.errors import HeadError
from router.http1 import body
from tests.fuzz import pure, reference
from tests.fuzz.mutate import BODIES, REQUESTS, RESPONSES
from tests.fuzz.properties import Properties


@pytest.mark.parametrize("seed", [1, 2])
def test_the_parsers_hold_their_invariants_on_mutants(seed: int) -> None:
    accepted = pure.run(15_000, seed)
    # a run that refused all, or nothing, would prove little
    for name in ("request", "response", "chunked"):
        assert 300 < accepted[name] < 4700, accepted


def test_every_seed_is_accepted() -> None:
    properties = Properties()
    assert all(map(properties.request, REQUESTS))
    assert all(map(properties.response, RESPONSES))
    assert all(properties.chunked(b"\x40\xa0" + raw) for raw in BODIES)


def test_a_laxer_decoder_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lax(body.ChunkedDecoder):
        def feed(self, data: bytes) -> bytes:
            return super().feed(data.replace(b"+", b""))

    monkeypatch.setattr("tests.fuzz.properties.ChunkedDecoder", Lax)
    with pytest.raises(AssertionError) as caught:
        pure.run(15_000, 1)
    assert "seed 1" in caught.value.__notes__[0]


def test_a_parser_that_crashes_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyError

    watchdog: list[str] = []
    monkeypatch.setattr("router.http1.request._count_hop", crash)
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda *_, **__: watchdog.append("armed")
    )
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: watchdog.append("off"))
    with pytest.raises(KeyError):
        pure.run(15_000, 1)
    assert watchdog[-1] == "off"  # it would end the process of the tests that follow


def test_the_reference_refuses_by_its_own_exceptions_only() -> None:
    for raw in (*REQUESTS, *RESPONSES):
        stream = reference.read_requests(raw)
        assert stream.end in reference.End
    with pytest.raises(reference.Refused):
        reference.chunked_at(b"+1\r\na\r\n0\r\n\r\n", 0)
    with pytest.raises(HeadError):
        body.ChunkedDecoder().feed(b"+1\r\n")
