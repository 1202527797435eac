"""How many files the program may open, which on Linux bounds its connections too.

The soft limit of a shell or a service manager is often 1,024, for the sake of programs that use
`select(2)`; none of ours does, so it is raised to the hard limit. Workers inherit it.
"""

import resource
from typing import Final

from router.errors import StartError

_WANTED: Final = 1024 * 1024
"""More connections than any worker holds; a hard limit may be a billion, and tables grow."""
_OWN: Final = 64
"""Of control: the loop, the log, the state store, the admin API, health checks."""
_PER_WORKER: Final = 4
"""A listener and a channel, and both once more while a worker is started."""


def raise_open_files() -> int:
    """Raise this process's limit as far as it may; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft if soft != resource.RLIM_INFINITY else _WANTED


def check_open_files(allowed: int, workers: int) -> None:
    """See to it that the program can start at all.

    Raises:
        StartError: `allowed` open files are too few for `workers`.
    """
    least = _OWN + _PER_WORKER * workers
    if allowed < least:
        raise StartError(
            f"only {allowed} open files are allowed, expected at least {least} for {workers} "
            "workers: raise the limit (ulimit -n, or LimitNOFILE= in a systemd unit)"
        )
