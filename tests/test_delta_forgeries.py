"""Hostile delta files: nothing that was changed, forged or made up is taken, each for its own reason."""

import json

import pytest
import torch
from deltas import (
    KEY,
    OTHER_KEY,
    TRUSTED,
    forge,
    low_rank,
    make_base,
    make_delta,
    make_facts,
    replace_numbers,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta import container
from dafne_dante.delta.canonical import canonical_bytes
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.decode import decode_delta, describe_delta
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.encode import encode_delta
from dafne_dante.delta.signing import public_key_text
from dafne_dante.errors import (
    DeltaBaseError,
    DeltaDigestError,
    DeltaError,
    DeltaFormatError,
    DeltaShapeError,
    DeltaSignatureError,
    DeltaTooLargeError,
    DeltaValueError,
)  # fmt: skip

BASE = make_base()
CONTENT = make_delta()


def decode(content, base=BASE, trusted=TRUSTED):
    return decode_delta(content, base=base, trusted_keys=trusted)


def test_every_flipped_bit_is_refused():
    # One weight of each kind keeps the file small enough to try all of its bits.
    updates = [
        WeightUpdate("slope", torch.tensor(0.5)),
        WeightUpdate("still.weight", low_rank("lora-linear", (2, 2), 1)),
    ]
    content = make_delta(updates)
    digest_free = {"base": None, "trusted": TRUSTED}
    assert decode(content, **digest_free).updates
    refused = 0
    for position in range(len(content)):
        for bit in range(8):
            spoiled = bytearray(content)
            spoiled[position] ^= 1 << bit
            with pytest.raises(DeltaError):
                decode(bytes(spoiled), **digest_free)
            refused += 1
    assert refused == 8 * len(content)


def test_every_flipped_bit_of_an_int8_body_is_refused():
    update = WeightUpdate("w", torch.linspace(-1, 1, 2048).reshape(2, 1024))
    base = {"w": torch.zeros(2, 1024)}
    content = encode_delta([update], make_facts(base), KEY)
    read = container.read_container(content)
    assert {tensor.dtype for tensor in read.tensors.values()} == {"I8", "F32"}
    body = sum(len(tensor.content) for tensor in read.tensors.values())
    for position in range(len(content) - body, len(content), 7):
        spoiled = bytearray(content)
        spoiled[position] ^= 1 << position % 8
        with pytest.raises(DeltaDigestError):
            decode(bytes(spoiled), base=base)


def test_every_truncation_and_every_addition_is_refused():
    for length in range(0, len(CONTENT), 5):
        with pytest.raises(DeltaError):
            decode(CONTENT[:length])
    for extra in (b"\0", b" ", b"\0" * 8, CONTENT):
        with pytest.raises(DeltaError):
            decode(CONTENT + extra)
        with pytest.raises(DeltaError):
            decode(extra + CONTENT)


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=64), position=st.integers(0, len(CONTENT)), removed=st.integers(0, 64))
def test_spliced_noise_is_refused(noise, position, removed):
    spoiled = CONTENT[:position] + noise + CONTENT[position + removed :]
    if spoiled != CONTENT:
        with pytest.raises(DeltaError):
            decode(spoiled)


def with_header(edit, content=CONTENT):
    """The file with its header edited as text, its length and padding put right."""
    length = int.from_bytes(content[:8], "little")
    header = edit(content[8 : 8 + length].rstrip(b" "))
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def with_document(edit, content=CONTENT):
    def as_text(header):
        document = json.loads(header)
        edit(document)
        return canonical_bytes(document)

    return with_header(as_text, content)


def entry_of(document, stored="conv.bias#d"):
    return document[stored]


def swap(document, first, second, key):
    document[first][key], document[second][key] = document[second][key], document[first][key]


HEADERS = {
    "oversized claim": (lambda: (9 << 20).to_bytes(8, "little") + CONTENT[8:], DeltaTooLargeError),
    "absurd claim": (lambda: b"\xff" * 8 + CONTENT[8:], DeltaTooLargeError),
    "claim beyond the file": (lambda: (1 << 20).to_bytes(8, "little") + CONTENT[8:], DeltaFormatError),
    "empty file": (lambda: b"", DeltaFormatError),
    "only a length": (lambda: b"\0" * 8, DeltaFormatError),
    "duplicate key": (lambda: with_header(lambda h: h.replace(b'{"__m', b'{"a":1,"a":1,"__m', 1)), DeltaFormatError),
    "duplicate tensor": (
        lambda: with_header(lambda h: h[:-1] + b',"slope#d":' + json.dumps(json.loads(h)["slope#d"]).encode() + b"}"),
        DeltaFormatError,
    ),
    "spaces": (lambda: with_header(lambda h: h.replace(b":", b": ")), DeltaFormatError),
    "leading space": (lambda: with_header(lambda h: b" " + h), DeltaFormatError),
    "8 more spaces": (
        lambda: with_header(lambda h: h + b" " * (8 + -len(h) % 8)), DeltaFormatError),
    "no metadata": (lambda: with_document(lambda d: d.pop("__metadata__")), DeltaFormatError),
    "metadata of numbers": (lambda: with_document(lambda d: d["__metadata__"].update(manifest=3)), DeltaFormatError),
    "more metadata": (lambda: with_document(lambda d: d["__metadata__"].update(note="x")), DeltaFormatError),
    "no manifest": (lambda: with_document(lambda d: d["__metadata__"].pop("manifest")), DeltaFormatError),
    "surrogate": (
        lambda: with_header(lambda h: h.replace(b'"manifest":"', b'"manifest":"\\ud800', 1)), DeltaFormatError),
    "unknown dtype": (lambda: with_document(lambda d: entry_of(d).update(dtype="F64")), DeltaFormatError),
    "dtype lies": (lambda: with_document(lambda d: entry_of(d).update(dtype="I8")), DeltaFormatError),
    "dtype of the same size": (lambda: with_document(lambda d: entry_of(d).update(dtype="BF16")), DeltaFormatError),
    "shape lies": (lambda: with_document(lambda d: entry_of(d).update(shape=[7])), DeltaFormatError),
    "shape of as many numbers": (lambda: with_document(lambda d: entry_of(d).update(shape=[2, 3])), DeltaFormatError),
    "negative shape": (lambda: with_document(lambda d: entry_of(d).update(shape=[-2, -3])), DeltaFormatError),
    "shape of texts": (lambda: with_document(lambda d: entry_of(d).update(shape=["6"])), DeltaFormatError),
    "more keys": (lambda: with_document(lambda d: entry_of(d).update(note=1)), DeltaFormatError),
    "gap": (lambda: with_document(lambda d: entry_of(d).update(data_offsets=[4, 16])), DeltaFormatError),
    "overlap": (lambda: with_document(lambda d: swap(d, "conv.weight#a", "conv.weight#b", "data_offsets")),
                DeltaFormatError),
    "swapped names": (
        lambda: with_document(lambda d: d.update({"conv.weight#a": d["conv.weight#b"],
                                                  "conv.weight#b": d["conv.weight#a"]})), DeltaFormatError),
    "renamed": (lambda: with_document(lambda d: d.update({"conv.biaz#d": d.pop("conv.bias#d")})), DeltaFormatError),
    "a list": (lambda: with_header(lambda h: b"[" + h + b"]"), DeltaFormatError),
    "unsigned": (lambda: with_document(lambda d: d["__metadata__"].pop("signature")), DeltaSignatureError),
    "no key": (lambda: with_document(lambda d: d["__metadata__"].pop("public_key")), DeltaSignatureError),
    "empty signature": (lambda: with_document(lambda d: d["__metadata__"].update(signature="")), DeltaSignatureError),
    "another's signature": (
        lambda: with_document(lambda d: d["__metadata__"].update(
            signature=container.read_container(make_delta(cases=8)).metadata["signature"])), DeltaSignatureError),
    "another's key": (
        lambda: with_document(lambda d: d["__metadata__"].update(public_key=public_key_text(OTHER_KEY))),
        DeltaSignatureError),
    "more cases": (lambda: with_header(lambda h: h.replace(b'\\"cases\\":7', b'\\"cases\\":8')), DeltaSignatureError),
    "manifest serialised anew": (
        lambda: with_document(lambda d: d["__metadata__"].update(
            manifest=json.dumps(json.loads(d["__metadata__"]["manifest"])))), DeltaFormatError),
    "manifest with an unknown key": (
        lambda: forge(CONTENT, manifest=lambda m: m.update(site="x")), DeltaFormatError),
    "signed by another key": (lambda: make_delta(key=OTHER_KEY), DeltaSignatureError),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "error"), HEADERS.values(), ids=HEADERS.keys())
def test_spoiled_headers(spoil, error):
    with pytest.raises(DeltaError) as refused:
        decode(spoil())
    assert type(refused.value) is error


def test_a_file_beyond_the_limit_is_not_parsed(monkeypatch):
    monkeypatch.setattr(container, "MAX_DELTA_BYTES", len(CONTENT) - 1)
    with pytest.raises(DeltaTooLargeError, match="at most"):
        decode(CONTENT)
    with pytest.raises(DeltaTooLargeError):
        make_delta()


def add_tensor(stored):
    stored["still.weight#d"] = StoredTensor.from_tensor(torch.ones(2, 2), "F16")


def entry_for(stored, weight, kind="dense", scale=1.0):
    return {"weight": weight, "kind": kind, "shape": list(stored.shape), "dtype": stored.dtype, "scale": scale,
            "sha256": stored.sha256}  # fmt: skip


def with_tensor(name, tensor, dtype="F16", weight=None, kind="dense", scale=1.0):
    """A forged delta with one tensor more, or another one, in file and manifest alike."""
    stored = StoredTensor.from_tensor(tensor, dtype)
    entry = entry_for(stored, weight or name.split("#")[0], kind, scale)
    return forge(
        CONTENT,
        manifest=lambda document: document["tensors"].update({name: entry}),
        tensors=lambda tensors: tensors.update({name: stored}),
    )


def without_tensor(name):
    return forge(
        CONTENT,
        manifest=lambda document: document["tensors"].pop(name),
        tensors=lambda tensors: tensors.pop(name),
    )


def exchange(stored):
    """Two tensors of equal dtype, shape and size change places; both are in the manifest."""
    stored["conv.bias#d"], stored["slope#d"] = stored["slope#d"], stored["conv.bias#d"]


def edited_entry(name, **changes):
    return forge(CONTENT, manifest=lambda document: document["tensors"][name].update(changes))


NAN, INFINITY = float("nan"), float("inf")

FORGERIES = {
    "extra tensor": (lambda: forge(CONTENT, tensors=add_tensor), DeltaFormatError),
    "missing tensor": (lambda: forge(CONTENT, tensors=lambda stored: stored.pop("slope#d")), DeltaFormatError),
    "swapped tensors": (lambda: forge(CONTENT, tensors=exchange), DeltaFormatError),
    "half a pair": (lambda: without_tensor("conv.weight#b"), DeltaFormatError),
    "manifest lies about dtype": (lambda: edited_entry("slope#d", dtype="F32"), DeltaFormatError),
    "manifest lies about shape": (lambda: edited_entry("conv.bias#d", shape=[2, 3]), DeltaFormatError),
    "manifest lies about kind": (lambda: edited_entry("conv.weight#a", kind="lora-shared"), DeltaFormatError),
    "two scales": (lambda: edited_entry("conv.weight#a", scale=3.0), DeltaFormatError),
    "two weights": (lambda: edited_entry("conv.weight#a", weight="linear.weight"), DeltaFormatError),
    "a name of another weight": (lambda: with_tensor("still.weight#d", torch.ones(2, 2), weight="conv.bias"),
                                 DeltaFormatError),
    "an unknown part": (lambda: with_tensor("still.weight#e", torch.ones(2, 2)), DeltaFormatError),
    "rows without int8": (lambda: with_tensor("slope#d#rows", torch.ones(1), "F32", weight="slope"), DeltaFormatError),
    "int8 without rows": (lambda: with_tensor("still.weight#d", torch.ones(2, 2), "I8"), DeltaFormatError),
    "infinite scale": (lambda: forge(CONTENT, manifest=lambda m: m["tensors"]["conv.weight#a"].update(scale="x")),
                       DeltaFormatError),
    "another base": (lambda: make_delta(base_sha256="0" * 64), DeltaBaseError),
    "unknown weight": (lambda: with_tensor("other.weight#d", torch.ones(2, 2)), DeltaShapeError),
    "integer buffer": (lambda: with_tensor("norm.num_batches_tracked#d", torch.tensor(1.0)), DeltaShapeError),
    "wrong shape": (lambda: with_tensor("still.weight#d", torch.ones(2, 3)), DeltaShapeError),
    "transposed shape": (lambda: with_tensor("linear.weight#d", torch.ones(6, 5)), DeltaFormatError),
    "pair of two ranks": (lambda: make_delta([WeightUpdate("linear.weight", LowRank(
        "lora-linear", torch.ones(5, 1), torch.ones(1, 7), 1.0))]), DeltaShapeError),
    "rank above its bound": (lambda: make_delta([WeightUpdate("linear.weight", LowRank(
        "lora-linear", torch.ones(5, 6), torch.ones(6, 6), 1.0))]), DeltaShapeError),
    "digest of other bytes": (lambda: edited_entry("slope#d", sha256="0" * 64), DeltaDigestError),
    "other bytes": (lambda: forge(CONTENT, tensors=lambda stored: stored.update(
        {"slope#d": StoredTensor.from_tensor(torch.tensor(9.0), stored["slope#d"].dtype)})), DeltaDigestError),
    "NaN": (lambda: replace_numbers(CONTENT, "conv.bias#d", NAN), DeltaValueError),
    "infinity": (lambda: replace_numbers(CONTENT, "slope#d", INFINITY), DeltaValueError),
    "NaN in a factor": (lambda: replace_numbers(CONTENT, "conv.weight#b", NAN), DeltaValueError),
    "overflow of a product": (
        lambda: make_delta([WeightUpdate("linear.weight", LowRank(
            "lora-linear", torch.full((5, 1), 1e30), torch.full((1, 6), 1e30), 1.0))], ), DeltaValueError),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "error"), FORGERIES.values(), ids=FORGERIES.keys())
def test_forgeries_signed_by_a_trusted_key(spoil, error):
    with pytest.raises(DeltaError) as refused:
        decode(spoil())
    assert type(refused.value) is error


INT8_BASE = {"w": torch.zeros(2, 1024)}


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (torch.tensor([NAN, 1.0]), DeltaValueError),
        (torch.tensor([INFINITY, 1.0]), DeltaValueError),
        (torch.tensor([3e38, 1.0]), DeltaValueError),
        (torch.tensor([1.0, 1.0, 1.0]), DeltaShapeError),
        (torch.tensor([[1.0], [1.0]]), DeltaShapeError),
    ],
    ids=["NaN", "infinite", "overflow", "three rows", "column"],
)
def test_forged_row_scales(rows, error):
    content = encode_delta(
        [WeightUpdate("w", torch.linspace(-1, 1, 2048).reshape(2, 1024))], make_facts(INT8_BASE), KEY
    )
    stored = StoredTensor.from_tensor(rows, "F32")
    spoiled = forge(
        content,
        manifest=lambda document: document["tensors"].update({"w#d#rows": entry_for(stored, "w")}),
        tensors=lambda tensors: tensors.update({"w#d#rows": stored}),
    )
    with pytest.raises(DeltaError) as refused:
        decode(spoiled, base=INT8_BASE)
    assert type(refused.value) is error


@pytest.mark.parametrize("name", ["rank above its bound", "NaN", "other bytes", "overflow of a product", "half a pair"])
def test_what_needs_no_base_is_checked_without_one(name):
    spoil, error = FORGERIES[name]
    with pytest.raises(error):
        decode(spoil(), base=None)
    with pytest.raises(error):
        describe_delta(spoil())


def test_any_key_will_do_for_looking_only():
    content = make_delta(key=OTHER_KEY)
    assert decode(content, trusted=None).public_key == public_key_text(OTHER_KEY)
    with pytest.raises(DeltaSignatureError, match="trusted"):
        decode(content, trusted=())


def test_errors_carry_no_key():
    with pytest.raises(DeltaSignatureError) as refused:
        decode(make_delta(key=OTHER_KEY))
    assert public_key_text(OTHER_KEY) not in str(refused.value)


def test_a_small_file_cannot_ask_for_much_memory():
    """Factors of rank 1 whose product has 10^10 numbers are looked at without building it."""
    long = LowRank("lora-linear", torch.ones(100_000, 1), torch.ones(1, 100_000), 1.0)
    stored = {f"w#{part}": StoredTensor.from_tensor(tensor, "F16") for part, tensor in (("a", long.a), ("b", long.b))}
    content = forge(
        make_delta(updates=[]),
        manifest=lambda document: document["tensors"].update(
            {name: entry_for(tensor, "w", "lora-linear") for name, tensor in stored.items()}
        ),
        tensors=lambda tensors: tensors.update(stored),
    )
    assert describe_delta(content)["length"] == pytest.approx(1e5)


def test_a_description_tells_of_a_broken_signature():
    spoil, _ = HEADERS["another's signature"]
    assert describe_delta(spoil())["signature_valid"] is False
