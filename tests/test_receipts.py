"""Receipts: what was issued is read back; anything else is refused, quietly."""

import base64
import hmac
import struct
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policies.segments import CELL_MAX_BYTES
from router.receipts import NO_UNIT, Receipt, Signer, names_of, unit_digest, verify

KEY = b"k" * 32
NONCE = bytes(range(8))

_names = st.text(
    st.characters(codec="ascii", categories=["L", "N"], include_characters="._-"),
    min_size=1,
    max_size=63,
)


def issue(names: bytes, propensity: float = 0.5, issued_s: int = 0, nonce: bytes = NONCE) -> str:
    return Signer(KEY).issue(names, propensity, issued_s, nonce).decode()


def token_for(route: str = "animals", variant: str = "cat-dog") -> str:
    return issue(names_of(route, variant), 0.25, 1_700_000_000)


def token_of_version_1(route: str = "animals", variant: str = "cat-dog", version: int = 1) -> str:
    """As routers before version 2 gave them out."""
    fixed = struct.pack(">BIf8s", version, 1_700_000_000, 0.25, NONCE)
    payload = fixed + f"{route}\0{variant}".encode()
    tag = hmac.digest(KEY, payload, "sha256")[:16]
    return base64.urlsafe_b64encode(payload + tag).decode()


@given(
    _names,
    _names,
    st.floats(0, 1, width=32),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**32 - 1),
    st.one_of(st.just(""), st.just("country=AU,plan=other"), st.just("~holdout"), _names),
    st.one_of(st.none(), st.binary(min_size=1)),
)
def test_what_was_issued_is_read_back(
    route: str,
    variant: str,
    propensity: float,
    issued_s: int,
    nonce: bytes,
    version: int,
    cell: str,
    unit: bytes | None,
) -> None:
    digest = NO_UNIT if unit is None else unit_digest(unit)
    names = names_of(route, variant, cell)
    token = Signer(KEY).issue(names, propensity, issued_s, nonce, version, digest)
    named = "" if unit is None else digest.hex()
    assert verify(KEY, token.decode()) == Receipt(
        route, variant, propensity, issued_s, nonce.hex(), version, cell, named
    )


def test_a_receipt_of_before_an_upgrade_still_counts() -> None:
    receipt = verify(KEY, token_of_version_1())

    assert receipt == Receipt("animals", "cat-dog", 0.25, 1_700_000_000, NONCE.hex())
    assert verify(b"l" * 32, token_of_version_1()) is None
    assert verify(KEY, token_of_version_1(version=3)) is None


def test_a_receipt_says_of_a_unit_no_more_than_its_digest() -> None:
    token = Signer(KEY).issue(names_of("r", "v"), 0.5, 0, NONCE, 7, unit_digest(b"ann@example"))

    assert b"ann" not in base64.urlsafe_b64decode(token)
    assert unit_digest(b"ann@example").hex() == "a0a0b7aadbaa729c"


def test_a_propensity_keeps_seven_digits() -> None:
    token = issue(names_of("r", "v"), 0.1)
    receipt = verify(KEY, token)
    assert receipt is not None
    assert receipt.propensity == pytest.approx(0.1, rel=1e-7)


def test_a_token_fits_in_a_header_field_as_it_is() -> None:
    longest = names_of("r" * 63, "v" * 63, "c" * CELL_MAX_BYTES)
    token = Signer(KEY).issue(longest, 0.5, 0, NONCE, 2**32 - 1, unit_digest(b"u")).decode()
    assert verify(KEY, token) is not None
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")


def test_a_receipt_under_another_key_is_refused() -> None:
    assert verify(b"l" * 32, token_for()) is None


@pytest.mark.parametrize("variant", ["v", "v2", "v22"])  # every length of base64's last group
def test_one_flipped_bit_anywhere_is_refused(variant: str) -> None:
    token = token_for("animals", variant)
    assert verify(KEY, token) is not None
    raw = base64.urlsafe_b64decode(token)
    for place in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        assert verify(KEY, base64.urlsafe_b64encode(flipped).decode()) is None
    for place in range(len(token) * 8):
        letters = bytearray(token.encode())
        letters[place // 8] ^= 1 << place % 8
        assert verify(KEY, letters.decode("latin-1")) is None


@pytest.mark.parametrize("variant", ["v", "v2", "v22"])
def test_another_spelling_of_the_same_bytes_is_refused(variant: str) -> None:
    """Else one receipt would be many tokens, which a log or a cache takes for different ones."""
    token = token_for("animals", variant)
    raw = base64.urlsafe_b64decode(token)
    standard = issue(names_of("r", "v"), 0.5, 0xFBEFBEFB, b"\xff" * 8)
    assert verify(KEY, standard) is not None
    assert set("-_") & set(standard)
    spellings = [token + "=", token + "\n", " " + token, token + token[:4], "+/".join(token)]
    spellings += [token[:-1] + chr(ord(token[-1]) + 1), token.rstrip("=") + "=="]
    spellings += [standard.replace("-", "+"), standard.replace("_", "/")]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bare = token.rstrip("=")
    for letter in alphabet:
        spelling = bare[:-1] + letter + token[len(bare) :]
        if base64.urlsafe_b64decode(spelling) == raw:
            spellings.append(spelling)
    for spelling in spellings:
        assert (verify(KEY, spelling) is None) is (spelling not in (token, standard))


@pytest.mark.parametrize("cut", [1, 4, 16, 40])
def test_a_shortened_token_is_refused(cut: int) -> None:
    assert verify(KEY, token_for()[:-cut]) is None
    assert verify(KEY, token_for()[cut:]) is None


def test_a_token_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("router.receipts._VERSION", 3)
        token = token_for()
    assert verify(KEY, token) is None


@pytest.mark.parametrize("size", [0, 1, 17, 29])
@pytest.mark.parametrize("version", [1, 2])
def test_a_signed_payload_too_short_to_be_a_receipt_is_refused(version: int, size: int) -> None:
    payload = bytes([version]) * (size if version == 2 else min(size, 17))
    tag = hmac.digest(KEY, payload, "sha256")[:16]
    if version == 2:
        tag = blake2b(payload, key=KEY, digest_size=16, person=b"router-receipt").digest()
    assert verify(KEY, base64.urlsafe_b64encode(payload + tag).decode()) is None


@given(
    st.one_of(
        st.text(),
        st.text("ABab01-_="),
        st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
        st.text(st.characters(categories=["Cs"])),
    )
)
def test_garbage_is_refused_and_never_raises(token: str) -> None:
    assert verify(KEY, token) is None


def test_an_overlong_token_is_refused() -> None:
    token = issue(names_of("r" * 500, "v"))
    assert verify(KEY, token) is None
