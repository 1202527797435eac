"""The key of a request, for algorithms that want one. Compiled once from the configuration."""

import re
from collections.abc import Callable

from router.config.balance import BalanceKey
from router.http1.request_head import RequestHead

KeyOf = Callable[[RequestHead], bytes]
"""From a request to its key; empty: it has none."""


def build_key(source: BalanceKey) -> KeyOf:
    """The function that reads the key where `source` says."""
    if source.header is not None:
        return _from_header(source.header.encode())
    if source.cookie is not None:
        return _from_cookie(source.cookie.encode())
    if source.query is not None:
        return _from_query(source.query.encode())
    return _from_client


def _from_header(name: bytes) -> KeyOf:
    return lambda head: head.header(name) or b""


def _from_cookie(name: bytes) -> KeyOf:
    return lambda head: head.cookie(name) or b""


def _from_query(name: bytes) -> KeyOf:
    find = re.compile(rb"[?&]%b=([^&]*)" % re.escape(name)).search

    def key(head: RequestHead) -> bytes:
        target = head.line.target
        query = target.find(b"?")  # before it, an `&` is part of the path
        found = find(target, query) if query >= 0 else None
        return found[1] if found else b""

    return key


def _from_client(head: RequestHead) -> bytes:
    return head.client.encode("utf-8", "backslashreplace")
