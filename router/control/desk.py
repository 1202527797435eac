"""Feedback that clients post to the listener: a worker passes it on, control answers.

Owns the bound on what is asked at once; what an answer says stands in `feedback.py`.
"""

import asyncio
import logging
from typing import Final

from router.control.feedback import Feedback
from router.control.problems import Answer, problem
from router.control.worker import Worker
from router.messages import FeedbackAnswer, FeedbackRequest

PENDING_MAX: Final = 1024
"""Questions in progress; each is a body of `feedback.max_body` at most."""

log = logging.getLogger(__name__)


class FeedbackDesk:
    """Answers workers."""

    def __init__(self, feedback: Feedback) -> None:
        self._feedback = feedback
        self._asked: set[asyncio.Task[None]] = set()

    def on_feedback(self, worker: Worker, request: FeedbackRequest) -> None:
        """A worker passes a client's feedback on."""
        if len(self._asked) >= PENDING_MAX:
            busy = problem(503, "overloaded", "too much feedback is waiting to be written")
            worker.send(_told(request, busy))
            return
        task = asyncio.create_task(self._answer(worker, request))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def close(self) -> None:
        """Wait for the answers in progress."""
        await asyncio.gather(*self._asked, return_exceptions=True)

    async def _answer(self, worker: Worker, request: FeedbackRequest) -> None:
        try:
            answer = await self._feedback.answer(
                request.content_type, request.body.encode(), request.authorization
            )
        except Exception:  # a bug here must not leave a client waiting
            log.exception("feedback_failed")
            answer = problem(500, "internal", "the call failed; the log says why")
        worker.send(_told(request, answer))


def _told(request: FeedbackRequest, answer: Answer) -> FeedbackAnswer:
    return FeedbackAnswer(
        request.ticket, answer.status, answer.content_type, answer.body, answer.retry_after
    )
