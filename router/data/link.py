"""A worker's end of the channel to control, and the questions that wait for its answer.

Owns the channel from opening to farewell. When control is gone every question is answered so, and
the worker is told once.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from router.channel import Channel, Message
from router.messages import FeedbackAnswer, FeedbackRequest, Hello

if TYPE_CHECKING:
    from router.data.pages import OwnPage

_FAREWELL_S: Final = 1.0
"""How long the last messages may take to leave."""


class ControlLink:
    """The channel to control."""

    def __init__(self, channel_end: socket.socket, on_lost: Callable[[], None]) -> None:
        self._channel_end = channel_end
        self._on_lost = on_lost
        self._channel: Channel | None = None
        self._closed = asyncio.Event()
        self._asked: dict[int, OwnPage] = {}
        self._tickets = 0

    async def open(self, worker: int, on_message: Callable[[Message], None]) -> None:
        """Say hello, and deliver what control says to `on_message`."""
        self._channel = await Channel.open(self._channel_end, on_message, self._on_closed)
        self.send(Hello(worker, os.getpid()))

    def send(self, message: Message) -> None:
        """Send `message`; without control, do nothing."""
        if self._channel is not None:
            self._channel.send(message)

    def ask_feedback(
        self, page: "OwnPage", content_type: str, body: str, authorization: str
    ) -> bool:
        """Pass feedback on; the answer goes to `page`. False when there is no control."""
        if self._channel is None or self._channel.is_closed:
            return False
        self._tickets += 1
        self._asked[self._tickets] = page
        self.send(FeedbackRequest(self._tickets, content_type, body, authorization))
        return True

    def on_feedback_answer(self, answer: FeedbackAnswer) -> None:
        """Give an answer to the page that asked."""
        page = self._asked.pop(answer.ticket, None)
        if page is not None:
            page.on_answer(answer)

    async def farewell(self, message: Message) -> None:
        """Send the last message and wait, briefly, until all has left."""
        self.send(message)
        if self._channel is not None:
            self._channel.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._closed.wait()

    def _on_closed(self) -> None:
        self._closed.set()
        pages = list(self._asked.values())
        self._asked.clear()
        for page in pages:
            page.on_control_gone()
        self._on_lost()
