"""Manifests: one canonical form, exactly the known keys, each within its bounds."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from deltas import make_delta
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.container import read_container
from dafne_dante.delta.manifest import Manifest, canonical_json, parse_manifest
from dafne_dante.errors import DeltaError, DeltaFormatError

CONTENT = read_container(make_delta()).metadata["manifest"].encode()
DOCUMENT = json.loads(CONTENT)
ENTRY = "conv.bias#d"


def changed(**changes):
    return canonical_bytes({**DOCUMENT, **changes})


def without(name):
    return canonical_bytes({key: value for key, value in DOCUMENT.items() if key != name})


def with_entry(**changes):
    return changed(tensors={**DOCUMENT["tensors"], ENTRY: {**DOCUMENT["tensors"][ENTRY], **changes}})


def test_bytes_come_back_as_they_were():
    manifest = parse_manifest(CONTENT)
    assert canonical_json(manifest) == CONTENT
    assert manifest.labels == ("left", "right")
    assert manifest.dice_before == {"mean": 0.5, "left": 0.25, "right": None}
    assert manifest.tensors[ENTRY].shape == (6,)


def test_exactly_the_keys_of_the_design():
    assert set(DOCUMENT) == {
        "format", "version", "update_id", "model_type", "model_id", "base_timestamp", "base_sha256", "method",
        "tensors", "cases", "labels", "dice_before", "dice_after", "created", "software",
    }  # fmt: skip
    assert set(DOCUMENT) == {item.name for item in fields(Manifest)} - {"noise"}
    assert set(DOCUMENT["tensors"][ENTRY]) == {"weight", "kind", "shape", "dtype", "scale", "sha256"}


@pytest.mark.parametrize("name", sorted(DOCUMENT))
def test_a_missing_key_is_named(name):
    with pytest.raises(DeltaFormatError, match=name):
        parse_manifest(without(name))


OTHER_VALUES = [
    (name, value)
    for name in sorted(DOCUMENT)
    for value in (None, True, 1.5, [], {}, "", [[]], "\ud800")
    if (name, value) not in [("model_type", ""), ("tensors", {})]
]


@pytest.mark.parametrize(("name", "value"), OTHER_VALUES, ids=repr)
def test_a_value_of_another_type_is_named(name, value):
    document = json.dumps({**DOCUMENT, name: value}, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DeltaFormatError) as refused:
        parse_manifest(document)
    assert value == "\ud800" or name in str(refused.value)


BAD_VALUES = [
    ("version", 2), ("version", 1.0), ("format", "dafne-dante-model"), ("cases", 0), ("cases", 10**7), ("cases", True),
    ("update_id", "6F1C1A1E-58C5-4B0E-8F3E-3F1D1C2B4A55"), ("update_id", "6f1c1a1e-58c5-1b0e-8f3e-3f1d1c2b4a55"),
    ("update_id", "{6f1c1a1e-58c5-4b0e-8f3e-3f1d1c2b4a55}"), ("model_id", "no uuid"),
    ("model_type", "x" * 129), ("model_type", "../Leg"), ("model_type", "a\nb"), ("model_type", "C:\\x"),
    ("base_timestamp", "-1"), ("base_timestamp", "9" * 21), ("base_timestamp", "12\n"), ("base_sha256", "0" * 63),
    ("base_sha256", "A" * 64), ("method", "Free text, with a name"), ("software", "x"), ("software", "a 1" + "0" * 40),
    ("created", "2026-13-23T01:05Z"), ("created", "2026-11-23T01:05"), ("created", "2026-11-23T01:05:11Z"),
    ("labels", []), ("labels", ["a", "a"]), ("labels", ["mean"]), ("labels", ["x" * 129]), ("labels", [1]),
    ("labels", [f"l{i}" for i in range(255)]), ("dice_before", {"mean": 0.5}), ("dice_after", {"mean": 1}),
    ("dice_before", {"mean": 1.5, "left": 0.5, "right": 0.5}), ("dice_before", {"mean": 0.5, "left": 1, "right": 0.5}),
    ("dice_before", {"mean": 0.5, "left": -0.5, "right": 0.5}),
    ("dice_before", {"mean": 0.5, "left": 0.5, "right": 0.5, "Smith": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=lambda value: str(value)[:30])
def test_a_value_out_of_bounds_is_named(name, value):
    with pytest.raises(DeltaFormatError, match=name):
        parse_manifest(changed(**{name: value}))


BAD_ENTRIES = [
    {"weight": 3}, {"weight": "a#b"}, {"weight": ""}, {"weight": "x" * 257}, {"kind": "sparse"}, {"kind": []},
    {"dtype": "F64"}, {"dtype": "BF16"}, {"shape": [0]}, {"shape": [True]}, {"shape": [6.0]}, {"shape": "6"},
    {"shape": [2**31]}, {"shape": [1] * 6}, {"scale": 1}, {"scale": "1"}, {"scale": 2.0}, {"sha256": "0"},
    {"extra": 1},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_ENTRIES, ids=str)
def test_a_bad_entry_is_named(changes):
    word = "weight" if "weight" in changes else next(iter(changes))
    with pytest.raises(DeltaFormatError, match=word):
        parse_manifest(with_entry(**changes))


@pytest.mark.parametrize("key", sorted(DOCUMENT["tensors"][ENTRY]))
def test_a_missing_key_of_an_entry_is_named(key):
    entry = {name: value for name, value in DOCUMENT["tensors"][ENTRY].items() if name != key}
    with pytest.raises(DeltaFormatError, match=key):
        parse_manifest(changed(tensors={ENTRY: entry}))


@pytest.mark.parametrize("name", ["site", "host", "Patient"])
def test_an_unknown_key_is_named(name):
    with pytest.raises(DeltaFormatError, match=name):
        parse_manifest(changed(**{name: "x"}))


OTHER_BYTES = {
    "duplicate key": CONTENT.replace(b'{"base_sha256"', b'{"cases":7,"base_sha256"', 1),
    "duplicate key in an entry": CONTENT.replace(b'"kind":"dense"', b'"kind":"dense","kind":"dense"', 1),
    "NaN": CONTENT.replace(b"0.25", b"NaN", 1),
    "Infinity": CONTENT.replace(b"0.25", b"Infinity", 1),
    "-Infinity": CONTENT.replace(b"0.25", b"-Infinity", 1),
    "overflow": CONTENT.replace(b"0.25", b"1e999", 1),
    "another spelling of a number": CONTENT.replace(b"0.25", b"2.5e-1", 1),
    "space": CONTENT.replace(b":", b": ", 1),
    "trailing newline": CONTENT + b"\n",
    "leading mark": b"\xef\xbb\xbf" + CONTENT,
    "escape": CONTENT.replace(b"left", b"\\u006ceft", 1),
    "unsorted": json.dumps(dict(reversed(DOCUMENT.items())), separators=(",", ":")).encode(),
    "not UTF-8": CONTENT.replace(b"left", b"l\xffft", 1),
    "cut off": CONTENT[:-1],
    "empty": b"",
    "a list": b"[]",
    "a number": b"1",
    "deep": b"[" * 100_000,
    "long number": b'{"cases":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("content", OTHER_BYTES.values(), ids=OTHER_BYTES.keys())
def test_other_bytes_are_refused(content):
    with pytest.raises(DeltaFormatError):
        parse_manifest(content)


def test_messages_escape_what_a_stranger_wrote():
    hostile = "\x1b[31m" + "é" * 500
    with pytest.raises(DeltaFormatError) as refused:
        parse_manifest(changed(**{hostile: 1}))
    assert str(refused.value).isascii()
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 300


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_delta_error(content):
    with pytest.raises(DeltaError):
        parse_manifest(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(DOCUMENT)), value=JSON)
def test_whatever_a_value_is_the_answer_is_a_manifest_or_a_delta_error(name, value):
    try:
        manifest = parse_manifest(changed(**{name: value}))
    except DeltaFormatError:
        return
    assert canonical_json(manifest) == changed(**{name: value})


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4))
def test_the_canonical_form_has_one_reading(document):
    assert parse_canonical(canonical_bytes(document), "a document") == document


def test_the_example_in_the_documentation_is_a_manifest():
    page = (Path(__file__).parent.parent / "docs" / "delta-format.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]
    manifest = parse_manifest(canonical_bytes(json.loads(example)))
    assert set(manifest.tensors) == {"conv.weight#a", "conv.weight#b", "slope#d"}
    assert [key for key in sorted(DOCUMENT) if f"`{key}`" not in page] == []
