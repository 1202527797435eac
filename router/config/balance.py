"""`balance:` of a backend: how one of its endpoints is chosen for a request."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from router.config.values import HeaderName
from router.policies.sticky import CookieName
from router.strict import Model

BalanceType = Literal["least_request", "round_robin", "random", "peak_ewma", "ring_hash"]


def _parameter(value: str) -> str:
    if not value or len(value) > 64 or not value.isascii() or set(value) & set("&=# \t\r\n"):
        raise ValueError(
            f"{value!r} is not a query parameter, write its name as it stands in targets: "
            "1 to 64 characters of ASCII without '&', '=' and '#'"
        )
    return value


class BalanceKey(Model):
    """What `ring_hash` hashes: exactly one of `header`, `cookie`, `client_ip` and `query`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [source]} for source in ("header", "cookie", "client_ip", "query")
            ]
        }
    )

    header: HeaderName | None = None
    """Request header whose value is the key."""
    cookie: CookieName | None = None
    """Cookie whose value is the key. None is issued."""
    client_ip: Literal[True] | None = None
    """The client's address is the key."""
    query: Annotated[str, AfterValidator(_parameter)] | None = None
    """Query parameter whose value, as it stands in the target, is the key."""

    @model_validator(mode="after")
    def _one_source(self) -> "BalanceKey":
        given = (self.header, self.cookie, self.client_ip, self.query)
        if sum(source is not None for source in given) != 1:
            raise ValueError("a key has exactly one of header, cookie, client_ip, query")
        return self


class Balance(Model):
    """How an endpoint is chosen. The name alone is short for `{type: NAME}`."""

    type: BalanceType = "least_request"
    """The algorithm."""
    key: BalanceKey | None = None
    """What sticks to an endpoint. `ring_hash` needs it, the others have none."""
    max_load: Annotated[float, Field(strict=True, gt=1, le=100, allow_inf_nan=False)] | None = 1.25
    """Only with `ring_hash`: an endpoint with more than this times its share of the requests in
    flight passes further keys on; null: never."""

    @model_validator(mode="after")
    def _key_belongs(self) -> "Balance":
        if self.type == "ring_hash":
            if self.key is None:
                raise ValueError("ring_hash needs a key, like key: {header: x-user-id}")
        elif self.model_fields_set & {"key", "max_load"}:
            raise ValueError(f"key and max_load belong to ring_hash, this is {self.type}")
        return self


def _named(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


AnyBalance = Annotated[
    Balance, BeforeValidator(_named, json_schema_input_type=BalanceType | Balance)
]
"""`Balance` as it may stand in the YAML: a name, or a mapping."""
