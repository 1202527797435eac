"""The store of a fleet, on a real Redis."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from router.control.store import Store, open_store
from router.errors import StartError
from tests.control.store_contract import DUPLICATE, StoreContract, item
from tests.redis_server import RedisServer, running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from running(str(tmp_path_factory.mktemp("redis")))


class TestRedis(StoreContract):
    @pytest.fixture
    async def store(self, redis: RedisServer) -> AsyncIterator[Store]:
        client = Redis.from_url(redis.url)
        await client.flushall()
        await client.aclose()
        store = await open_store(redis.url)
        yield store
        await store.close()
