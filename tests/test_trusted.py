"""What a server may hand out, and what a site refuses: every attack on the global model by name, and the pins' file."""

import json
import os
import stat
from dataclasses import replace
from datetime import datetime, timezone
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_model_file import make_model

from dafne_dante.delta.canonical import canonical_bytes
from dafne_dante.delta.signing import fingerprint, public_key_text, sign
from dafne_dante.errors import StorageError, TrustError, UnsupportedModelError
from dafne_dante.federation.model_signature import (
    BLOCK,
    read_signature,
    sign_model,
    verified_release,
    without_signature,
)
from dafne_dante.federation.pins import PINS_FILE, PinFile, Place
from dafne_dante.federation.release import MAX_BYTES, parse_release
from dafne_dante.federation.trusted import NOT_PINNED, Pin, judge
from dafne_dante.models.file import read_model, write_model

TYPE = "Brain (3D)"
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
MADE = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
PINNED = Pin(public_key_text(KEY), "beforehand")
MODEL = make_model()


def signed(number=1, key=KEY, model=MODEL, model_type=TYPE, **options):
    return sign_model(model, key, model_type=model_type, number=number, created=MADE, **options)


def other_weights(model):
    name = next(name for name, tensor in model.weights.items() if tensor.is_floating_point())
    return replace(model, weights={**model.weights, name: model.weights[name] + 1e-3})


def reworded(model, **changes):
    """The model with a statement that somebody changed, under the old signature."""
    block = dict(model.metadata[BLOCK])
    document = json.loads(block["statement"]) | changes
    block["statement"] = canonical_bytes(document).decode()
    return replace(model, metadata={**model.metadata, BLOCK: block})


def resigned(model, key=KEY, **changes):
    """The model with a changed statement that `key` really signed."""
    model = reworded(model, **changes)
    block = dict(model.metadata[BLOCK])
    block["signature"] = sign(key, block["statement"].encode())
    return replace(model, metadata={**model.metadata, BLOCK: block})


def test_the_first_key_seen_is_pinned_and_said_so():
    first = judge(NOT_PINNED, signed(), TYPE, now=MADE)
    assert first.pin.public_key == public_key_text(KEY)
    assert (first.pin.origin, first.pin.number) == ("first use", 1)
    assert fingerprint(public_key_text(KEY)) in first.words
    assert "compare it with the operator" in first.words
    again = judge(first.pin, signed(), TYPE, now=MADE)
    assert again.pin == first.pin
    assert "when it was first seen" in again.words


def test_releases_rise_and_their_age_is_told():
    taken = judge(PINNED, signed(3), TYPE, now=MADE.replace(day=11))
    assert (taken.pin.number, taken.release.number) == (3, 3)
    assert "release 3, signed 10 days ago" in taken.words
    assert judge(taken.pin, signed(7, model=other_weights(MODEL)), TYPE).pin.number == 7
    assert "future" in judge(PINNED, signed(), TYPE, now=MADE.replace(year=2025)).words


def test_an_unsigned_federation_works_and_says_so():
    judgement = judge(NOT_PINNED, MODEL, TYPE)
    assert (judgement.pin, judgement.release) == (NOT_PINNED, None)
    assert "unsigned" in judgement.words


def test_the_operator_may_bring_back_an_older_model():
    pin = judge(PINNED, signed(2, model=other_weights(MODEL)), TYPE).pin
    back = judge(pin, signed(3, rollback_to=1), TYPE)
    assert back.pin.number == 3
    assert "brings back release 1" in back.words


SECOND = judge(PINNED, signed(2), TYPE).pin
ATTACKS = {
    "the server takes the signature off": (PINNED, without_signature(signed()), "without a signature"),
    "somebody else signs": (PINNED, signed(key=OTHER), "by telephone which key is theirs"),
    "the server puts in other weights": (PINNED, other_weights(signed()), "found other weights"),
    "the server puts in another family": (PINNED, replace(signed(), model_id=uuid4()), "found other family"),
    "the server puts in code": (
        PINNED,
        replace(signed(), sources={**MODEL.sources, "apply_model_function": "import os"}),
        "found other functions",
    ),
    "the server adds a function": (
        PINNED,
        replace(signed(), sources={**MODEL.sources, "extra_function": "import os"}),
        "found other functions",
    ),
    "the server has packages installed": (
        PINNED,
        replace(signed(), metadata={**signed().metadata, "dependencies": {"evil": "1"}}),
        "found other dependencies",
    ),
    "the server changes the grid": (
        PINNED,
        replace(signed(), plan=replace(MODEL.plan, spacing_mm=(9.0, 9.0, 9.0))),
        "found other plan",
    ),
    "the server hands out an old release": (SECOND, signed(1), "replaced"),
    "the operator's key signed two of one number": (SECOND, signed(2, model=other_weights(MODEL)), "signed two"),
    "another type's model": (PINNED, signed(model_type="Liver"), "signed as another type"),
    "the statement was reworded": (SECOND, reworded(signed(1), number=9), "expected a valid signature"),
    "a statement of another format": (PINNED, resigned(signed(), format="other"), "update dafne-dante"),
    "a statement with a key too many": (PINNED, resigned(signed(), more=1), "no others"),
    "a number that is none": (PINNED, resigned(signed(), number=True), "number from 1"),
    "a rollback to the future": (PINNED, resigned(signed(), rollback_to=5), "rollback_to"),
    "sources that are no digests": (PINNED, resigned(signed(), sources={"a_function": "x"}), "digests"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(attack):
    pin, model, told = ATTACKS[attack]
    with pytest.raises(TrustError, match=told):
        judge(pin, model, TYPE)


@pytest.mark.parametrize(
    "block",
    [
        None,
        7,
        {},
        {"statement": "x", "signature": "y"},
        {"statement": 1, "signature": "y", "public_key": "z"},
        {"statement": "x" * (MAX_BYTES + 1), "signature": "y", "public_key": "z"},
        {"statement": "\ud800", "signature": "y", "public_key": public_key_text(KEY)},
        {"statement": "x", "signature": "y", "public_key": "z"},
    ],
)
def test_a_malformed_block_is_never_unsigned(block):
    with pytest.raises(TrustError):
        judge(NOT_PINNED, replace(MODEL, metadata={**MODEL.metadata, BLOCK: block}), TYPE)


def test_the_block_survives_the_file_and_what_a_stock_client_adds(tmp_path):
    write_model(signed(4), tmp_path / "a.model")
    back = read_model(tmp_path / "a.model")
    assert judge(PINNED, back, TYPE).pin.number == 4
    stock = replace(back, metadata={**back.metadata, "dafne_dante": {"delta": 1}, "categories": ["a"]}, timestamp=5)
    assert judge(PINNED, stock, TYPE).pin.number == 4
    assert verified_release(read_signature(back)).model_id == str(MODEL.model_id)


def test_a_plan_that_is_no_json_cannot_be_signed():
    with pytest.raises(UnsupportedModelError):
        signed(model=replace(MODEL, plan=replace(MODEL.plan, extra={"odd": {1, 2}})))
    with pytest.raises(TrustError, match="more"):
        parse_release(b" " * (MAX_BYTES + 1))


class TestPins:
    """The file."""

    HERE = Place("https://a.example/", TYPE)

    def test_what_is_put_is_found(self, tmp_path):
        pins = PinFile(tmp_path / "new")
        assert pins.find(self.HERE) == NOT_PINNED
        assert not (tmp_path / "new").exists()
        pins.advance(self.HERE, SECOND)
        pins.pin(Place("https://a.example/"), public_key_text(OTHER))
        assert pins.find(self.HERE) == SECOND
        assert pins.find(Place("https://a.example/", "Liver")).public_key == public_key_text(OTHER)
        assert pins.find(Place("https://b.example/", TYPE)) == NOT_PINNED
        if os.name == "posix":
            assert stat.S_IMODE((tmp_path / "new" / PINS_FILE).stat().st_mode) == 0o600
        pins.remove(self.HERE)
        assert pins.find(self.HERE).public_key == public_key_text(OTHER)
        with pytest.raises(TrustError, match="found none"):
            pins.remove(self.HERE)

    def test_the_settings_key_decides(self, tmp_path):
        pins, wanted = PinFile(tmp_path), public_key_text(OTHER)
        assert pins.find(self.HERE, wanted) == Pin(wanted)
        pins.advance(self.HERE, replace(SECOND, origin="first use"))
        assert pins.find(self.HERE, wanted) == Pin(wanted), "what was first seen yields"
        assert pins.find(self.HERE, SECOND.public_key).number == 2
        pins.pin(self.HERE, SECOND.public_key)
        with pytest.raises(TrustError, match="remove one of them"):
            pins.find(self.HERE, wanted)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"{}",
            b'{"format":"dafne-dante-pins","version":2,"pins":[]}',
            b'{"format":"dafne-dante-pins","version":1,"pins":[{}]}',
            b'{"format":"dafne-dante-pins","version":1}',
            b'{"format":"dafne-dante-pins","version":1,"pins":{}}',
            b"\xff",
            b"[" * 100_000,
        ],
    )
    def test_a_spoilt_file_is_refused_whole(self, tmp_path, content):
        (tmp_path / PINS_FILE).write_bytes(content)
        with pytest.raises((TrustError, StorageError)):
            PinFile(tmp_path).all()
        with pytest.raises((TrustError, StorageError)):
            PinFile(tmp_path).pin(self.HERE, PINNED.public_key)
        assert (tmp_path / PINS_FILE).read_bytes() == content

    def test_a_pin_of_nonsense_is_refused(self, tmp_path):
        with pytest.raises(TrustError):
            PinFile(tmp_path).pin(self.HERE, "nonsense")
        assert not (tmp_path / PINS_FILE).exists()
