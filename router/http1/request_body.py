"""A request body that did not come whole with its head: its framing, its size, its pace.

Pure: times are passed in. Size and pace are refused as soon as they are known to be wrong.
"""

from dataclasses import dataclass

from router.errors import BODY_TOO_LARGE, SLOW_CLIENT, HeadError
from router.http1.body import ChunkedDecoder, LengthDecoder
from router.http1.request_head import CHUNKED


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """`max_bytes` of payload; `min_rate` bytes per second on average, after `grace_s` seconds."""

    max_bytes: int
    trailers_max_bytes: int
    min_rate: int
    grace_s: float


class RequestBody:
    """Feed bytes, get payload, until `done`; `rest` then holds what followed."""

    __slots__ = ("_began_s", "_bounds", "_decoder", "_paused_s", "_received")

    def __init__(self, body_bytes: int, bounds: BodyBounds, now_s: float) -> None:
        """`body_bytes` as in `RequestHead`.

        Raises:
            HeadError: the declared length is too large already.
        """
        if body_bytes > bounds.max_bytes:
            raise _too_large(body_bytes, bounds)
        self._bounds = bounds
        self._decoder: ChunkedDecoder | LengthDecoder
        if body_bytes == CHUNKED:
            self._decoder = ChunkedDecoder(trailers_max_bytes=bounds.trailers_max_bytes)
        else:
            self._decoder = LengthDecoder(body_bytes)
        self._received = 0
        self._began_s = now_s
        self._paused_s = 0.0

    @property
    def done(self) -> bool:
        """The last byte has come."""
        return self._decoder.done

    @property
    def rest(self) -> bytes:
        """What followed the body; meaningful when `done`."""
        return self._decoder.rest

    def feed(self, data: bytes, now_s: float) -> bytes:
        """The payload bytes in `data`, which came at `now_s`.

        Raises:
            HeadError: malformed framing, too many bytes, or too few per second.
        """
        payload = self._decoder.feed(data)
        bounds = self._bounds
        self._received += len(payload)
        if self._received > bounds.max_bytes:
            raise _too_large(self._received, bounds)
        elapsed_s = now_s - self._began_s
        if (
            elapsed_s > bounds.grace_s
            and self._received < bounds.min_rate * elapsed_s
            and not self._decoder.done
        ):
            rate = self._received / elapsed_s
            detail = f"the body came at {rate:.0f} bytes/s, expected at least {bounds.min_rate}"
            raise HeadError(SLOW_CLIENT, detail)
        return payload

    def pause(self, now_s: float) -> None:
        """We stopped reading: the time until `resume` is not the client's."""
        self._paused_s = now_s

    def resume(self, now_s: float) -> None:
        """We read again."""
        self._began_s += now_s - self._paused_s


def _too_large(body_bytes: int, bounds: BodyBounds) -> HeadError:
    detail = f"the body has {body_bytes} bytes or more, expected no more than {bounds.max_bytes}"
    return HeadError(BODY_TOO_LARGE, detail)
