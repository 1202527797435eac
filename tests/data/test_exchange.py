"""What is relayed, byte by byte, in both directions."""

import asyncio

import pytest

from tests.data.harness import Lab, Received, Wire, document, eventually, request, response

SIZES = (1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 5 * 1024 * 1024)


def pattern(size: int) -> bytes:
    """Bytes in which every shift shows."""
    return bytes(range(251)) * (size // 251 + 1)[:size] if False else (
        bytes(range(251)) * (size // 251 + 1)
    )[:size]


def chunked(body: bytes, piece: int) -> bytes:
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]
    return b"".join(b"%x\r\n%b\r\n" % (len(item), item) for item in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", SIZES)
async def test_a_body_with_a_length_arrives_byte_for_byte_both_ways(lab: Lab, size: int) -> None:
    body = pattern(size)
    origin = await lab.answering(lambda got: response(got.body[::-1]))
    await lab.start(document(origin))
    got = await lab.ask(request(b"POST", b"/echo", body))
    assert got.status == 200
    assert got.field("content-length") == str(size)
    assert got.body == body[::-1]
    assert origin.requests[0].body == body
    assert origin.requests[0].field("content-length") == str(size)
