"""Delta files: what goes in comes out."""

import json
import math
from datetime import datetime, timezone
from uuid import uuid4

import numpy as np
import pytest
import safetensors.torch
import torch
from deltas import (
    DICE,
    KEY,
    LABELS,
    TRUSTED,
    UPDATE_ID,
    low_rank,
    make_base,
    make_delta,
    make_facts,
    make_updates,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.adaptation.low_rank import FORMS, LowRank
from dafne_dante.delta import container
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.decode import decode_delta, describe_delta
from dafne_dante.delta.difference import WeightUpdate, apply_updates, dense_value
from dafne_dante.delta.encode import encode_delta, updates_as_sent
from dafne_dante.delta.precision import TOLERANCES, store
from dafne_dante.delta.signing import public_key_text
from dafne_dante.errors import (
    DeltaFormatError,
    DeltaValueError,
)  # fmt: skip

BASE = make_base()
CONTENT = make_delta()


def decode(content, base=BASE, trusted=TRUSTED):
    return decode_delta(content, base=base, trusted_keys=trusted)


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_what_goes_in_comes_out():
    delta = decode(CONTENT)
    assert delta.public_key == public_key_text(KEY)
    assert delta.manifest.update_id == str(UPDATE_ID)
    assert (delta.manifest.cases, delta.manifest.labels, delta.manifest.dice_before) == (7, LABELS, DICE)
    assert [update.weight for update in delta.updates] == [update.weight for update in make_updates()]
    for found, expected in zip(delta.updates, make_updates(), strict=True):
        shape = tuple(BASE[found.weight].shape)
        assert relative_error(dense_value(found, shape), dense_value(expected, shape)) <= TOLERANCES["I8"]
        if isinstance(expected.value, LowRank):
            assert (found.value.form, found.value.scale) == (expected.value.form, expected.value.scale)


def test_what_is_measured_before_signing_is_what_is_sent():
    sent = apply_updates(BASE, updates_as_sent(make_updates()))
    received = apply_updates(BASE, decode(CONTENT).updates)
    assert all(torch.equal(sent[name], received[name]) for name in BASE)


def test_equal_arguments_make_equal_bytes():
    moment = datetime(2026, 11, 23, 1, 5, 59, tzinfo=timezone.utc)
    first, second = (
        encode_delta(make_updates(), make_facts(), KEY, update_id=UPDATE_ID, created=moment) for _ in range(2)
    )
    assert first == second
    assert decode(first).manifest.created == "2026-11-23T01:05Z"
    ids = {decode(encode_delta(make_updates(), make_facts(), KEY)).manifest.update_id for _ in range(3)}
    assert len(ids) == 3


def test_any_safetensors_reader_reads_it():
    tensors = safetensors.torch.load(CONTENT)
    assert {"conv.bias#d", "conv.weight#a", "conv.weight#b", "slope#d"} <= tensors.keys()
    for name, tensor in tensors.items():
        ours = container.read_container(CONTENT).tensors[name].to_tensor()
        assert torch.equal(tensor.float(), ours)


def test_a_delta_without_updates_is_read():
    assert decode(make_delta(updates=[])).updates == ()


def random_update(form, shape, rank, seed, size):
    if form == "dense":
        return WeightUpdate("w", torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size)
    return WeightUpdate("w", low_rank(form, shape, rank, seed, size=size))


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from([*FORMS, "dense"]),
    shape=st.lists(st.integers(1, 12), min_size=2, max_size=5).map(tuple),
    rank=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    exponent=st.integers(-18, 4),
    precision=st.sampled_from(["auto", "float16"]),
)
def test_every_update_survives_within_its_tolerance(form, shape, rank, seed, exponent, precision):
    if form == "lora-linear":
        shape = shape[:2]
    update = random_update(form, shape, min(rank, *shape[:2]), seed, 10.0**exponent)
    base = {"w": torch.zeros(shape)}
    delta = decode(encode_delta([update], make_facts(base), KEY, precision=precision), base=base)
    expected = dense_value(update, shape).double()
    found = dense_value(delta.updates[0], shape).double()
    dtypes = {entry.dtype for name, entry in delta.manifest.tensors.items() if not name.endswith("#rows")}
    tolerance = next(TOLERANCES[dtype] for dtype in ("I8", "F16", "F32") if dtype in dtypes)
    assert precision == "auto" or "I8" not in dtypes
    assert (
        float((found - expected).norm())
        <= (1e-6 if math.isinf(tolerance) else tolerance * 1.001) * float(expected.norm()) + 1e-44
    )


@pytest.mark.parametrize(
    ("name", "update", "dtypes"),
    [
        ("long rows", WeightUpdate("w", torch.linspace(-1, 1, 8192).reshape(8, 1024)), {"I8"}),
        ("rows of unlike numbers", WeightUpdate("w", torch.eye(8, 1024) * 100 + 1), {"F16"}),
        ("short", WeightUpdate("w", torch.ones(16)), {"F16"}),
        ("below float16", WeightUpdate("w", torch.full((16,), 1e-9)), {"F32"}),
        ("above float16", WeightUpdate("w", torch.full((16,), 1e6)), {"F32"}),
        ("long factors", WeightUpdate("w", low_rank("lora-shared", (64, 64, 3, 3), 8)), {"F16", "I8"}),
        ("zero", WeightUpdate("w", torch.zeros(4, 4)), {"F16"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_smallest_encoding_that_is_good_enough(name, update, dtypes):
    stored = store(update)
    assert {tensor.dtype for part, tensor in stored.items() if not part.endswith("#rows")} == dtypes
    coarse = store(update, precision="float16")
    assert "I8" not in {tensor.dtype for tensor in coarse.values()}
    assert sum(len(tensor.content) for tensor in stored.values()) <= sum(len(t.content) for t in coarse.values())


def test_low_rank_deltas_are_small():
    base = {"w": torch.zeros(128, 128, 3, 3, 3)}
    content = encode_delta([WeightUpdate("w", low_rank("lora-shared", (128, 128, 3, 3, 3), 8))], make_facts(base), KEY)
    assert len(content) < 0.02 * 4 * base["w"].numel()


def test_encoding_refuses_what_it_must_not_write():
    with pytest.raises(DeltaValueError):
        make_delta([WeightUpdate("slope", torch.tensor(math.nan))])
    with pytest.raises(DeltaValueError):
        make_delta(
            [WeightUpdate("linear.weight", LowRank("lora-linear", torch.ones(5, 1), torch.full((1, 6), math.inf), 1.0))]
        )
    with pytest.raises(DeltaFormatError, match="two"):
        make_delta([WeightUpdate("slope", torch.tensor(1.0))] * 2)
    with pytest.raises(DeltaFormatError, match="method"):
        make_delta(method="Fine-tuned on Smith")
    with pytest.raises(DeltaFormatError, match="weight"):
        make_delta([WeightUpdate("a#b", torch.tensor(1.0))])


def test_a_description_tells_everything_and_is_json():
    described = json.loads(json.dumps(describe_delta(CONTENT), allow_nan=False))
    assert described["kind"] == "delta"
    assert described["bytes"] == len(CONTENT)
    assert described["signature_valid"] is True
    assert described["labels"] == list(LABELS)
    rows = {row["weight"]: row for row in described["weights"]}
    assert rows["conv.weight"]["kind"] == "lora-channel"
    assert rows["conv.weight"]["rank"] == 2
    assert rows["slope"]["length"] == pytest.approx(0.125)
    read = container.read_container(CONTENT)
    assert sum(row["bytes"] for row in rows.values()) == sum(len(t.content) for t in read.tensors.values())
    squares = sum(float(dense_value(u, tuple(BASE[u.weight].shape)).norm()) ** 2 for u in decode(CONTENT).updates)
    assert described["length"] == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert "no image" in described["statement"]
    assert "7" in described["statement"]


def test_nothing_but_the_facts_is_in_the_file():
    """All texts of a delta, against a list of what they may be."""
    manifest = json.loads(container.read_container(CONTENT).metadata["manifest"])
    del manifest["tensors"]
    assert {value for value in manifest.values() if isinstance(value, str)} <= {
        "dafne-dante-delta", str(UPDATE_ID), "Leg", str(make_facts().model_id), "1700000000",
        make_facts().base_sha256, "lora", manifest["created"], manifest["software"],
    }  # fmt: skip


def test_stored_bytes_are_little_endian():
    tensor = torch.tensor([1.0, -2.0])
    assert StoredTensor.from_tensor(tensor, "F32").content == np.array([1.0, -2.0], "<f4").tobytes()
    assert StoredTensor.from_tensor(tensor, "F16").content == bytes.fromhex("003c00c0")
    assert StoredTensor.from_tensor(tensor, "I8").content == b"\x01\xfe"


def test_ids_are_of_version_4():
    with pytest.raises(DeltaFormatError, match="update_id"):
        make_delta(update_id=type(uuid4())(int=1))
