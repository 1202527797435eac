import json
from typing import Any

import pytest

from router.control.draining import BODY_MAX_BYTES, Drains
from router.control.endpoints import State
from router.control.plane import Plane
from router.control.problems import Answer
from tests.control.support import idle_plane, loaded

A, B = "http://a-0:8000", "http://a-1:8000"
BACKENDS = {"v1": {"endpoints": [A, B]}, "v2": {"endpoints": [A]}}
BACKENDS = {name: {**backend, "resolve": 0} for name, backend in BACKENDS.items()}


@pytest.fixture
def plane() -> Plane:
    return idle_plane(loaded(backends=BACKENDS))


def post(plane: Plane, action: str, question: Any) -> Answer:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    answer = getattr(Drains(plane.endpoints), action)(plane.snapshot.loaded.config, body)
    assert isinstance(answer, Answer)
    return answer


def told(answer: Answer) -> list[tuple[str, str, str, bool]]:
    assert answer.status == 200
    rows = json.loads(answer.body)["endpoints"]
    return [(row["backend"], row["url"], row["state"], row["changed"]) for row in rows]


@pytest.mark.parametrize("url", [B, "HTTP://A-1:8000/", "a-1:8000"])
def test_an_endpoint_is_drained_and_undrained_as_often_as_one_likes(plane: Plane, url: str) -> None:
    for changed in (True, False):
        answer = post(plane, "drain", {"endpoint": url})
        assert told(answer) == [("v1", B, "draining", changed)]
    assert plane.endpoints.belief(("v1", B)).state is State.DRAINING
    for changed in (True, False):
        answer = post(plane, "undrain", {"endpoint": url})
        assert told(answer) == [("v1", B, "up", changed)]


def test_every_backend_that_has_the_endpoint_is_meant_or_the_one_that_is_named(
    plane: Plane,
) -> None:
    answer = post(plane, "drain", {"endpoint": A, "backend": "v1"})
    assert told(answer) == [("v1", A, "draining", True)]
    answer = post(plane, "drain", {"endpoint": A, "force": True})
    assert told(answer) == [("v1", A, "draining", False), ("v2", A, "draining", True)]


def test_the_last_endpoint_of_a_backend_needs_force(plane: Plane) -> None:
    answer = post(plane, "drain", {"endpoint": A})
    assert answer.status == 409
    assert "backend v2 would have no other endpoint" in answer.body
    assert plane.endpoints.belief(("v1", A)).state is State.UP  # nothing of it was done
    post(plane, "drain", {"endpoint": B})
    assert post(plane, "drain", {"endpoint": A, "backend": "v1"}).status == 409
    post(plane, "drain", {"endpoint": A, "force": True})
    assert post(plane, "drain", {"endpoint": A}).status == 200  # it is so already


@pytest.mark.parametrize(
    ("question", "reason", "hint"),
    [
        ({"endpoint": "http://a-2:8000"}, "unknown-endpoint", "did you mean 'http://a-"),
        ({"endpoint": B, "backend": "v2"}, "unknown-endpoint", f"did you mean '{A}'?"),
        ({"endpoint": A, "backend": "v3"}, "unknown-backend", "known: v1, v2"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest_that_is(
    plane: Plane, question: dict[str, str], reason: str, hint: str
) -> None:
    for action in ("drain", "undrain"):
        answer = post(plane, action, question)
        document = json.loads(answer.body)
        assert (answer.status, document["type"]) == (404, f"urn:pointsman:problem:{reason}")
        assert hint in document["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b"\xff", b"{}", b'{"endpoint": 1}', b'{"endpoint": "x", "fore": 1}'],
)
def test_what_is_no_question_is_refused(plane: Plane, body: bytes) -> None:
    for action in ("drain", "undrain"):
        assert post(plane, action, body).status == 400


def test_a_long_body_is_refused(plane: Plane) -> None:
    assert post(plane, "drain", b" " * (BODY_MAX_BYTES + 1)).status == 413
