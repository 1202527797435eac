"""`POST /endpoints/drain` and `/undrain`: which endpoints are meant, and whether it may be.

Owns the form of the question and of the answer; what draining is stands in `endpoints.py`. Both
calls may be repeated: what is so already is not an error.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from router.config.model import Config
from router.config.translate import nearest
from router.config.values import Flag
from router.control.endpoints import Endpoints
from router.control.health import Place, places
from router.control.problems import Answer, problem, success
from router.strict import Model

BODY_MAX_BYTES: Final = 64 * 1024
"""Largest body of a call; a URL and a name take some hundred bytes."""


class Question(Model):
    """What is posted."""

    endpoint: str
    """URL of the endpoint, with or without `http://`."""
    backend: str | None = None
    """Its backend; None: every backend that has this endpoint."""
    force: Flag = False
    """Also when nothing would be left to take the backend's requests."""


@dataclass(frozen=True, slots=True)
class Drains:
    """Answers the calls for the endpoints of one program."""

    endpoints: Endpoints

    def drain(self, config: Config, body: bytes) -> Answer:
        """Give endpoints nothing new."""
        question = _read(body)
        if isinstance(question, Answer):
            return question
        found = _find(config, question)
        if isinstance(found, Answer):
            return found
        bare = [place[0] for place in found if self._is_last(config, place)]
        if bare and not question.force:
            return problem(
                409,
                "last-endpoint",
                f"backend {bare[0]} would have no other endpoint that takes requests; "
                "force drains it all the same",
            )
        changed = [self.endpoints.drain(place) for place in found]
        return self._told(found, changed)

    def undrain(self, config: Config, body: bytes) -> Answer:
        """Use endpoints again."""
        question = _read(body)
        if isinstance(question, Answer):
            return question
        found = _find(config, question)
        if isinstance(found, Answer):
            return found
        changed = [self.endpoints.undrain(place) for place in found]
        return self._told(found, changed)

    def _is_last(self, config: Config, place: Place) -> bool:
        """Whether draining would leave the backend nothing that it has now."""
        takes = self.endpoints.takes_requests
        others = [one for one in places(config) if one[0] == place[0] and one != place]
        return takes(place) and not any(takes(one) for one in others)

    def _told(self, found: list[Place], changed: list[bool]) -> Answer:
        rows: list[dict[str, Any]] = [
            {
                "backend": place[0],
                "url": place[1],
                "state": self.endpoints.belief(place).state,
                "changed": is_changed,
            }
            for place, is_changed in zip(found, changed, strict=True)
        ]
        return success({"endpoints": rows})


def _read(body: bytes) -> Question | Answer:
    if len(body) > BODY_MAX_BYTES:
        return problem(413, "too-large", f"expected no more than {BODY_MAX_BYTES} bytes")
    try:
        return Question.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        return problem(400, "malformed", f"{where}: {first['msg']}".removeprefix(": "))
    except ValueError:
        form = '{"endpoint": URL, "backend": NAME, "force": false}'
        return problem(400, "malformed", f"expected a JSON object, {form}")


def _find(config: Config, question: Question) -> list[Place] | Answer:
    """The endpoints that are meant; at least one."""
    if question.backend is not None and question.backend not in config.backends:
        hint = nearest(question.backend, config.backends)
        detail = f"no backend is named {question.backend!r}"
        return problem(404, "unknown-backend", f"{detail} ({hint})" if hint else detail)
    known = [one for one in places(config) if question.backend in (None, one[0])]
    wanted = _plain(question.endpoint)
    found = [place for place in known if wanted in (place[1], place[1].partition("://")[2])]
    if found:
        return found
    hint = nearest(wanted, dict.fromkeys(url for _, url in known))
    detail = f"no endpoint is {question.endpoint!r}"
    return problem(404, "unknown-endpoint", f"{detail} ({hint})" if hint else detail)


def _plain(url: str) -> str:
    """As endpoints are kept: in lower case, and nothing after the port."""
    return url.strip().lower().removesuffix("/")
