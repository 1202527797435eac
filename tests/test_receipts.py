"""Receipts: what was issued is read back; anything else is refused, quietly."""

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.receipts import Receipt, issue, names_of, verify

KEY = b"k" * 32
NONCE = bytes(range(8))

_names = st.text(
    st.characters(codec="ascii", categories=["L", "N"], include_characters="._-"),
    min_size=1,
    max_size=63,
)


def token_for(route: str = "animals", variant: str = "cat-dog") -> str:
    return issue(KEY, names_of(route, variant), 0.25, 1_700_000_000, NONCE).decode()


@given(
    _names,
    _names,
    st.floats(0, 1, width=32),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=8, max_size=8),
)
def test_what_was_issued_is_read_back(
    route: str, variant: str, propensity: float, issued_s: int, nonce: bytes
) -> None:
    token = issue(KEY, names_of(route, variant), propensity, issued_s, nonce)
    receipt = verify(KEY, token.decode())
    assert receipt == Receipt(route, variant, propensity, issued_s, nonce.hex())


def test_a_propensity_keeps_seven_digits() -> None:
    token = issue(KEY, names_of("r", "v"), 0.1, 0, NONCE).decode()
    receipt = verify(KEY, token)
    assert receipt is not None
    assert receipt.propensity == pytest.approx(0.1, rel=1e-7)


def test_a_token_fits_in_a_header_field_as_it_is() -> None:
    token = token_for("r" * 63, "v" * 63)
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
    standard = issue(KEY, names_of("r", "v"), 0.5, 0xFBEFBEFB, b"\xff" * 8).decode()
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
        patched.setattr("router.receipts._VERSION", 2)
        token = token_for()
    assert verify(KEY, token) is None


@pytest.mark.parametrize("size", [0, 1, 17])
def test_a_signed_payload_too_short_to_be_a_receipt_is_refused(size: int) -> None:
    payload = b"\x01" * size
    tag = hmac.digest(KEY, payload, "sha256")[:16]
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
    token = issue(KEY, names_of("r" * 500, "v"), 0.5, 0, NONCE).decode()
    assert verify(KEY, token) is None
