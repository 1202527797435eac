"""Signatures on what control posts, so that whoever gets it knows that it came from this router.

`x-pointsman-signature: t=1767225600,v1=<hex>`, where v1 is HMAC-SHA-256 (RFC 2104) under the
shared secret of the time in decimal, a full stop, and the body's bytes. The time in what is signed
lets a receiver refuse what somebody recorded and sends again.
"""

import hmac
from typing import Final

HEADER: Final = "x-pointsman-signature"


def sign(secret: str, body: bytes, now_s: float) -> str:
    """The value of the header."""
    stamp = str(int(now_s))
    digest = hmac.digest(secret.encode(), stamp.encode() + b"." + body, "sha256")
    return f"t={stamp},v1={digest.hex()}"
