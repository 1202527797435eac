import pytest

from router.config.balance import BalanceKey
from router.data.balance.key import build_key
from router.http1.forwarded import peer_address
from router.http1.request import RequestParser
from router.http1.request_head import RequestHead

_PEER = peer_address("192.0.2.7", ())


def head(target: str = "/", *lines: str) -> RequestHead:
    raw = "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *lines]).encode()
    return RequestParser(100, 8192).parse(raw, _PEER)


@pytest.mark.parametrize(
    ("source", "request_head", "key"),
    [
        ({"header": "X-User-Id"}, head("/", "x-user-ID: u 7"), b"u 7"),
        ({"header": "x-user-id"}, head("/", "x-user-id:"), b""),
        ({"header": "x-user-id"}, head(), b""),
        ({"cookie": "sid"}, head("/", "Cookie: a=b; sid=7"), b"7"),
        ({"cookie": "sid"}, head("/", "Cookie: sidx=7"), b""),
        ({"client_ip": True}, head(), b"192.0.2.7"),
        ({"query": "user"}, head("/p?user=7"), b"7"),
        ({"query": "user"}, head("/p?a=b&user=7&user=8"), b"7"),
        ({"query": "user"}, head("/p?user=a%20b=c?d"), b"a%20b=c?d"),
        ({"query": "user"}, head("/p?user="), b""),
        ({"query": "user"}, head("/p?user"), b""),
        ({"query": "user"}, head("/p?xuser=7"), b""),
        ({"query": "user"}, head("/p"), b""),
        ({"query": "user"}, head("/a&user=7"), b""),
        ({"query": "user"}, head("/a&user=7?user=8"), b"8"),
        ({"query": "u.r"}, head("/p?usr=7&u.r=8"), b"8"),
        ({"query": "user"}, head("http://h?user=7"), b"7"),
    ],
)
def test_a_key_is_read_from_the_head(
    source: dict[str, object], request_head: RequestHead, key: bytes
) -> None:
    assert build_key(BalanceKey.model_validate(source))(request_head) == key
