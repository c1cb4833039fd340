"""Keys: private ones stay private and are never lost, trusted ones are read strictly."""

import base64
import hashlib
import json
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from deltas import KEY, OTHER_KEY

from dafne_dante.delta.signing import (
    SIGNING_KEY_FILE,
    TRUSTED_KEYS_FILE,
    create_signing_key,
    ensure_signing_key,
    fingerprint,
    is_signed_by,
    load_signing_key,
    public_key_text,
    sign,
    trust_key,
    trusted_keys,
)
from dafne_dante.errors import StorageError, TrustError

PUBLIC, OTHER = public_key_text(KEY), public_key_text(OTHER_KEY)


def test_a_key_is_made_once_and_kept(tmp_path):
    folder = tmp_path / "config"
    public = create_signing_key(folder)
    path = folder / SIGNING_KEY_FILE
    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(base64.b64decode(public)) == 32
    assert public_key_text(load_signing_key(folder)) == public
    with pytest.raises(TrustError):
        create_signing_key(folder)
    assert path.read_bytes() == content
    assert public_key_text(ensure_signing_key(folder)) == public
    assert [item.name for item in folder.iterdir()] == [SIGNING_KEY_FILE]


def test_a_key_is_made_where_there_is_none(tmp_path):
    with pytest.raises(TrustError, match="keys create"):
        load_signing_key(tmp_path)
    first = public_key_text(ensure_signing_key(tmp_path / "one"))
    assert first != public_key_text(ensure_signing_key(tmp_path / "two"))


def test_a_folder_that_cannot_be_written_to_leaves_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StorageError):
        create_signing_key(blocked)
    assert blocked.read_text() == "not a folder"


def ec_key():
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"noise", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", ec_key()])
def test_a_spoiled_key_is_told_and_not_replaced(tmp_path, content):
    path = tmp_path / SIGNING_KEY_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(TrustError) as refused:
        ensure_signing_key(tmp_path)
    assert path.read_bytes() == content
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    create_signing_key(tmp_path)
    (tmp_path / SIGNING_KEY_FILE).chmod(mode)
    with pytest.raises(TrustError, match="chmod"):
        load_signing_key(tmp_path)


def test_signatures_are_ed25519_over_the_bytes():
    signature = sign(KEY, b"content")
    Ed25519PublicKey.from_public_bytes(base64.b64decode(PUBLIC)).verify(base64.b64decode(signature), b"content")
    assert is_signed_by(PUBLIC, signature, b"content")
    assert not is_signed_by(PUBLIC, signature, b"other")
    assert not is_signed_by(OTHER, signature, b"content")


def test_a_known_answer():
    """RFC 8032, section 7.1, test 2."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    assert base64.b64decode(public_key_text(key)).hex().startswith("3d4017c3e843895a92b70aa74d1b7ebc")
    assert base64.b64decode(sign(key, b"\x72")).hex().startswith("92a009a9f0d4cab8720e820b5f642540")


def test_base64_has_one_form_only():
    """Its last character has unused bits, and S + L would be a second form of the signature's number."""
    signature = sign(KEY, b"content")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for text, ending in ((signature, "=="), (PUBLIC, "=")):
        last = letters.index(text.rstrip("=")[-1])
        other = text.rstrip("=")[:-1] + letters[last + 1] + ending
        assert base64.b64decode(other) == base64.b64decode(text)
        pair = (PUBLIC, other) if text is signature else (other, signature)
        assert not is_signed_by(*pair, b"content")
    for spoiled in (signature + "\n", signature[:-1], "", "é", signature.rstrip("=")):
        assert not is_signed_by(PUBLIC, spoiled, b"content")
    order = 2**252 + 27742317777372353535851937790883648493
    raw = base64.b64decode(signature)
    larger = int.from_bytes(raw[32:], "little") + order
    malleable = base64.b64encode(raw[:32] + larger.to_bytes(32, "little")).decode()
    assert not is_signed_by(PUBLIC, malleable, b"content")


def test_a_fingerprint_is_short_and_grouped():
    digest = hashlib.sha256(base64.b64decode(PUBLIC)).hexdigest()
    assert fingerprint(PUBLIC).replace(" ", "") == digest[:16]
    assert [len(group) for group in fingerprint(PUBLIC).split(" ")] == [4, 4, 4, 4]
    with pytest.raises(TrustError):
        fingerprint("AAAA")


def test_trust_is_kept_by_name(tmp_path):
    assert trusted_keys(tmp_path) == {}
    trust_key(tmp_path, PUBLIC, "Hospital B")
    trust_key(tmp_path, OTHER, "Spital Süd")
    assert trusted_keys(tmp_path) == {PUBLIC: "Hospital B", OTHER: "Spital Süd"}
    trust_key(tmp_path, PUBLIC, "Hospital C")
    assert trusted_keys(tmp_path)[PUBLIC] == "Hospital C"
    with pytest.raises(TrustError, match="name"):
        trust_key(tmp_path, OTHER, "Hospital C")
    assert trusted_keys(tmp_path)[OTHER] == "Spital Süd"


@pytest.mark.parametrize(
    ("key", "name"),
    [("AAAA", "B"), ("", "B"), (PUBLIC + " ", "B"), (PUBLIC, ""), (PUBLIC, "x" * 101), (PUBLIC, "a\nb")],
)
def test_malformed_trust_is_not_written(tmp_path, key, name):
    with pytest.raises(TrustError):
        trust_key(tmp_path, key, name)
    assert trusted_keys(tmp_path) == {}


HEAD = {"format": "dafne-dante-trusted-keys", "version": 1}


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", json.dumps(HEAD), json.dumps({**HEAD, "keys": []}), json.dumps({**HEAD, "keys": {"AAAA": "B"}}),
        json.dumps({**HEAD, "keys": {PUBLIC: 3}}), json.dumps({**HEAD, "keys": {PUBLIC: "B"}, "note": 1}),
        json.dumps({**HEAD, "version": 2, "keys": {}}), json.dumps({**HEAD, "keys": {PUBLIC: "B", OTHER: "B"}}),
        f'{{"format":"dafne-dante-trusted-keys","version":1,"keys":{{"{PUBLIC}":"B","{PUBLIC}":"C"}}}}', "\xff",
    ],
)  # fmt: skip
def test_a_spoiled_list_trusts_nobody_and_is_not_overwritten(tmp_path, content):
    path = tmp_path / TRUSTED_KEYS_FILE
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(TrustError):
        trusted_keys(tmp_path)
    with pytest.raises(TrustError):
        trust_key(tmp_path, PUBLIC, "B")
    assert path.read_bytes() == content.encode("latin-1")
