"""The state store: what was learned, which rewards were counted, the receipt key.

Owns durability and nothing else: it does not know what a reward means. Strategy:

1. `Store` is the whole interface, small enough for another kind of store.
2. Work runs in one thread of its own; the loop never waits for a disk.
3. A reward is written, with its nonce, before it counts; `seq` numbers rewards in that order. A
   learner's dump is written with the last `seq` in it, so after a crash the rewards after that are
   replayed: none is counted twice, none that was accepted is lost.
4. Old rewards are purged; receipts not newer than what was purged are refused by time
   (`horizon_s`), since whether they were counted is no longer known. The horizon follows the
   rewards, not the clock: a clock that jumped ahead and back leaves no time of refusals behind.
"""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from router.errors import StartError, StateError

SCHEMA_VERSION: Final = 1
_BUSY_TIMEOUT_S: Final = 2.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learned (
    route TEXT NOT NULL, kind TEXT NOT NULL, dump TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (route, kind)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rewards (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, nonce TEXT NOT NULL UNIQUE,
    route TEXT NOT NULL, variant TEXT NOT NULL, reward REAL NOT NULL, issued_s INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS rewards_issued_s ON rewards (issued_s);
"""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward in [0, 1] for one exposure, issued at `issued_s` (seconds since 1970)."""

    nonce: str
    route: str
    variant: str
    reward: float
    issued_s: int


@dataclass(frozen=True, slots=True)
class Learned:
    """A learner's dump of a (route, policy kind), with every reward up to number `seq` in it."""

    route: str
    kind: str
    dump: dict[str, Any]
    seq: int


class Store(Protocol):
    """What the control plane asks of a state store. Every method raises `StateError`."""

    @property
    def horizon_s(self) -> int:
        """Receipts issued before this may have been counted and forgotten."""
        ...

    async def claim(self, rewards: Sequence[Reward]) -> list[int | None]:
        """Write rewards in one transaction: each one's number, None where its nonce was known.

        Numbers rise in the order given. When this returns they outlive a crash.
        """
        ...

    async def rewards_after(self, route: str, seq: int) -> list[tuple[int, Reward]]:
        """Rewards of a route with a higher number, in order."""
        ...

    async def save(self, learned: Iterable[Learned]) -> None:
        """Write dumps in one transaction, each in place of the last of its route and kind."""
        ...

    async def load(self, route: str, kind: str) -> Learned | None:
        """The last dump saved."""
        ...

    async def purge(self, before_s: int) -> int:
        """Forget rewards issued before that, unless no dump has them yet. Returns how many."""
        ...

    async def setdefault(self, name: str, value: str) -> str:
        """The text kept under `name`; `value`, kept from now on, when there was none."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go."""
        ...


async def open_store(url: str) -> Store:
    """The store at `memory:` (forgotten at exit) or `sqlite://PATH`.

    Raises:
        StartError: it cannot be opened; names the path and what to do.
    """
    return await SqliteStore.open(None if url == "memory:" else Path(url.removeprefix("sqlite://")))


class SqliteStore:
    """A `Store` in one SQLite file (or in memory), held exclusively by this process."""

    def __init__(self, place: str) -> None:
        self.horizon_s = 0
        self._place = place
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection
        self._is_closed = False

    @classmethod
    async def open(cls, path: Path | None) -> "SqliteStore":
        """Open, creating the file (readable by its owner only) and its directory when missing."""
        store = cls("memory" if path is None else str(path))
        try:
            await store._run(lambda: store._open(path))
        except StateError as error:
            store._executor.shutdown(wait=False)
            raise StartError(
                f"cannot open the state store {store._place}: {error}; make the directory writable "
                "for this user, or set `state:` to another path"
            ) from error
        return store

    async def claim(self, rewards: Sequence[Reward]) -> list[int | None]:
        def work(connection: sqlite3.Connection) -> list[int | None]:
            numbers: list[int | None] = []
            for reward in rewards:
                row = connection.execute(
                    "INSERT INTO rewards (nonce, route, variant, reward, issued_s)"
                    " VALUES (?, ?, ?, ?, ?) ON CONFLICT (nonce) DO NOTHING RETURNING seq",
                    (reward.nonce, reward.route, reward.variant, reward.reward, reward.issued_s),
                ).fetchone()
                numbers.append(row and row[0])
            return numbers

        return await self._transaction(work)

    async def rewards_after(self, route: str, seq: int) -> list[tuple[int, Reward]]:
        def work(connection: sqlite3.Connection) -> list[tuple[int, Reward]]:
            rows = connection.execute(
                "SELECT seq, nonce, route, variant, reward, issued_s FROM rewards"
                " WHERE seq > ? AND route = ? ORDER BY seq",
                (seq, route),
            )
            return [(row[0], Reward(*row[1:])) for row in rows]

        return await self._transaction(work)

    async def save(self, learned: Iterable[Learned]) -> None:
        rows = [(item.route, item.kind, json.dumps(item.dump), item.seq) for item in learned]
        await self._transaction(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO learned (route, kind, dump, seq) VALUES (?, ?, ?, ?)", rows
            )
        )

    async def load(self, route: str, kind: str) -> Learned | None:
        def work(connection: sqlite3.Connection) -> Learned | None:
            row = connection.execute(
                "SELECT dump, seq FROM learned WHERE route = ? AND kind = ?", (route, kind)
            ).fetchone()
            return row and Learned(route, kind, json.loads(row[0]), row[1])

        return await self._transaction(work)

    async def purge(self, before_s: int) -> int:
        def find(connection: sqlite3.Connection) -> int | None:
            newest: int | None = connection.execute(
                "SELECT max(issued_s) FROM rewards WHERE issued_s < ? AND seq <= coalesce("
                "(SELECT max(seq) FROM learned WHERE learned.route = rewards.route), 0)",
                (before_s,),
            ).fetchone()[0]
            return newest

        def work(connection: sqlite3.Connection) -> int:
            self._put(connection, "horizon_s", str(self.horizon_s))
            return connection.execute(
                "DELETE FROM rewards WHERE issued_s <= ? AND seq <= coalesce("
                "(SELECT max(seq) FROM learned WHERE learned.route = rewards.route), 0)",
                (newest_s,),
            ).rowcount

        newest_s = await self._transaction(find)
        if newest_s is None:
            return 0
        # refuse what is about to be forgotten before it is
        self.horizon_s = max(self.horizon_s, newest_s + 1)
        return await self._transaction(work)

    async def setdefault(self, name: str, value: str) -> str:
        def work(connection: sqlite3.Connection) -> str:
            kept = self._get(connection, name)
            if kept is None:
                self._put(connection, name, value)
            return value if kept is None else kept

        return await self._transaction(work)

    async def close(self) -> None:
        if not self._is_closed:
            await self._run(lambda: self._connection.close())
            self._is_closed = True
            self._executor.shutdown(wait=False)

    # in the store's thread

    def _open(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # it holds the key of receipts; SQLite gives its side files the same mode
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            ":memory:" if path is None else path, timeout=_BUSY_TIMEOUT_S, isolation_level=None
        )
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT;")
            self._check_version(connection)
            self.horizon_s = int(self._get(connection, "horizon_s") or 0)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = self._get(connection, "schema_version")
        if version is None:
            self._put(connection, "schema_version", str(SCHEMA_VERSION))
        elif version != str(SCHEMA_VERSION):
            raise StateError(f"its schema version is {version}, expected {SCHEMA_VERSION}")

    @staticmethod
    def _get(connection: sqlite3.Connection, name: str) -> str | None:
        row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row and str(row[0])

    @staticmethod
    def _put(connection: sqlite3.Connection, name: str, value: str) -> None:
        connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    async def _transaction(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def transact() -> _T:
            with _Transaction(self._connection):
                return work(self._connection)

        return await self._run(transact)

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Run in the store's thread, to the end even when the caller is cancelled."""
        if self._is_closed:
            raise StateError("the state store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except (sqlite3.Error, OSError) as error:
            raise StateError(str(error)) from error


class _Transaction:
    """`BEGIN IMMEDIATE` to `COMMIT`, or `ROLLBACK` when anything fails."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
