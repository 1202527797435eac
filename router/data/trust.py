"""The TLS contexts of a worker: made beside the traffic, put in force together.

Connections that exist keep what they were made with; handshakes take what is in force when they
begin. Texts come from control, which has looked at them; should they be of no use all the same, the
contexts in force stay.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router import logs
from router.config.model import Config
from router.tls.contexts import NO_CONTEXTS, Contexts, build

if TYPE_CHECKING:
    from router.data.bindings import Snapshot
    from router.data.worker import Worker

_log = logging.getLogger("router.data")


@dataclass(frozen=True, slots=True)
class Numbered:
    """Contexts, and which they are in the order of being asked for."""

    number: int
    contexts: Contexts


NONE: Numbered = Numbered(0, NO_CONTEXTS)


class Trust:
    """Whom this worker believes, and as whom it shows itself."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._in_force = NONE
        self._asked = 0
        self._renewals: set[asyncio.Task[None]] = set()

    async def build(self, config: Config, texts: Mapping[str, str]) -> Numbered:
        """The contexts of `config`, in a thread when there are any: it may take milliseconds.

        Raises:
            ssl.SSLError, KeyError: `texts` are of no use.
        """
        self._asked += 1
        number, earlier = self._asked, self._in_force.contexts
        if config.tls is None and not any(one.has_tls for one in config.backends.values()):
            return Numbered(number, NO_CONTEXTS)
        return Numbered(number, await asyncio.to_thread(build, config, texts, earlier))

    def adopt(self, built: Numbered, snapshot: "Snapshot") -> None:
        """Use them from the next handshake on, unless later ones are in use."""
        if built.number < self._in_force.number:
            return
        self._in_force = built
        self._worker.handshakes.context = built.contexts.listener
        for pool in snapshot.all_pools():
            pool.tls_context = built.contexts.of(pool.config)

    def renew(self, texts: Mapping[str, str]) -> None:
        """Files have new content: take it in beside the traffic."""
        task = self._worker.loop.create_task(self._renew(texts))
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _renew(self, texts: Mapping[str, str]) -> None:
        try:
            built = await self.build(self._worker.snapshot.table.config, texts)
        except Exception as error:
            # whatever is wrong with them, traffic goes on with what is in force
            reason = f"{type(error).__name__}: {error}"
            logs.event(_log, "certificates_not_taken", severity=logging.ERROR, reason=reason)
        else:
            self.adopt(built, self._worker.snapshot)
