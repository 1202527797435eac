"""What routes keep, and whom they share it with: one store and one fleet for the whole program.

Opened when a route first learns or has a rollout; a router that does neither needs no file. What
`state:` names cannot change while the program runs.
"""

import os
import secrets
import socket

from router.control.fleet import Alone, Fleet
from router.control.store import Store, is_shared, open_store


class StateHolder:
    """The store and the fleet, once something needed them."""

    def __init__(self) -> None:
        self.router = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        """This run of the program among the routers of a fleet."""
        self.store: Store | None = None
        self.fleet: Fleet = Alone()

    async def open(self, url: str) -> Store:
        """The store at `url`, opened now if it was not.

        Raises:
            StartError: it cannot be opened; names the place and what to do.
        """
        if self.store is None:
            self.store = await open_store(url)
            if is_shared(url):
                from router.control.redis_fleet import RedisFleet  # late: an extra

                self.fleet = RedisFleet(url, self.router)
        return self.store

    async def close(self) -> None:
        """Give up what this router leads, and let go of the store.

        Raises:
            StateError: the fleet could not be told; what is led falls to another when it ends.
        """
        try:
            await self.fleet.close()
        finally:
            if self.store is not None:
                await self.store.close()
