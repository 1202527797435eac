"""A model server: one classifier behind the Open Inference Protocol, version 2 (HTTP/REST).

`python -m router.demo.server --model cat-dog --port 0` trains the model, listens on loopback and
prints one JSON line with `"event": "ready"` and its `port`. It answers to any model name in the
path, because there a name is what clients ask for, and a server is one version of it.
"""

import argparse
import asyncio
import math
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np
import orjson
from aiohttp import web

from router.demo import models

_NAME: Final = "pointsman-demo"
_STOP_PATIENCE_S: Final = 2.0


class InputError(ValueError):
    """An inference request that is not one; the message is for the client."""


def read_images(document: Any) -> models.Images:
    """The images (n, PIXELS) of a decoded inference request.

    Raises:
        InputError: it does not have exactly one FP32 input whose shape is [n, PIXELS] and whose
            data is that many finite numbers, flat or nested.
    """
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InputError("expected an object with one entry in inputs")
    tensor = inputs[0]
    if tensor.get("datatype") != "FP32":
        raise InputError(f"input datatype is {tensor.get('datatype')!r}, expected 'FP32'")
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(length) is int and length > 0 for length in shape)
        or shape[1] != models.PIXELS
    ):
        raise InputError(f"input shape is {shape!r}, expected [n, {models.PIXELS}]")
    return _read_data(tensor.get("data"), math.prod(shape)).reshape(shape)


def _read_data(data: Any, length: int) -> models.Images:
    try:
        values = np.asarray(data)
    except ValueError:
        raise InputError("input data is ragged") from None
    if values.dtype.kind not in "iuf":
        raise InputError("input data has entries that are not numbers")
    if values.size != length:
        raise InputError(f"input data has {values.size} numbers, its shape says {length}")
    with np.errstate(over="ignore"):
        images = values.astype(np.float32)
    if not np.isfinite(images).all():
        raise InputError("input data has numbers beyond FP32")
    return images


def write_outputs(labels: models.Labels, probabilities: models.Images) -> list[dict[str, Any]]:
    """The output tensors: `label` INT64 [n] and `probabilities` FP32 [n, CLASSES], data flat."""
    return [
        {
            "name": "label",
            "shape": list(labels.shape),
            "datatype": "INT64",
            "data": labels.tolist(),
        },
        {
            "name": "probabilities",
            "shape": list(probabilities.shape),
            "datatype": "FP32",
            "data": probabilities.ravel().tolist(),
        },
    ]


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every refusal is `{"error": text}`, as the protocol has it."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        return _json({"error": error.reason}, error.status)
    except InputError as error:
        return _json({"error": str(error)}, 400)


class InferenceServer:
    """The protocol's end points over one classifier."""

    def __init__(self, classifier: models.Classifier) -> None:
        self._classifier = classifier
        self._inferences = 0

    def application(self) -> web.Application:
        """A fresh aiohttp application."""
        application = web.Application(middlewares=[_errors_as_json])
        application.add_routes(
            [
                web.get("/v2", self._server),
                web.get("/v2/health/live", self._healthy),
                web.get("/v2/health/ready", self._healthy),
                web.get("/v2/models/{model}", self._model),
                web.get("/v2/models/{model}/ready", self._healthy),
                web.get("/v2/models/{model}/stats", self._stats),
                web.post("/v2/models/{model}/infer", self._infer),
            ]
        )
        return application

    async def _server(self, request: web.Request) -> web.Response:
        return _json({"name": _NAME, "version": "2", "extensions": ["statistics"]})

    async def _healthy(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _model(self, request: web.Request) -> web.Response:
        return _json(
            {
                "name": request.match_info["model"],
                "versions": [self._classifier.name],
                "platform": "scikit-learn",
                "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, models.PIXELS]}],
                "outputs": [
                    {"name": "label", "datatype": "INT64", "shape": [-1]},
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, models.CLASSES]},
                ],
            }
        )

    async def _stats(self, request: web.Request) -> web.Response:
        statistics = {
            "name": request.match_info["model"],
            "version": self._classifier.name,
            "inference_count": self._inferences,
        }
        return _json({"model_stats": [statistics]})

    async def _infer(self, request: web.Request) -> web.Response:
        try:
            document = orjson.loads(await request.read())
        except orjson.JSONDecodeError as error:
            raise InputError(f"the body is not JSON: {error}") from None
        labels, probabilities = self._classifier.predict(read_images(document))
        self._inferences += 1
        answer: dict[str, Any] = {
            "model_name": request.match_info["model"],
            "model_version": self._classifier.name,
            "outputs": write_outputs(labels, probabilities),
        }
        if isinstance(document.get("id"), str):
            answer["id"] = document["id"]
        return _json(answer)


async def _serve(model: str, port: int) -> None:
    classifier = models.train(model)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        InferenceServer(classifier).application(),
        access_log=None,
        shutdown_timeout=_STOP_PATIENCE_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready = {
            "event": "ready",
            "port": runner.addresses[0][1],
            "model": model,
            "trained_on": classifier.trained_on,
            "accuracy": classifier.accuracy,
        }
        print(orjson.dumps(ready).decode(), flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="router.demo.server", description="a demo model server")
    parser.add_argument("--model", choices=models.NAMES, required=True)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args(arguments)
    asyncio.run(_serve(options.model, options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
