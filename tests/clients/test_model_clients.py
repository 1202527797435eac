"""Clients of model servers' own APIs: openai (streams) and tritonclient (binary tensors)."""

import numpy as np
import openai
import pytest

from tests.clients.model_server import ModelServer
from tests.serve.harness import Router

pytestmark = pytest.mark.process

WORDS = [f"word-{number}" for number in range(12)]
ASKED: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": " ".join(WORDS)}
]


def test_openai_gets_a_whole_answer(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.chat.completions.create(model="m", messages=ASKED)
    assert answer.choices[0].message.content == " ".join(WORDS)


def test_openai_gets_every_word_before_the_next_is_said(url: str, model: ModelServer) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        model.let()
        got = []
        with client.chat.completions.create(model="m", messages=ASKED, stream=True) as stream:
            for piece in stream:  # the server says the next word only after this one was read
                got.append(piece.choices[0].delta.content)
                if len(got) < len(WORDS):
                    model.let()
    assert got == WORDS


async def test_openai_async_streams_to_20_at_once(url: str, model: ModelServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        streams = [
            await client.chat.completions.create(model="m", messages=ASKED, stream=True)
            for _ in range(20)
        ]
        for _ in range(20 * len(WORDS)):
            model.let()
        for stream in streams:
            assert [piece.choices[0].delta.content async for piece in stream] == WORDS


def test_openai_hears_which_variant_answered(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=ASKED)
    assert raw.headers["x-router-variant"] == "model"


def test_openai_raises_its_own_error_for_ours(url: str) -> None:
    """A WebSocket server wants no POST, and closes: to the client that is a 502 of the router's."""
    with (
        openai.OpenAI(base_url=f"{url}/ws/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(model="m", messages=ASKED)
    assert caught.value.status_code == 502
    assert caught.value.response.json()["type"] == "urn:pointsman:problem:upstream-reset"


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("count", [4, 250_000])
def test_tritonclient_infers(
    router: Router, is_binary: bool, compression: str | None, count: int
) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is missing")
    values = np.arange(count, dtype=np.float32)
    if not is_binary:
        values = values[:10_000]
    with triton.InferenceServerClient(router.listen) as client:
        tensor = triton.InferInput("IN", [len(values)], "FP32")
        tensor.set_data_from_numpy(values, binary_data=is_binary)
        answer = client.infer(
            "double",
            [tensor],
            outputs=[triton.InferRequestedOutput("OUT", binary_data=is_binary)],
            request_compression_algorithm=compression,
        )
    np.testing.assert_array_equal(answer.as_numpy("OUT"), values * 2)


def test_tritonclient_asks_for_health_and_metadata_and_infers_in_parallel(router: Router) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is missing")
    with triton.InferenceServerClient(router.listen, concurrency=8) as client:
        assert client.is_server_live()
        assert client.is_model_ready("double")
        assert client.get_model_metadata("double")["inputs"][0]["name"] == "IN"
        asked = []
        for number in range(40):
            tensor = triton.InferInput("IN", [1000], "FP32")
            tensor.set_data_from_numpy(np.full(1000, number, dtype=np.float32))
            asked.append(client.async_infer("double", [tensor]))
        for number, answer in enumerate(asked):
            assert answer.get_result().as_numpy("OUT")[0] == 2 * number
