"""Bundles as files: what goes in comes out, and nothing but that; every bend of the file is refused."""

import hashlib
from dataclasses import replace

import pytest
from deltas import KEY, OTHER_KEY

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.signing import public_key_text, sign
from dafne_dante.errors import DanteError, DeltaFormatError, ServerAnswerError, StorageError, TrustError
from dafne_dante.federation.parcel import Item, check_packer, new_content, open_parcel, write_parcel

SERVER = "https://federation.example/dafne/"
FILES = (b"first update", b"second, longer update" * 100)


def items():
    return [
        Item(f"{number:08x}-0000", "Brain (3D)", hashlib.sha256(content).hexdigest(), len(content), 0.5)
        for number, content in enumerate(FILES)
    ]


@pytest.fixture
def packed(tmp_path):
    paths = []
    for number, content in enumerate(FILES):
        paths.append(tmp_path / f"{number}.delta")
        paths[-1].write_bytes(content)
    write_parcel(tmp_path / "a.bundle", new_content("updates", SERVER, items()), paths, KEY)
    return tmp_path / "a.bundle"


def test_what_goes_in_comes_out(packed, tmp_path):
    parcel = open_parcel(packed)
    assert parcel.public_key == public_key_text(KEY)
    assert list(parcel.content.items) == items()
    for item, content in zip(parcel.content.items, FILES, strict=True):
        assert parcel.copy(item, tmp_path / "out").read_bytes() == content
    check_packer(parcel, {public_key_text(KEY)})
    with pytest.raises(TrustError, match="keys trust"):
        check_packer(parcel, {public_key_text(OTHER_KEY)})


def test_a_receipt_carries_nothing(tmp_path):
    write_parcel(
        tmp_path / "r", new_content("receipt", SERVER, items(), answers="a" * 8 + "-aaaa" * 3 + "-" + "a" * 12), [], KEY
    )
    parcel = open_parcel(tmp_path / "r")
    assert list(parcel.content.items) == items()
    with pytest.raises(ServerAnswerError):
        parcel.copy(parcel.content.items[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_flipped_byte_is_found(packed, tmp_path):
    content = packed.read_bytes()
    places = [*range(0, 1200, 7), *range(1200, len(content), 211), len(content) - 1]
    for place in places:
        packed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DanteError):
            parcel = open_parcel(packed)
            for item in parcel.content.items:
                parcel.copy(item, tmp_path / "out")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1])
def test_a_torn_file_is_refused(packed, length):
    packed.write_bytes(packed.read_bytes()[:length])
    with pytest.raises(DeltaFormatError):
        open_parcel(packed)


def test_bytes_behind_the_end_are_refused(packed):
    packed.write_bytes(packed.read_bytes() + b"x")
    with pytest.raises(DeltaFormatError, match="copy it again"):
        open_parcel(packed)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x04", b"\xff" * 8, b"\x00" * 8, (2**40).to_bytes(8, "little")])
def test_a_file_of_another_kind_is_refused_without_reading_it(tmp_path, start):
    (tmp_path / "x").write_bytes(start + b"{" * 1000)
    with pytest.raises(DeltaFormatError):
        open_parcel(tmp_path / "x")


def forged(path, change, key=KEY):
    """The bundle with its manifest edited in place and signed again."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    document = parse_canonical(parse_canonical(content[8:end], "header")["manifest"].encode(), "manifest")
    change(document)
    manifest = canonical_bytes(document)
    texts = {"manifest": manifest.decode(), "public_key": public_key_text(key), "signature": sign(key, manifest)}
    header = canonical_bytes(texts)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def edit(**changes):
    return lambda document: document.update(changes)


def edit_item(**changes):
    return lambda document: document["items"][0].update(changes)


LIES = {
    "another format": edit(format="zip"),
    "a later version": edit(version=2),
    "a version that is a truth": edit(version=True),
    "a key too many": edit(path="/etc"),
    "another kind": edit(kind="program"),
    "a model of two files": edit(kind="model"),
    "a path as name": edit_item(name="../../etc/passwd"),
    "a path as type": edit_item(model_type="../x"),
    "an id that is none": edit(parcel_id="../x"),
    "a server that is none": edit(server="file:///etc"),
    "items that are none": edit(items={}),
    "too many items": lambda document: document["items"].extend(document["items"] * 1000),
    "an item twice": lambda document: document["items"].append(document["items"][0]),
    "an item without a size": lambda document: document["items"][0].pop("size_bytes"),
    "a size below nothing": edit_item(size_bytes=-1),
    "a size beyond the file": edit_item(size_bytes=10**9),
    "a huge size": edit_item(size_bytes=2**62),
    "a size that is a truth": edit_item(size_bytes=True),
    "a digest that is none": edit_item(sha256="a"),
    "a Dice above 1": edit_item(dice=1.5),
    "a Dice in words": edit_item(dice="good"),
    "a capability that is none": edit(capability=[]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused_whoever_signed_it(packed, lie):
    forged(packed, LIES[lie])
    with pytest.raises(DeltaFormatError):
        open_parcel(packed)


def test_a_digest_that_lies_is_found_when_the_item_is_copied(packed, tmp_path):
    forged(packed, edit_item(sha256="a" * 64))
    parcel = open_parcel(packed)
    with pytest.raises(ServerAnswerError):
        parcel.copy(parcel.content.items[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_while_it_is_packed_makes_no_bundle(tmp_path):
    (tmp_path / "u").write_bytes(b"other")
    with pytest.raises(StorageError):
        write_parcel(tmp_path / "b", new_content("updates", SERVER, items()[:1]), [tmp_path / "u"], KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]


def test_what_would_not_be_read_is_not_written(tmp_path):
    with pytest.raises(DeltaFormatError):
        write_parcel(tmp_path / "b", replace(new_content("updates", SERVER, items()), server="x"), [], KEY)
