"""What the listener answers itself: pages below the reserved prefix `/-/`, and the last hop.

`/-/healthz` (this worker runs), `/-/readyz` (and takes new requests), and the feedback path, whose
answer alone waits for control: it alone knows duplicates and the store.
"""

from typing import TYPE_CHECKING, Final

from router.errors import (
    BODY_TOO_LARGE,
    CONTROL_AWAY,
    FEEDBACK_METHOD,
    MALFORMED,
    NO_ROUTE,
    RELAYED_METHODS,
    Refusal,
)
from router.http1.problem import write_answer, write_problem
from router.http1.request_head import RequestHead
from router.messages import FeedbackAnswer

if TYPE_CHECKING:
    from router.data.downstream import Downstream

_TEXT: Final = b"text/plain; charset=utf-8"


class OwnPage:
    """Collects one bounded request body and answers it. Implements `downstream.Handler`."""

    __slots__ = (
        "_body", "_body_bytes", "_downstream", "_head", "_is_complete", "_is_finished", "is_head",
    )  # fmt: skip

    def __init__(self, downstream: "Downstream", head: RequestHead) -> None:
        self._downstream = downstream
        self._head = head
        self.is_head = head.method == b"HEAD"
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_complete = False
        self._is_finished = False

    def __repr__(self) -> str:
        return f"<OwnPage {self._head.path!r}>"

    def start(self, payload: bytes, complete: bool) -> None:
        if self._head.expects_continue and not complete:
            self._downstream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.on_request_body(payload, complete)

    def on_request_body(self, payload: bytes, complete: bool) -> None:
        if self._is_finished:
            return
        self._is_complete = complete
        self._body.append(payload)
        self._body_bytes += len(payload)
        limit = self._downstream.worker.feedback.max_body
        if self._body_bytes > limit:
            self._refuse(BODY_TOO_LARGE, f"the body is longer than {limit} bytes")
        elif complete:
            self._answer()

    def on_client_paused(self) -> None:
        pass

    def on_client_resumed(self) -> None:
        pass

    def on_client_gone(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._downstream.worker.in_flight -= 1

    def _answer(self) -> None:
        worker = self._downstream.worker
        path = self._head.path.decode("ascii")
        if self._head.is_last_hop:
            self._write(200, _TEXT, b"", b"allow: %b\r\n" % RELAYED_METHODS.encode())
        elif path == worker.feedback.path or self._head.path in worker.own_paths:
            self._ask_control()
        elif path == "/-/healthz":
            self._write(200, _TEXT, b"ok\n")
        elif path == "/-/readyz":
            ready = not worker.is_draining
            self._write(200 if ready else 503, _TEXT, b"ready\n" if ready else b"draining\n")
        else:
            self._refuse(NO_ROUTE, f"{path} is not a page of the router")

    def _ask_control(self) -> None:
        if self._head.method != b"POST":
            self._refuse(FEEDBACK_METHOD, f"{self._head.method.decode()} is not POST")
            return
        try:
            body = b"".join(self._body).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse(MALFORMED, "the body is not UTF-8")
            return
        content_type = (self._head.header(b"content-type") or b"").decode("latin-1")
        given = (self._head.header(b"authorization") or b"").decode("latin-1")
        if not self._downstream.worker.link.ask_feedback(self, content_type, body, given):
            self._refuse(CONTROL_AWAY, "feedback cannot be taken just now")

    def on_answer(self, answer: FeedbackAnswer) -> None:
        """Control answered."""
        if not self._is_finished:
            extra = b"www-authenticate: Bearer\r\n" if answer.status == 401 else b""
            if answer.retry_after:
                extra += b"retry-after: %d\r\n" % answer.retry_after
            content_type = answer.content_type.encode("ascii")
            self._write(answer.status, content_type, answer.body.encode(), extra)

    def on_control_gone(self) -> None:
        """Control will not answer."""
        if not self._is_finished:
            self._refuse(CONTROL_AWAY, "the control process went away before it answered")

    def _refuse(self, refusal: Refusal, detail: str) -> None:
        self._downstream.worker.stats.count_refusal(refusal)
        close = refusal.close or not self._is_complete
        answer = write_problem(
            refusal,
            detail,
            self._head.request_id,
            date=self._downstream.worker.date_line,
            is_head=self.is_head,
            close=close,
        )
        self._end(answer, close)

    def _write(self, status: int, content_type: bytes, body: bytes, extra: bytes = b"") -> None:
        close = not self._head.keep_alive or self._downstream.worker.is_draining
        extra += self._downstream.worker.date_line
        answer = write_answer(
            status, content_type, body, extra=extra, is_head=self.is_head, close=close
        )
        self._end(answer, close)

    def _end(self, response: bytes, close: bool) -> None:
        self._is_finished = True
        self._downstream.write(response)
        self._downstream.on_exchange_end(not close, self._is_complete)
