"""Envelopes: only the operator opens them, and no bit of them can be changed."""

import stat

import pytest

from dafne_dante.delta import sealing
from dafne_dante.delta.sealing import create_seal_key, is_sealed, load_seal_key, open_sealed, seal, seal_key_text
from dafne_dante.errors import DeltaFormatError, DeltaSealError, DeltaTooLargeError, TrustError

CONTENT = b"a delta, or what a site says is one" * 3


@pytest.fixture
def keys(tmp_path):
    for name in ("operator", "other"):
        create_seal_key(tmp_path / name)
    return [load_seal_key(tmp_path / name) for name in ("operator", "other")]


def test_what_is_sealed_can_be_opened_by_its_key_only_and_hides_its_content(keys):
    operator, other = keys
    sealed = seal(CONTENT, seal_key_text(operator))
    assert is_sealed(sealed)
    assert not is_sealed(CONTENT)
    assert CONTENT[:10] not in sealed
    assert seal(CONTENT, seal_key_text(operator)) != sealed
    assert open_sealed(sealed, [other, operator]) == CONTENT
    with pytest.raises(DeltaSealError, match="for another"):
        open_sealed(sealed, [other])
    with pytest.raises(DeltaSealError, match="for another"):
        open_sealed(sealed, [])


def test_every_changed_bit_is_refused(keys):
    sealed = seal(b"x", seal_key_text(keys[0]))
    for position in range(len(sealed)):
        for bit in (1, 128):
            changed = bytearray(sealed)
            changed[position] ^= bit
            with pytest.raises((DeltaSealError, DeltaFormatError)):
                open_sealed(bytes(changed), keys)
    for length in range(len(sealed)):
        with pytest.raises((DeltaSealError, DeltaFormatError)):
            open_sealed(sealed[:length], keys)


def test_an_envelope_beyond_the_limit_is_refused_before_it_is_opened(keys, monkeypatch):
    sealed = seal(CONTENT, seal_key_text(keys[0]))
    monkeypatch.setattr(sealing, "MAX_DELTA_BYTES", len(CONTENT) - 1)
    with pytest.raises(DeltaTooLargeError):
        open_sealed(sealed, keys)
    with pytest.raises(DeltaTooLargeError):
        seal(CONTENT, seal_key_text(keys[0]))


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "A" * 43 + "=" * 2, "A" * 42 + "B="])
def test_a_malformed_key_is_told(text):
    with pytest.raises(TrustError, match="32 bytes"):
        seal(CONTENT, text)


def test_a_seal_key_is_made_once_and_is_its_owners_only(tmp_path):
    public = create_seal_key(tmp_path)
    assert stat.S_IMODE((tmp_path / "seal_key").stat().st_mode) == 0o600
    assert seal_key_text(load_seal_key(tmp_path)) == public
    with pytest.raises(TrustError, match="move it away"):
        create_seal_key(tmp_path)
    with pytest.raises(TrustError, match="keys create --seal"):
        load_seal_key(tmp_path / "elsewhere")
    (tmp_path / "seal_key").write_text("no key")
    with pytest.raises(TrustError, match="expected an X25519 key"):
        load_seal_key(tmp_path)


def test_a_known_envelope_still_opens():
    """Written by this version once; a later one that cannot read it would lose updates on their way."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert open_sealed(bytes.fromhex(KNOWN), [key]) == b"known"


KNOWN = (
    "6461666e652d64616e74652d7365616c656420310aeedd883da0a945156ea639d4fff7767a446bbbec"
    "55deca3cbd793ff20f1a1da82c1d34002a926f76399a5096eaa861d60a481bcb37f92409059c557fbb"
)
