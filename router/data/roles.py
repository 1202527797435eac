"""The two sides of a request, as the connections see them.

A client's connection has a `Handler`; a connection to an endpoint works for a `Call`. An exchange
is both; so is a tunnel; a shadow copy is only a call, one of the router's own pages only a handler.
"""

from typing import TYPE_CHECKING, Protocol

from router.errors import Refusal
from router.http1.response import ResponseHead

if TYPE_CHECKING:
    from router.data.endpoint import EndpointPool
    from router.data.upstream import Upstream


class Handler(Protocol):
    """What serves a request: an `Exchange`, or one of the router's own pages."""

    is_head: bool

    def start(self, payload: bytes, complete: bool) -> None: ...
    def on_request_body(self, payload: bytes, complete: bool) -> None: ...
    def on_client_paused(self) -> None: ...
    def on_client_resumed(self) -> None: ...
    def on_client_gone(self) -> None: ...


class Call(Protocol):
    """Whom a connection works for: one request and what becomes of its response."""

    is_head: bool
    is_upgrade: bool
    is_request_complete: bool
    is_finished: bool

    def on_connected(self, upstream: "Upstream") -> None:
        """Send the request on `upstream`."""

    def on_refused(self, refusal: Refusal, detail: str, failed: "EndpointPool | None") -> None:
        """There will be no connection. `failed` is the endpoint that could not be reached."""

    def on_interim(self, head: ResponseHead) -> None:
        """A 1xx other than 101."""

    def on_switched(self, head: ResponseHead, payload: bytes) -> None:
        """The 101 that was asked for; `payload` follows it. Only when `is_upgrade`."""

    def on_response(self, head: ResponseHead, payload: bytes, complete: bool) -> None:
        """The final head, with the payload bytes that came along."""

    def on_body(self, payload: bytes, complete: bool) -> None:
        """More payload; it may be empty when `complete`."""

    def on_upstream_lost(self, refusal: Refusal, detail: str) -> None:
        """The response will not be completed; the connection is gone."""

    def on_endpoint_down(self) -> None:
        """The endpoint, which has the whole request and has not begun to answer, failed its check.

        The connection is left as it is: the call may go on waiting.
        """

    def on_upstream_paused(self) -> None:
        """The endpoint takes no more bytes for now."""

    def on_upstream_resumed(self) -> None:
        """The endpoint takes bytes again."""
