"""The Open Inference Protocol, over a real loopback socket."""

from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer

from router.demo import models, server

Client = TestClient[Any, Any]
IMAGE = [0.5] * models.PIXELS


class FixedEstimator:
    """Always sure that it sees a 3; knows the classes 2 and 3 only."""

    classes_ = np.array([2, 3])

    def predict_proba(self, images: models.Images) -> np.ndarray[Any, Any]:
        return np.tile([0.25, 0.75], (len(images), 1))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    classifier = models.Classifier("version-a", FixedEstimator(), trained_on=1, accuracy=1.0)
    application = server.InferenceServer(classifier).application()
    async with TestClient(TestServer(application)) as client:
        yield client


def inference(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": IMAGE, **changes}
    return {"inputs": [tensor]}


async def infer(client: Client, document: Any) -> tuple[int, Any]:
    response = await client.post("/v2/models/animals/infer", json=document)
    return response.status, await response.json()


async def test_an_image_is_answered_with_its_label_and_the_probability_of_every_class(
    client: Client,
) -> None:
    assert await infer(client, {"id": "r-1", **inference()}) == (
        200,
        {
            "id": "r-1",
            "model_name": "animals",
            "model_version": "version-a",
            "outputs": [
                {"name": "label", "shape": [1], "datatype": "INT64", "data": [3]},
                {
                    "name": "probabilities",
                    "shape": [1, 10],
                    "datatype": "FP32",
                    "data": [0, 0, 0.25, 0.75, 0, 0, 0, 0, 0, 0],
                },
            ],
        },
    )


async def test_a_batch_may_be_nested(client: Client) -> None:
    status, answer = await infer(client, inference(shape=[2, 64], data=[IMAGE, IMAGE]))
    assert status == 200
    assert [output["shape"] for output in answer["outputs"]] == [[2], [2, 10]]
    assert answer["outputs"][0]["data"] == [3, 3]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ([], "expected an object with one entry in inputs"),
        ({}, "expected an object with one entry in inputs"),
        ({"inputs": []}, "expected an object with one entry in inputs"),
        ({"inputs": [1]}, "expected an object with one entry in inputs"),
        (inference(datatype="INT8"), "input datatype is 'INT8', expected 'FP32'"),
        (inference(shape=[64]), "input shape is [64], expected [n, 64]"),
        (inference(shape=[1, 63]), "input shape is [1, 63], expected [n, 64]"),
        (inference(shape=[0, 64]), "input shape is [0, 64], expected [n, 64]"),
        (inference(shape=[True, 64]), "input shape is [True, 64], expected [n, 64]"),
        (inference(shape="64"), "input shape is '64', expected [n, 64]"),
        (inference(shape=[10**18, 64]), f"input data has 64 numbers, its shape says {64 * 10**18}"),
        (inference(data=None), "input data has entries that are not numbers"),
        (inference(data=["1"] * 64), "input data has entries that are not numbers"),
        (inference(data=[True] * 64), "input data has entries that are not numbers"),
        (inference(data=[[1], [1, 2]]), "input data is ragged"),
        (inference(data=IMAGE[1:]), "input data has 63 numbers, its shape says 64"),
        (inference(data=[1e300] * 64), "input data has numbers beyond FP32"),
    ],
)
async def test_a_bad_input_is_refused_with_what_is_wrong(
    client: Client, document: Any, error: str
) -> None:
    assert await infer(client, document) == (400, {"error": error})


async def test_a_body_that_is_not_json_is_refused(client: Client) -> None:
    response = await client.post("/v2/models/animals/infer", data=b"{")
    assert response.status == 400
    assert (await response.json())["error"].startswith("the body is not JSON: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1", 404), ("GET", "/v2/models/animals/infer", 405), ("POST", "/v2", 405)],
)
async def test_other_paths_and_methods_are_refused_in_json(
    client: Client, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status == status
    assert set(await response.json()) == {"error"}


async def test_a_body_that_is_too_large_is_refused_in_json(client: Client) -> None:
    response = await client.post("/v2/models/animals/infer", data=BytesIO(b" " * (1024**2 + 1)))
    assert response.status == 413
    assert set(await response.json()) == {"error"}


@pytest.mark.parametrize(
    "path", ["/v2/health/live", "/v2/health/ready", "/v2/models/animals/ready"]
)
async def test_health_is_an_empty_200(client: Client, path: str) -> None:
    response = await client.get(path)
    assert (response.status, await response.read()) == (200, b"")


async def test_metadata_names_the_model_asked_for_and_the_version_served(client: Client) -> None:
    document = await (await client.get("/v2/models/animals")).json()
    assert (document["name"], document["versions"]) == ("animals", ["version-a"])
    assert document["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}]
    assert (await (await client.get("/v2")).json())["version"] == "2"


async def test_only_answered_inferences_are_counted(client: Client) -> None:
    await infer(client, inference())
    await infer(client, inference(data=[]))
    stats = await (await client.get("/v2/models/animals/stats")).json()
    assert stats["model_stats"][0]["inference_count"] == 1
