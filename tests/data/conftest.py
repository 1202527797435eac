"""The loop of production, and a lab that checks at the end that nothing leaked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from router.data import wheel
from tests.data.harness import Lab
from tests.data.tls import TlsLab


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    """Origins, clients and one worker; ends with the invariants of `Lab.close`."""
    monkeypatch.setattr(wheel, "TICK_S", 0.01)  # deadlines of tests are short
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    lab = Lab()
    try:
        yield lab
    finally:
        await lab.close()
    assert unhandled == []


@pytest.fixture
def tls_lab(lab: Lab, tmp_path: Path) -> TlsLab:
    """The same with certificates."""
    return TlsLab(lab, tmp_path)
