"""Tells when the content of the config file is another one. The only part of `config` that waits.

It must not read the file's meaning: what changed is the reader's business. Strategy:

1. What counts is the content behind the path, as a hash. So an in-place write, a rename over the
   file, a swapped symlink (a Kubernetes ConfigMap's `..data`) and a bind-mounted file are one case.
2. The hash is taken every `poll_s` in any case, for events do not cross every mount; and at once
   when something in the path's directory changes, for an editor's user does not want to wait.
3. A file that is missing or being written is no content: it is looked at again.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from watchfiles import awatch

from router.config.load import FILE_MAX_BYTES

_SETTLE_S: Final = 0.05
"""A content is taken as written when it is the same for this long."""
_EVENT_STEP_MS: Final = 20


async def changes(
    path: Path, poll_s: float = 1.0, digest: str | None = None
) -> AsyncGenerator[None, None]:
    """Yield whenever the content of `path` differs from what it was at the last yield.

    `digest` (SHA-256, hex) is the content to begin with; without it, what is there at the start.
    `poll_s` (seconds) bounds how late a change is seen. Ends only by being closed or cancelled.
    """
    known = digest if digest is not None else await asyncio.to_thread(_digest, path)
    while True:
        async with contextlib.aclosing(_looks(path, poll_s)) as looks:
            async for _ in looks:
                found = await _settled(path)
                if found is not None and found != known:
                    known = found
                    yield


async def _looks(path: Path, poll_s: float) -> AsyncGenerator[None, None]:
    """Yield when it is time to look; ends when the directory is another one than at the start."""
    directory = path.parent
    yield
    watched = _identity(directory)
    events = awatch(
        directory,
        watch_filter=None,
        debounce=int(_SETTLE_S * 1000),
        step=_EVENT_STEP_MS,
        rust_timeout=max(1, int(poll_s * 1000)),
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    )
    # The directory went away before it could be watched (OSError), or the system has no watches
    # left (RuntimeError, as watchfiles translates it): then polling alone has to do.
    with contextlib.suppress(OSError, RuntimeError):
        async with contextlib.aclosing(events) as batches:
            async for _ in batches:
                yield
                if _identity(directory) != watched:
                    return
    await asyncio.sleep(poll_s)


async def _settled(path: Path) -> str | None:
    """The digest of the content once it stays the same; None while there is none."""
    found = await asyncio.to_thread(_digest, path)
    while found is not None:
        await asyncio.sleep(_SETTLE_S)
        again = await asyncio.to_thread(_digest, path)
        if again == found:
            break
        found = again
    return found


def _digest(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(FILE_MAX_BYTES + 1)).hexdigest()
    except OSError:
        return None


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        stat = directory.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
