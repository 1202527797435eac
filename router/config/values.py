"""Types of single values in the YAML: names, addresses, URLs, hosts, paths, patterns.

Each takes text, returns it in its canonical form, and raises `ValueError` whose message says what
was found and what would be right. A pattern beside a type is what the JSON Schema says of it; it
never refuses what the function accepts.
"""

import ipaddress
import re
from collections import Counter
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from router.units import Duration

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_HEADER_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}"  # RFC 9110 section 5.6.2
_HOST: Final = (
    r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]{2,45}\]"
)
_PATH: Final = r"/[\x21\x22\x24-\x3e\x40-\x7e]*"
_ENDPOINT: Final = (
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/@]*@)?"
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<rest>.*)"
)
_STATE: Final = (
    r"memory:|sqlite:///.+"
    r"|rediss?://(?:[^/@\s]*@)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[0-9]*)?"
    r"(?:\?prefix=[A-Za-z0-9._-]{1,64})?"
)
_PORT_MAX: Final = 65535
_HANG_TIMEOUT_MIN_S: Final = 2.0


def _name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError(
            f"{value!r} is not a name, use letters, digits, '.', '_' and '-', at most 63, "
            "starting with a letter or digit"
        )
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(_HEADER_NAME, value):
        raise ValueError(f"{value!r} is not a header name")
    return value.lower()


def _hang_timeout(value: float) -> float:
    if 0 < value < _HANG_TIMEOUT_MIN_S:
        raise ValueError(
            f"expected 0 or at least {_HANG_TIMEOUT_MIN_S:g}s: a worker reports once a second"
        )
    return value


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of a valid `Address`."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether a valid `Address` can be reached from this machine only."""
    host, _ = split_address(address)
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _address(value: str) -> str:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})", value)
    if match is None or int(match[2]) > _PORT_MAX:
        raise ValueError(
            f"{value!r} is not an address, write host:port, like 0.0.0.0:8080 or [::]:8080"
        )
    host = match[1]
    try:
        is_ip = ipaddress.ip_address(host.strip("[]")).version == (6 if host[:1] == "[" else 4)
    except ValueError:
        is_ip = False
    if not is_ip and host != "localhost":
        raise ValueError(
            f"{value!r} is not an address to listen on, write an IP address and a port, "
            "like 0.0.0.0:8080 or [::]:8080"
        )
    return value


def _endpoint_url(value: str) -> str:
    match = re.fullmatch(_ENDPOINT, value)
    if match is None or match["scheme"].lower() not in ("http", "https"):
        raise ValueError(
            f"{value!r} is not an endpoint, write http://host:port or https://host:port"
        )
    if match["user"] is not None:
        raise ValueError("an endpoint carries no user name or password, write http://host:port")
    if match["port"] is not None and not 1 <= int(match["port"]) <= _PORT_MAX:
        raise ValueError(f"{value!r} has a port that is not between 1 and {_PORT_MAX}")
    if match["rest"] not in ("", "/"):
        raise ValueError(
            f"{value!r} goes on after host and port; an endpoint has no path, for targets are "
            "relayed byte for byte"
        )
    host = match["host"].lower()
    if host[0] == "[":
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(f"{value!r} has no IPv6 address between its brackets") from None
    port = f":{match['port']}" if match["port"] else ""
    return f"{match['scheme'].lower()}://{host}{port}"


def distinct_headers(value: object) -> object:
    """`value` as it is. Raises ValueError: it is a mapping with keys that differ only in case."""
    if isinstance(value, dict) and value:
        name, count = Counter(str(name).lower() for name in value).most_common(1)[0]
        if count > 1:
            raise ValueError(f"header {name} is given twice; case makes no difference")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        reason = ": its host bits are not 0" if "host bits" in str(error) else ""
        raise ValueError(
            f"{value!r} is not a network{reason}, write an address or a block, like 10.0.0.0/8"
        ) from None
    return value


def _host(value: str) -> str:
    if not re.fullmatch(_HOST, value):
        raise ValueError(
            f"{value!r} is not a host, write a name without a port, like api.example.org, "
            "or *.example.org for the names below it"
        )
    return value.lower().rstrip(".")


def _path(value: str) -> str:
    if not re.fullmatch(_PATH, value):
        raise ValueError(
            f"{value!r} is not a path, write printable ASCII that starts with '/', "
            "without '?' or '#'"
        )
    if value.startswith("/-/"):
        raise ValueError(f"{value!r} is below /-/, which belongs to the router itself")
    return value


def _method(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z-]{0,31}", value):
        raise ValueError(f"{value!r} is not a method, write capitals, like GET or POST")
    return value


def _state(value: str) -> str:
    if not re.fullmatch(_STATE, value):
        shown = re.sub(r"//.*@", "//...@", value)  # there may be a password in it
        raise ValueError(
            f"{shown!r} is not a state store, write sqlite:///absolute/path, redis://host:6379/0 "
            "or memory:"
        )
    return value


def _schema(pattern: str) -> object:
    return Field(json_schema_extra={"pattern": f"^(?:{pattern})$"})


Name = Annotated[str, AfterValidator(_name), _schema(_NAME)]
HeaderName = Annotated[str, AfterValidator(_header_name), _schema(_HEADER_NAME)]
Address = Annotated[
    str, AfterValidator(_address), _schema(r"([0-9.]+|\[[0-9A-Fa-f:.]+\]|localhost):[0-9]{1,5}")
]
EndpointUrl = Annotated[
    str, AfterValidator(_endpoint_url), _schema(r"[Hh][Tt][Tt][Pp][Ss]?://[^/@?#\s]+/?")
]
HangTimeout = Annotated[Duration, AfterValidator(_hang_timeout)]
Network = Annotated[str, AfterValidator(_network)]
Host = Annotated[str, AfterValidator(_host), _schema(_HOST)]
Path = Annotated[str, AfterValidator(_path), _schema(_PATH)]
Method = Annotated[str, AfterValidator(_method), _schema(r"[A-Z][A-Z-]{0,31}")]
StateUrl = Annotated[str, AfterValidator(_state), _schema(_STATE)]
FeedbackPath = Annotated[str, Field(pattern=r"^/-/[a-z0-9/_-]{1,128}$")]

Whole = Annotated[int, Field(strict=True)]
"""A whole number; text is not read as one."""
Flag = Annotated[bool, Field(strict=True)]
"""true or false; nothing else is read as one."""
