"""The OpenAPI 3.1 document of the admin API, served at `/openapi.json`."""

from typing import Any, Final

from router import __version__

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": content}


def _get(summary: str, content: dict[str, Any], **others: dict[str, Any]) -> dict[str, Any]:
    responses = {"200": _answer(summary, content)} | {
        code.removeprefix("s"): response for code, response in others.items()
    }
    return {"summary": summary, "responses": responses}


def _problems(*statuses: tuple[int, str]) -> dict[str, Any]:
    return {str(status): _answer(text, _PROBLEM) for status, text in statuses}


_TEXT: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_REWARD: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["receipt", "reward"],
    "properties": {
        "receipt": {"type": "string", "description": "the value of x-router-receipt"},
        "reward": {"oneOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "boolean"}]},
    },
}
_ROUTE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "policy", "match", "variants", "shadows", "learned"],
    "properties": {
        "name": {"type": "string"},
        "policy": {"type": "string"},
        "match": _OBJECT,
        "variants": {"type": "array", "items": {"$ref": "#/components/schemas/Variant"}},
        "shadows": {"type": "array", "items": _OBJECT},
        "learned": {"type": ["object", "null"]},
    },
}
_VARIANT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "state", "weight", "requests", "codes", "share", "p50_s", "p99_s"],
    "properties": {
        "name": {"type": "string"},
        "state": {"enum": ["active", "drain", "off"]},
        "weight": {"type": "number", "minimum": 0, "maximum": 1},
        "requests": {"type": "integer"},
        "codes": {"type": "object", "additionalProperties": {"type": "integer"}},
        "share": {"type": ["number", "null"]},
        "p50_s": {"type": ["number", "null"]},
        "p99_s": {"type": ["number", "null"]},
    },
}
_ENDPOINT: Final[dict[str, Any]] = {
    "type": "object",
    "required": [
        "url",
        "weight",
        "state",
        "since",
        "reason",
        "checked",
        "ejected_by",
        "in_flight",
        "addresses",
        "addresses_since",
        "resolve_failure",
        "resolve_failing_since",
    ],
    "properties": {
        "url": {"type": "string"},
        "weight": {"type": "number"},
        "state": {"enum": ["up", "down", "draining", "ejected"]},
        "since": {"type": ["string", "null"], "format": "date-time"},
        "reason": {"type": ["string", "null"]},
        "checked": {"type": "boolean"},
        "ejected_by": {"type": "integer", "description": "workers that eject it"},
        "in_flight": {"type": ["integer", "null"], "description": "requests, while it drains"},
        "addresses": {"type": "array", "items": {"type": "string"}},
        "addresses_since": {"type": ["string", "null"], "format": "date-time"},
        "resolve_failure": {"type": ["string", "null"]},
        "resolve_failing_since": {"type": ["string", "null"], "format": "date-time"},
    },
}
_BACKEND: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["endpoints"],
    "properties": {
        "endpoints": {"type": "array", "items": {"$ref": "#/components/schemas/Endpoint"}}
    },
}
_STATUS: Final[dict[str, Any]] = {
    "type": "object",
    "required": [
        "version", "phase", "started_at", "listen", "admin", "generation", "config",
        "last_reload", "workers", "worker_restarts", "routes", "backends",
    ],
    "properties": {
        "version": {"type": "string"},
        "phase": {"enum": ["starting", "ready", "draining"]},
        "started_at": {"type": "string", "format": "date-time"},
        "listen": {"type": "string"},
        "admin": {"type": "string"},
        "generation": {"type": "integer"},
        "config": _OBJECT,
        "last_reload": {"type": ["object", "null"]},
        "workers": {"type": "array", "items": _OBJECT},
        "worker_restarts": {"type": "integer"},
        "routes": {"type": "array", "items": {"$ref": "#/components/schemas/Route"}},
        "backends": {
            "type": "object",
            "additionalProperties": {"$ref": "#/components/schemas/Backend"},
        },
    },
}  # fmt: skip
_PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}

_GUARD: Final = ((401, "the token is missing"), (403, "the token or the origin is wrong"))

_FEEDBACK: Final[dict[str, Any]] = {
    "summary": "Report rewards",
    "security": [{"token": []}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [_REWARD, {"type": "array", "items": _REWARD}]}
            },
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    },
    "responses": {
        "200": _answer("Taken; a batch lists the result of each", _json(_OBJECT)),
        **_problems(
            (400, "malformed"),
            _GUARD[0],
            (403, "forged, or the token or the origin is wrong"),
            (404, "the route no longer learns about this variant"),
            (409, "counted before"),
            (410, "too late"),
            (413, "too many, or too long"),
            (422, "not between 0 and 1"),
            (503, "the state store cannot be written"),
        ),
    },
}
_RELOAD: Final[dict[str, Any]] = {
    "summary": "Read the config file again",
    "security": [{"token": []}],
    "responses": {
        "200": _answer("In force, or unchanged", _json(_OBJECT)),
        **_problems(*_GUARD, (422, "refused; `errors` says why")),
    },
}

_RESTART: Final[dict[str, Any]] = {
    "summary": "Replace every worker by a new process, one after the other",
    "security": [{"token": []}],
    "responses": {
        "200": _answer("Every new worker serves", _json(_OBJECT)),
        **_problems(*_GUARD, (409, "stopping, not done with the restart before, or it failed")),
    },
}


def _endpoints(summary: str, *problems: tuple[int, str]) -> dict[str, Any]:
    question = {
        "type": "object",
        "additionalProperties": False,
        "required": ["endpoint"],
        "properties": {
            "endpoint": {"type": "string", "description": "its URL"},
            "backend": {"type": ["string", "null"], "description": "by default all that have it"},
            "force": {"type": "boolean", "description": "also the last one of a backend"},
        },
    }
    return {
        "summary": summary,
        "security": [{"token": []}],
        "requestBody": {"required": True, "content": _json(question)},
        "responses": {
            "200": _answer("Done, or so already: what is meant and its state", _json(_OBJECT)),
            **_problems((400, "malformed"), *_GUARD, (404, "no such endpoint"), *problems),
        },
    }


DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "Pointsman admin API", "version": __version__},
    "paths": {
        "/status": {
            "get": _get("Everything at a glance", _json({"$ref": "#/components/schemas/Status"}))
        },
        "/metrics": {"get": _get("Metrics in Prometheus's text format", _TEXT)},
        "/healthz": {"get": _get("The control process runs", _TEXT)},
        "/readyz": {
            "get": _get(
                "Every worker takes requests", _TEXT, s503=_answer("Starting or draining", _TEXT)
            )
        },
        "/routes": {
            "get": _get(
                "Every route",
                _json({"type": "array", "items": {"$ref": "#/components/schemas/Route"}}),
            )
        },
        "/routes/{name}": {
            "parameters": [
                {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
            "get": _get(
                "One route",
                _json({"$ref": "#/components/schemas/Route"}),
                s404=_answer("No such route", _PROBLEM),
            ),
        },
        "/feedback": {"post": _FEEDBACK},
        "/reload": {"post": _RELOAD},
        "/restart": {"post": _RESTART},
        "/endpoints/drain": {
            "post": _endpoints("Give an endpoint nothing new", (409, "nothing else would serve"))
        },
        "/endpoints/undrain": {"post": _endpoints("Use a drained endpoint again")},
        "/openapi.json": {"get": _get("This document", _json(_OBJECT))},
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Status": _STATUS,
            "Route": _ROUTE,
            "Variant": _VARIANT,
            "Backend": _BACKEND,
            "Endpoint": _ENDPOINT,
            "Problem": _PROBLEM_SCHEMA,
        },
    },
}  # fmt: skip
