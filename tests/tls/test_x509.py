"""What a certificate says, against what the library that made it says."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509 as reference
from hypothesis import given
from hypothesis import strategies as st

from router.tls import x509
from tests.certificates import Authority


def test_names_are_those_of_the_certificate_in_its_order(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("B.example", "*.a.example", "127.0.0.1", "::1", "a@b.example")
    (block, *_) = x509.blocks(files.cert.read_text())
    assert x509.parse(block).names == ("b.example", "*.a.example", "127.0.0.1", "::1")


@pytest.mark.parametrize("days", [1, 365 * 40, 365 * 900, -3])
def test_dates_are_those_of_the_certificate(tmp_path: Path, days: int) -> None:
    text = Authority(tmp_path).issue("a.example", days=days).cert.read_text()
    leaf = x509.parse(x509.blocks(text)[0])
    known = reference.load_pem_x509_certificate(text.encode())
    assert leaf.not_before_s == known.not_valid_before_utc.timestamp()
    assert leaf.not_after_s == known.not_valid_after_utc.timestamp()


def test_of_a_file_only_the_certificates_count(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("a.example")
    text = f"Büro\n{files.key.read_text()}\n{files.cert.read_text()}{authority.path.read_text()}"
    assert [x509.parse(block).names for block in x509.blocks(text)] == [("a.example",), ()]


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        x509.parse(ssl.DER_cert_to_PEM_cert(noise))


def test_a_certificate_cut_short_or_changed_anywhere_does_no_harm(tmp_path: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert(
        x509.blocks(Authority(tmp_path).issue("a.example").cert.read_text())[0]
    )
    for at in range(len(der)):
        with pytest.raises(ValueError, match="not a certificate"):
            x509.parse(ssl.DER_cert_to_PEM_cert(der[:at]))
        changed = der[:at] + bytes([der[at] ^ 0xFF]) + der[at + 1 :]
        try:
            x509.parse(ssl.DER_cert_to_PEM_cert(changed))
        except ValueError as error:
            assert "not a certificate" in str(error)


def test_a_subject_is_written_as_rfc_4514_says() -> None:
    subject = (
        (("countryName", "AU"),),
        (("organizationName", 'Sm, "J" + <x>; #1\\'),),
        (("organizationalUnitName", "a"), ("userId", "7")),
        (("commonName", " # ü\r\n "),),
        (("serialNumber", "#5"),),
    )
    assert x509.identity({"subject": subject}).subject == (
        r"serialNumber=\#5,CN=\ # \C3\BC\0D\0A\ ,OU=a+UID=7,"
        r"O=Sm\, \"J\" \+ \<x\>\; #1\\,C=AU"
    )


def test_alternative_names_have_their_kind() -> None:
    names = (
        ("DNS", "a.example"),
        ("URI", "spiffe://acme/a,b"),
        ("IP Address", "127.0.0.1"),
        ("email", "a@b.example"),
        ("DirName", ((("commonName", "a"),),)),
    )
    assert x509.identity({"subjectAltName": names}).names == (
        "DNS:a.example",
        r"URI:spiffe://acme/a\,b",
        "IP:127.0.0.1",
        "email:a@b.example",
    )


def test_without_a_certificate_nobody_is_known() -> None:
    assert x509.identity({}) == x509.NOBODY


@given(st.text())
def test_any_subject_can_stand_in_a_header(name: str) -> None:
    subject = x509.identity({"subject": ((("commonName", name),),)}).subject
    assert subject.isascii()
    assert subject.isprintable()
