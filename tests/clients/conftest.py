"""One router with its servers for all tests of a process: no test here changes their state."""

from collections.abc import Iterator

import pytest

from tests.clients.model_server import ModelServer, model_server
from tests.clients.websocket_server import WebSocketServer, websocket_server
from tests.serve.harness import Router, document, serving


@pytest.fixture(scope="session")
def model() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture(scope="session")
def websocket() -> Iterator[WebSocketServer]:
    with websocket_server() as server:
        yield server


@pytest.fixture(scope="session")
def router(
    tmp_path_factory: pytest.TempPathFactory, model: ModelServer, websocket: WebSocketServer
) -> Iterator[Router]:
    """Everything goes to the model server, `/ws/` to the WebSocket server."""
    routes = [
        {"name": "websocket", "match": {"path": "/ws/"}, "backend": "websocket"},
        {"name": "model", "backend": "model"},
    ]
    servers = [("model", model.url), ("websocket", websocket.url)]
    config = document(servers, routes=routes)
    with serving(tmp_path_factory.mktemp("router"), config) as router:
        yield router


@pytest.fixture
def url(router: Router) -> str:
    """Where clients connect."""
    return f"http://{router.listen}"
