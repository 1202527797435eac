"""The state store in a Redis that the routers of a fleet share.

Strategy:

1. Whatever reads and then writes is one Lua script: Redis runs it whole, so routers cannot come in
   between each other, and a router that dies midway leaves nothing half done.
2. All keys begin with one prefix in braces, so that a cluster keeps them on one node, and several
   fleets may share a Redis.
3. Every call has a time limit; what fails is a `StateError`, and the caller decides what waits.
   A call is tried once: scripts may be repeated without harm by whoever calls again, since rewards
   are told by their nonce and rollouts by their revision.
4. What Redis acknowledged is as safe as its persistence: `appendonly yes`, and
   `appendfsync always` where not even a second may be lost.
"""

import json
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qs, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from router.control import counts, redis_counts, redis_scripts
from router.control.counts import (
    ENTRY_AGE_S,
    ENTRY_MAX,
    LAG_S,
    UNIT_AGE_S,
    VERSIONS_MAX,
    Claim,
    Entry,
    Figures,
    Increments,
    Item,
    Weights,
    differ,
)
from router.control.store import EVENTS_MAX, KeptRollout, Learned
from router.errors import StartError, StateError
from router.rollouts.state import Event

SCHEMA_VERSION: Final = 2
DEFAULT_PREFIX: Final = "pointsman"
TIMEOUT_S: Final = 1.0
"""For a call: a Redis that is there answers in milliseconds, and rollouts turn four times a second.
"""
_CLAIM_SLICE: Final = 500
"""Items counted by one script: about 10 ms in which Redis does nothing else."""
_PURGE_SLICE: Final = 1000
"""Entries forgotten by one script: about 5 ms in which Redis does nothing else."""
_EVENTS_PAGE: Final = 500

_SAVE: Final = """
local p = ARGV[1]
for i = 2, #ARGV, 4 do
  local field, route, seq, dump = ARGV[i], ARGV[i+1], tonumber(ARGV[i+2]), ARGV[i+3]
  local known = redis.call('HGET', p..'learned:seq', field)
  if not known or tonumber(known) <= seq then
    redis.call('HSET', p..'learned', field, dump)
    redis.call('HSET', p..'learned:seq', field, seq)
    local counted = tonumber(redis.call('HGET', p..'counted', route) or '0')
    if seq > counted then redis.call('HSET', p..'counted', route, seq) end
  end
end
return 1
"""
_EVENTS: Final = """
local p, most, seqs = ARGV[1], tonumber(ARGV[2]), {}
for i = 3, #ARGV do
  local seq = redis.call('INCR', p..'events:seq')
  redis.call('ZADD', p..'events', seq, seq..' '..ARGV[i])
  seqs[#seqs+1] = seq
end
redis.call('ZREMRANGEBYRANK', p..'events', 0, -most - 1)
return seqs
"""
_KEEP: Final = """
local p, route, revision, fence = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local kept, outrun = redis.call('HGET', p..'rollouts', route), false
if kept then
  local known = cjson.decode(kept)
  if known.revision ~= revision - 1 then return false end
  if known.fence > fence then outrun = true end
elseif revision ~= 1 then
  return false
end
-- the fence given last counts, not the one written last: who leads now may not have written yet,
-- and in a Redis that was emptied fences count from 1 again
local led = redis.call('HGET', p..'fences', route)
if led then outrun = tonumber(led) ~= fence end
if outrun and fence ~= 0 then return false end  -- 0: NO_FENCE
redis.call('HSET', p..'rollouts', route, ARGV[5])
table.remove(ARGV, 5); table.remove(ARGV, 4); table.remove(ARGV, 3); table.remove(ARGV, 2)
""" + _EVENTS.lstrip()

_T = TypeVar("_T")


class RedisStore:
    """A `Store` in Redis, shared: others may write at any time."""

    def __init__(self, client: "Redis", place: str, prefix: str) -> None:
        self.horizon_s = 0
        self._client = client
        self._place = place
        self._prefix = f"{{{prefix}}}:"

    @classmethod
    async def open(cls, url: str) -> "RedisStore":
        """Connect and look whether what is there can be understood.

        Raises:
            StartError: it cannot be reached, or holds what another version wrote.
        """
        client, place, prefix = connect(url)
        store = cls(client, place, prefix)
        try:
            await store._check_version()
        except StateError as error:
            await client.aclose()
            raise StartError(
                f"cannot use the state store {place}: {error}; start Redis there, or set `state:` "
                "to another place"
            ) from error
        return store

    # what is counted: see `redis_counts`

    async def claim(self, items: Sequence[Item], now_s: int) -> list[Claim]:
        claims: list[Claim] = []
        for start in range(0, len(items), _CLAIM_SLICE):
            arguments = redis_counts.items_of(items[start : start + _CLAIM_SLICE])
            claims += map(Claim, await self._count(redis_scripts.CLAIM, now_s, *arguments))
        return claims

    async def merge(self, increments: Increments, now_s: int) -> None:
        text = redis_counts.increments_of(increments)
        about = (increments.router, increments.number, text)
        await self._count(redis_scripts.MERGE, now_s, *about)

    async def mature(self, now_s: int) -> int:
        return int(await self._count(redis_scripts.MATURE, now_s))

    async def entries_after(self, seq: int, limit: int) -> list[Entry]:
        key = f"{self._prefix}log"
        found = await told(self._client.zrangebyscore(key, f"({seq}", "+inf", 0, limit))
        return [redis_counts.entry_of(text) for text in found]

    async def figures(self, route: str) -> Figures:
        pipe = self._client.pipeline(transaction=True)
        for name in ("exposed", "summed", "versions"):
            pipe.hgetall(f"{self._prefix}{name}:{route}")
        pipe.hget(f"{self._prefix}untracked", route)
        exposed, summed, versions, untracked = await told(pipe.execute())
        return redis_counts.figures_of(route, exposed, summed, versions, int(untracked or 0))

    async def version(self, route: str, weights: Weights) -> int:
        while True:
            last = await self._get(f"versions:{route}", "last") or "0"
            known = await self._get(f"versions:{route}", last)
            if known is not None and (
                int(last) >= VERSIONS_MAX or not differ(weights, _read(known))
            ):
                return int(last)
            text = json.dumps(weights)
            if new := int(await self._run(redis_scripts.VERSION, route, last, text)):
                return new  # else another router came in between

    # texts

    async def save(self, learned: Iterable[Learned]) -> None:
        arguments: list[str | int] = []
        for item in learned:
            dump = json.dumps({"dump": item.dump, "seq": item.seq})
            arguments += [_field(item.route, item.kind), item.route, item.seq, dump]
        if arguments:
            await self._run(_SAVE, *arguments)

    async def load(self, route: str, kind: str) -> Learned | None:
        text = await self._get("learned", _field(route, kind))
        return None if text is None else Learned(route, kind, **_read(text))

    async def purge(self, before_s: int) -> int:
        gone, self.horizon_s = map(int, await self._run(redis_scripts.PURGE_ITEMS, before_s))
        ages = (before_s, before_s - LAG_S, before_s - ENTRY_AGE_S, before_s - UNIT_AGE_S)
        kept = 0
        while True:
            slice_gone, still, is_done = map(
                int, await self._run(redis_scripts.PURGE, _PURGE_SLICE, *ages, kept)
            )
            kept += still
            if is_done and slice_gone < _PURGE_SLICE:
                return gone

    async def put(self, name: str, value: str) -> None:
        await told(cast("Awaitable[Any]", self._client.hset(f"{self._prefix}meta", name, value)))

    async def setdefault(self, name: str, value: str) -> str:
        await told(self._client.hsetnx(f"{self._prefix}meta", name, value))
        return await self._get("meta", name) or value

    # rollouts and the audit log

    async def rollout(self, route: str) -> KeptRollout | None:
        text = await self._get("rollouts", route)
        if text is None:
            return None
        kept = _read(text)
        return KeptRollout(route, kept["digest"], kept["revision"], kept["state"])

    async def keep_rollout(
        self, kept: KeptRollout, fence: int, events: Sequence[Event]
    ) -> list[Event] | None:
        text = json.dumps(
            {
                "digest": kept.digest,
                "revision": kept.revision,
                "fence": fence,
                "state": kept.state,
            }
        )
        numbers = await self._run(
            _KEEP, kept.route, kept.revision, fence, text, EVENTS_MAX, *map(_line, events)
        )
        return None if numbers is None else _numbered(events, numbers)

    async def append_events(self, events: Sequence[Event]) -> list[Event]:
        return _numbered(events, await self._run(_EVENTS, EVENTS_MAX, *map(_line, events)))

    async def events(
        self, *, after: int | None = None, limit: int = 100, route: str | None = None
    ) -> list[Event]:
        found: list[Event] = []
        edge = after
        while len(found) < limit:
            page = await self._page(edge, is_backward=after is None)
            found += [event for event in page if route is None or event.route == route]
            if len(page) < _EVENTS_PAGE:
                break
            edge = page[-1].seq
        found = found[:limit]
        return found[::-1] if after is None else found

    async def _page(self, edge: int | None, *, is_backward: bool) -> list[Event]:
        """Lines from `edge` on, not with it, in the order in which they are met."""
        limit = f"({edge}" if edge is not None else None
        key = f"{self._prefix}events"
        if is_backward:
            call = self._client.zrevrangebyscore(key, limit or "+inf", "-inf", 0, _EVENTS_PAGE)
        else:
            call = self._client.zrangebyscore(key, limit or "-inf", "+inf", 0, _EVENTS_PAGE)
        lines: list[str] = await told(call)
        return [_event(line) for line in lines]

    async def close(self) -> None:
        await told(self._client.aclose())

    # calls

    async def _check_version(self) -> None:
        version = await self.setdefault("schema_version", str(SCHEMA_VERSION))
        if version == "1":
            await self._run(redis_scripts.MIGRATE)
            version = "2"
        if version != str(SCHEMA_VERSION):
            raise StateError(f"its schema version is {version}, expected {SCHEMA_VERSION}")
        self.horizon_s = int(await self._get("meta", "horizon_s") or 0)

    async def _get(self, hash_name: str, field: str) -> str | None:
        call = self._client.hget(f"{self._prefix}{hash_name}", field)
        return cast("str | None", await told(cast("Awaitable[Any]", call)))

    async def _count(self, script: str, now_s: int, *arguments: str | int) -> Any:
        return await self._run(script, ENTRY_MAX, counts.UNITS_MAX, now_s, *arguments)

    async def _run(self, script: str, *arguments: str | int) -> Any:
        # one key, so that a cluster sends the script where all keys of the prefix are
        key = f"{self._prefix}meta"
        call = self._client.eval(script, 1, key, self._prefix, *map(str, arguments))
        return await told(call)


def connect(url: str) -> "tuple[Redis, str, str]":
    """A client for `redis://` or `rediss://`; the place without password; the prefix of keys."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    prefix = query.pop("prefix", [DEFAULT_PREFIX])[0]
    bare = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    # a host's name was not checked by itself before version 6 of the client
    tls = {"ssl_check_hostname": True} if parts.scheme == "rediss" else {}
    client = Redis.from_url(
        bare,
        **tls,
        decode_responses=True,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry_on_timeout=False,
        protocol=2,
    )
    host = parts.netloc.rpartition("@")[2]
    return client, f"{parts.scheme}://{host}{parts.path}", prefix


async def told(call: Any) -> Any:
    """The answer, or what went wrong as a `StateError`."""
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise StateError(f"redis: {str(error) or type(error).__name__}") from error


def _read(text: str) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(text))
    except ValueError as error:
        raise StateError(f"what Redis holds is not JSON: {error}") from error


def _field(route: str, kind: str) -> str:
    return f"{kind} {route}"


def _line(event: Event) -> str:
    return json.dumps(asdict(event))


def _event(line: str) -> Event:
    seq, _, text = line.partition(" ")
    return Event(**(_read(text) | {"seq": int(seq)}))


def _numbered(events: Sequence[Event], numbers: Sequence[int]) -> list[Event]:
    return [replace(event, seq=int(seq)) for event, seq in zip(events, numbers, strict=True)]
