"""The PEM files that the config names: which content is in force, and what is on disk by now.

1. What counts is content. That a file may have another is seen by its identity, size and times,
   once a second: so a renewal in place, a rename and a swapped symlink are one case.
2. A certificate and its key are two files: what is wrong with new content is believed when the
   files have been left alone since the last look. Then it is told, once, and the last good content
   stays in force, for workers that start later too.
3. Handshakes that begin after a renewal show the new certificate; no connection is touched.
"""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from router import logs
from router.config import Config, Loaded
from router.config.problems import render_path
from router.config.tls import UpstreamTls
from router.messages import PemFiles
from router.tls import files
from router.tls.contexts import upstream_context

POLL_S: Final = 1.0
_LOGGED_ERRORS_MAX: Final = 20

_Signatures = Mapping[str, tuple[int, ...] | None]
"""Path -> what changes when its content does; None: there is no such file."""

log = logging.getLogger(__name__)


class Certificates:
    """What control knows of certificates."""

    def __init__(self, push: Callable[[PemFiles], None], loaded: Loaded) -> None:
        """`push` tells all workers of new content. `loaded` is the config to begin with."""
        self.reload_failures = 0
        self.expiries: dict[str, float] = {}
        """Name -> when its certificate expires, in seconds since 1970."""
        self._push = push
        self._contexts: dict[UpstreamTls, ssl.SSLContext] = {}
        self.adopt(loaded)

    def offer(self, loaded: Loaded) -> None:
        """`loaded` may come in force: backends that it adds are met as it says, until another
        config is offered or adopted."""
        self._offered = loaded
        self._contexts = {}

    def adopt(self, loaded: Loaded) -> None:
        """`loaded` is in force, with what its files held."""
        self._config: Config = loaded.config
        self._offered = loaded
        self._seen: _Signatures = {}
        self._doubtful: _Signatures = {}
        self._put_in_force(loaded.pem)

    def take(self, pem: Mapping[str, str]) -> bool:
        """Put new content, which was looked at, in force. Returns whether it is any other."""
        if dict(pem) == self.pem:
            return False
        self._put_in_force(pem)
        self._push(PemFiles(self.pem))
        logs.event(log, "certificates_renewed", names=sorted(self.expiries))
        return True

    def _put_in_force(self, pem: Mapping[str, str]) -> None:
        self.pem = dict(pem)
        """Path -> content in force."""
        self.expiries = files.expiries(self._config, self.pem)
        self._contexts = {}

    async def watch(
        self, alone: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    ) -> None:
        """Look for new content for ever; `alone` runs a look while no reload is in progress."""
        while True:
            await asyncio.sleep(POLL_S)
            await alone(self.look)

    async def look(self) -> None:
        """Take in what the files hold, if it is new and good."""
        config = self._config
        now = await asyncio.to_thread(_signatures, config)
        if now == self._seen:
            return
        pem, findings = await asyncio.to_thread(files.read, config, time.time())
        errors = [one for one in findings if not one.is_warning]
        if await asyncio.to_thread(_signatures, config) != now:
            return
        if errors and now != self._doubtful:
            self._doubtful = now
            return
        self._seen = now
        if errors:
            self.reload_failures += 1
            told = [f"{render_path(one.path)}: {one.message}" for one in errors]
            logs.event(
                log,
                "certificates_refused",
                severity=logging.ERROR,
                errors=told[:_LOGGED_ERRORS_MAX],
            )
        else:
            self.take(pem)

    def of_backend(self, name: str) -> tuple[ssl.SSLContext | None, str | None]:
        """How to connect to a backend's `https` endpoints: a context, and the name to expect.

        None, None: as anybody would. Cost: see `upstream_context`, at the first call only.
        """
        pem: Mapping[str, str] = self.pem
        backend = self._config.backends.get(name)
        if backend is None:
            pem, backend = self._offered.pem, self._offered.config.backends.get(name)
        tls = backend.tls if backend is not None else None
        if tls is None:
            return None, None
        if tls not in self._contexts:
            self._contexts[tls] = upstream_context(tls, pem)
        return self._contexts[tls], tls.server_name


def _signatures(config: Config) -> _Signatures:
    found: dict[str, tuple[int, ...] | None] = {}
    for path in files.paths(config):
        try:
            stat = os.stat(path)
        except OSError:
            found[path] = None
        else:
            found[path] = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found
