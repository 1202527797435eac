"""What is counted of experiments, in SQLite. Every function works within a transaction.

Strategy: what one call adds to rows is added up here first (`_Batch`), and each row is written
once. So a batch of thousands of items costs little more than remembering their keys.
"""

import sqlite3
from collections.abc import Mapping, Sequence

import orjson

from router.control.counts import (
    ENTRY_AGE_S,
    ENTRY_MAX,
    LAG_S,
    UNIT_AGE_S,
    UNITS_MAX,
    VERSIONS_MAX,
    Arm,
    Claim,
    Entry,
    Exposed,
    Exposures,
    Figures,
    Increments,
    Item,
    Silences,
    Summed,
    Value,
    Weights,
    differ,
    keys_of,
)
from router.experiments.sums import Sums

_Row = tuple[str, str, str, int]


class _Batch:
    """What a transaction adds."""

    def __init__(self, connection: sqlite3.Connection, now_s: int) -> None:
        self._connection = connection
        self._now_s = now_s
        self._exposed: dict[Arm, list[float]] = {}
        self._summed: dict[tuple[Arm, str], list[float]] = {}
        self._cohorts: dict[tuple[int, Arm, str], list[float]] = {}
        self._log: list[tuple[str, str, str, str, Sums]] = []
        self._open: dict[tuple[str, str, str, str], int] = {}
        self._tracked: dict[str, list[int]] = {}

    def expose(self, arm: Arm, requests: int, inverse: float, units: int) -> None:
        """Count exposures."""
        row = self._exposed.setdefault(arm, [0, 0.0, 0])
        row[0] += requests
        row[1] += inverse
        row[2] += units

    def sum_up(self, arm: Arm, kpi: str, sums: Sums, answered: int) -> None:
        """Add to the sums of a report; `sums` may take away."""
        row = self._summed.setdefault((arm, kpi), [0, 0.0, 0.0, 0])
        row[0] += sums.n
        row[1] += sums.total
        row[2] += sums.squares
        row[3] += answered

    def await_cohort(
        self,
        arm: Arm,
        kpi: str,
        due_s: int,
        flags: tuple[float, bool, bool],
        exposed: int,
        sums: Sums,
    ) -> None:
        """Add to a cohort; `flags` are its `absent`, `is_logged`, `is_unit`."""
        row = self._cohorts.setdefault((due_s, arm, kpi), [*flags, 0, 0, 0.0, 0.0])
        row[3] += exposed
        row[4] += sums.n
        row[5] += sums.total
        row[6] += sums.squares

    def log(self, arm: Arm, kpi: str, sums: Sums) -> None:
        """Add to the log; what is of one arm becomes entries of `ENTRY_MAX` values."""
        place = (arm.route, arm.cell, arm.variant, kpi)
        index = self._open.get(place)
        if index is not None and self._log[index][4].n + sums.n <= ENTRY_MAX:
            self._log[index] = (*place, self._log[index][4] + sums)
            return
        self._open[place] = len(self._log)
        self._log.append((*place, sums))

    def unit(self, arm: Arm, unit: str, silences: Silences) -> Arm | None:
        """The arm that a unit got first, this one if it is new; None: too many are known."""
        row = self._connection.execute(
            "SELECT variant, cell, version FROM units WHERE route = ? AND unit = ?",
            (arm.route, unit),
        ).fetchone()
        if row is not None:
            return Arm(arm.route, *row)
        tracked = self._tracked.get(arm.route)
        if tracked is None:
            tracked = self._tracked[arm.route] = list(
                self._connection.execute(
                    "SELECT units, untracked FROM tracked WHERE route = ?", (arm.route,)
                ).fetchone()
                or (0, 0)
            )
        if tracked[0] >= UNITS_MAX:
            tracked[1] += 1
            return None
        tracked[0] += 1
        self._connection.execute(
            "INSERT INTO units VALUES (?, ?, ?, ?, ?, ?)",
            (arm.route, unit, arm.variant, arm.cell, arm.version, self._now_s),
        )
        self.expose(arm, 0, 0.0, 1)
        for kpi, absent in silences:
            self.sum_up(arm, kpi, Sums(1, absent, absent * absent), 0)
        return arm

    def unit_value(self, arm: Arm, unit: str, value: Value, absent: float | None) -> None:
        """Add a value to what a unit brought in all, and keep the sums right."""
        place = (arm.route, unit, value.kpi)
        row = self._connection.execute(
            "SELECT total FROM unit_sums WHERE route = ? AND unit = ? AND kpi = ?", place
        ).fetchone()
        before = absent if row is None else float(row[0])
        after = value.value if row is None else float(row[0]) + value.value
        self._connection.execute(
            "INSERT OR REPLACE INTO unit_sums VALUES (?, ?, ?, ?)", (*place, after)
        )
        is_new = before is None
        was = 0.0 if before is None else before
        change = Sums(int(is_new), after - was, after * after - was * was)
        self.sum_up(arm, value.kpi, change, int(row is None))

    def write(self) -> None:
        """Write all rows."""
        self._connection.executemany(
            "INSERT INTO exposed VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " requests = requests + excluded.requests, inverse = inverse + excluded.inverse,"
            " units = units + excluded.units",
            [(*_row(arm), *row) for arm, row in self._exposed.items()],
        )
        self._connection.executemany(
            "INSERT INTO summed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " n = n + excluded.n, total = total + excluded.total,"
            " squares = squares + excluded.squares, answered = answered + excluded.answered",
            [(*_row(arm), kpi, *row) for (arm, kpi), row in self._summed.items()],
        )
        self._connection.executemany(
            "INSERT INTO cohorts (due_s, route, variant, cell, version, kpi, absent, is_logged,"
            " is_unit, exposed, n, total, squares) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET exposed = exposed + excluded.exposed, n = n + excluded.n,"
            " total = total + excluded.total, squares = squares + excluded.squares",
            [(due, *_row(arm), kpi, *row) for (due, arm, kpi), row in self._cohorts.items()],
        )
        self._connection.executemany(
            "INSERT INTO log (route, cell, variant, kpi, n, total, squares, at_s)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(*place, *sums.dump(), self._now_s) for *place, sums in self._log],
        )
        self._connection.executemany(
            "INSERT OR REPLACE INTO tracked VALUES (?, ?, ?)",
            [(route, *row) for route, row in self._tracked.items()],
        )


def claim(connection: sqlite3.Connection, items: Sequence[Item], now_s: int) -> list[Claim]:
    """See `Store.claim`."""
    batch = _Batch(connection, now_s)
    matured_s = _matured(connection)
    kept: list[tuple[str, int, str]] = []
    claims: list[Claim] = []
    seen: set[str] = set()
    for item in items:
        keys = keys_of(item)
        # receipts that name no version may have counted in an earlier version of the program
        old = () if item.arm.version else (item.nonce,)
        if any(key in seen or _is_known(connection, key) for key in (*keys, *old)):
            claims.append(Claim.DUPLICATE)
            continue
        if any(v.cohort is not None and v.cohort.due_s <= matured_s for v in item.values):
            claims.append(Claim.LATE)
            continue
        text = text_of(item)
        seen.update(keys)
        # what was kept of an item stands with its first key
        texts = [text] + [""] * (len(keys) - 1)
        at_s = (now_s if key[0] == "#" else item.issued_s for key in keys)
        kept += zip(keys, at_s, texts, strict=True)
        _count(batch, item)
        claims.append(Claim.ACCEPTED)
    connection.executemany("INSERT INTO items VALUES (?, ?, ?)", kept)
    batch.write()
    return claims


def _is_known(connection: sqlite3.Connection, key: str) -> bool:
    found = connection.execute("SELECT 1 FROM items WHERE key = ?", (key,)).fetchone()
    return found is not None


def _count(batch: _Batch, item: Item) -> None:
    first = batch.unit(item.arm, item.unit, item.silences) if item.unit else None
    silences = dict(item.silences)
    for value in item.values:
        one = Sums(1, value.value, value.value * value.value)
        if first is not None:
            batch.unit_value(first, item.unit, value, silences.get(value.kpi))
        elif not item.unit and value.cohort is None:
            batch.sum_up(item.arm, value.kpi, one, 1)
        if value.cohort is None:
            if value.is_logged:
                batch.log(item.arm, value.kpi, one)
        elif value.is_logged or not item.unit:
            flags = (value.cohort.absent, value.is_logged, bool(item.unit))
            batch.await_cohort(item.arm, value.kpi, value.cohort.due_s, flags, 0, one)


def merge(connection: sqlite3.Connection, increments: Increments, now_s: int) -> None:
    """See `Store.merge`."""
    last = connection.execute(
        "SELECT number FROM merged WHERE router = ?", (increments.router,)
    ).fetchone()
    if last is not None and last[0] >= increments.number:
        return
    batch = _Batch(connection, now_s)
    for exposures in increments.exposures:
        _expose(batch, exposures)
    for measured in increments.measured:
        batch.sum_up(measured.arm, measured.kpi, measured.sums, measured.sums.n)
        if measured.is_logged:
            batch.log(measured.arm, measured.kpi, measured.sums)
    batch.write()
    # this file is one program's: earlier runs of it say no more
    connection.execute("DELETE FROM merged")
    connection.execute("INSERT INTO merged VALUES (?, ?)", (increments.router, increments.number))


def _expose(batch: _Batch, exposures: Exposures) -> None:
    arm = exposures.arm
    batch.expose(arm, exposures.requests, exposures.inverse, 0)
    for unit in exposures.units:
        batch.unit(arm, unit, exposures.silences)
    for kpi, cohort in exposures.cohorts:
        is_logged = kpi in exposures.logged
        if is_logged or not exposures.is_sticky:
            flags = (cohort.absent, is_logged, exposures.is_sticky)
            batch.await_cohort(arm, kpi, cohort.due_s, flags, exposures.requests, Sums())


def mature(connection: sqlite3.Connection, now_s: int) -> int:
    """See `Store.mature`."""
    if now_s <= _matured(connection):
        return 0
    batch = _Batch(connection, now_s)
    rows = connection.execute(
        "SELECT route, variant, cell, version, kpi, absent, is_logged, is_unit, exposed, n, total,"
        " squares FROM cohorts WHERE due_s <= ? ORDER BY due_s, route, kpi, variant, cell, version",
        (now_s,),
    ).fetchall()
    for row in rows:
        arm, kpi = Arm(*row[:4]), row[4]
        absent, is_logged, is_unit, exposed, n, total, squares = row[5:]
        silent = max(0, exposed - n)
        sums = Sums(n + silent, total + silent * absent, squares + silent * absent * absent)
        if is_logged:
            batch.log(arm, kpi, sums)
        if not is_unit:
            batch.sum_up(arm, kpi, sums, n)
    connection.execute("DELETE FROM cohorts WHERE due_s <= ?", (now_s,))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('matured_s', ?)", (str(now_s),))
    batch.write()
    return len(rows)


def _matured(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = 'matured_s'").fetchone()
    return 0 if row is None else int(row[0])


def entries_after(connection: sqlite3.Connection, seq: int, limit: int) -> list[Entry]:
    """See `Store.entries_after`."""
    rows = connection.execute(
        "SELECT seq, route, cell, variant, kpi, n, total, squares, at_s FROM log WHERE seq > ?"
        " ORDER BY seq LIMIT ?",
        (seq, limit),
    )
    return [
        Entry(seq, route, cell, variant, kpi, Sums(n, total, squares), at_s)
        for seq, route, cell, variant, kpi, n, total, squares, at_s in rows
    ]


def figures(connection: sqlite3.Connection, route: str) -> Figures:
    """See `Store.figures`."""
    place = "route, variant, cell, version"
    exposed = connection.execute(
        f"SELECT {place}, requests, inverse, units FROM exposed WHERE route = ?",  # noqa: S608 - constants only
        (route,),
    )
    found = {Arm(*row[:4]): Exposed(*row[4:]) for row in exposed}
    summed = connection.execute(
        f"SELECT {place}, kpi, n, total, squares, answered FROM summed WHERE route = ?",  # noqa: S608 - constants only
        (route,),
    )
    sums = {(row[4], Arm(*row[:4])): Summed(Sums(*row[5:8]), row[8]) for row in summed}
    versions = connection.execute("SELECT version, weights FROM versions WHERE route = ?", (route,))
    weights = {row[0]: orjson.loads(row[1]) for row in versions}
    row = connection.execute("SELECT untracked FROM tracked WHERE route = ?", (route,)).fetchone()
    return Figures(found, sums, weights, 0 if row is None else row[0])


def version(connection: sqlite3.Connection, route: str, weights: Weights) -> int:
    """See `Store.version`."""
    last, known = connection.execute(
        "SELECT version, weights FROM versions WHERE route = ? ORDER BY version DESC LIMIT 1",
        (route,),
    ).fetchone() or (0, None)
    if known is not None and (last >= VERSIONS_MAX or not differ(weights, orjson.loads(known))):
        return int(last)
    connection.execute(
        "INSERT INTO versions VALUES (?, ?, ?)", (route, last + 1, orjson.dumps(weights).decode())
    )
    return int(last) + 1


def purge(connection: sqlite3.Connection, before_s: int) -> int:
    """Forget items issued before `before_s`, what every dump has, and units of long ago."""
    gone = connection.execute("DELETE FROM items WHERE issued_s < ?", (before_s,)).rowcount
    connection.execute(
        "DELETE FROM log WHERE at_s < ? AND seq <= coalesce("
        "(SELECT max(seq) FROM learned WHERE learned.route = log.route), 0)",
        (before_s - LAG_S,),
    )
    connection.execute("DELETE FROM log WHERE at_s < ?", (before_s - ENTRY_AGE_S,))
    old = (before_s - UNIT_AGE_S,)
    connection.execute(
        "DELETE FROM unit_sums WHERE (route, unit) IN"
        " (SELECT route, unit FROM units WHERE at_s < ?)",
        old,
    )
    if connection.execute("DELETE FROM units WHERE at_s < ?", old).rowcount:
        connection.execute(
            "UPDATE tracked SET units ="
            " (SELECT count(*) FROM units WHERE units.route = tracked.route)"
        )
    return gone


def text_of(item: Item) -> str:
    """What is kept of an item beside its key, for evaluation."""
    document: Mapping[str, object] = {
        "route": item.arm.route,
        "variant": item.arm.variant,
        "cell": item.arm.cell,
        "version": item.arm.version,
        "propensity": item.propensity,
        "unit": item.unit,
        "issued_s": item.issued_s,
        "values": {value.kpi: value.value for value in item.values},
        "tags": dict(item.tags),
    }
    return orjson.dumps(document).decode()


def _row(arm: Arm) -> _Row:
    return arm.route, arm.variant, arm.cell, arm.version
