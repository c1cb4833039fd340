"""`.model` files: what is read, what is refused, what is written."""

import json
import pathlib
import pickle
import sys
import types
import uuid
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from pickled import INIT, MODEL_ID, PLAN, PLANS, foreign_document, foreign_file, foreign_metadata, small_weights

from dafne_dante.errors import (
    DamagedModelError,
    DanteError,
    StorageError,
    UnsafeModelError,
    UnsupportedModelError,
)
from dafne_dante.models.describe import describe_model
from dafne_dante.models.file import parse_model, read_model, serialise_model, write_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.models.plan import plan_to_net_metadata
from dafne_dante.models.stock_functions import stock_metadata, stock_sources


def make_model(plan=PLAN, weights=None):
    weights = small_weights() if weights is None else weights
    return GlobalModel(MODEL_ID, 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan))


def same_weights(found, expected):
    return list(found) == list(expected) and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.parametrize("architecture", PLANS)
def test_round_trip(architecture, tmp_path):
    model = make_model(PLANS[architecture])
    path = tmp_path / "a.model"
    write_model(model, path)
    read = read_model(path)
    assert (read.model_id, read.timestamp) == (model.model_id, model.timestamp)
    assert replace(read.plan, levels=0) == replace(model.plan, levels=0)
    assert plan_to_net_metadata(read.plan) == plan_to_net_metadata(model.plan)
    assert same_weights(read.weights, model.weights)
    assert read.metadata == model.metadata
    assert read.sources == model.sources
    assert path.read_bytes() == serialise_model(model) == serialise_model(read)


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_values(dtype):
    values = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    weights = {"matrix": values, "scalar": values[1, 2], "empty": values[:0], "column": values[:, :1].contiguous()}
    for content in (serialise_model(make_model(weights=weights)), foreign_file(weights=OrderedDict(weights))):
        assert same_weights(parse_model(content).weights, weights)
    assert same_weights(pickle.loads(serialise_model(make_model(weights=weights)))["weights"], weights)


def test_tensors_in_every_form_that_torch_pickles():
    whole = torch.arange(24, dtype=torch.float32)
    weights = OrderedDict(
        parameter=torch.nn.Parameter(torch.ones(2, 2)),
        view=whole[5:9],
        transposed=whole.reshape(4, 6).t(),
        strided=whole.reshape(2, 3, 4)[:, ::2, 1],
        channels_last=torch.randn(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    )
    weights._metadata = OrderedDict({"": {"version": 1}})  # as nn.Module.state_dict leaves it
    read = parse_model(foreign_file(weights=weights)).weights
    assert same_weights(read, {name: tensor.detach() for name, tensor in weights.items()})
    for tensor in read.values():
        assert tensor.is_contiguous() and not tensor.requires_grad
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(protocol):
    if protocol == 2:  # writes bytes as a call of _codecs.encode, which no Dafne file needs
        with pytest.raises(UnsafeModelError, match=r"_codecs\.encode"):
            parse_model(foreign_file(protocol))
    else:
        assert same_weights(parse_model(foreign_file(protocol)).weights, small_weights())


def test_written_bytes_depend_on_values_alone():
    one = make_model()
    shared, apart = ["left", "right"], [str(["left"][0]), "".join(["ri", "ght"])]
    first = replace(one, metadata={"x": shared, "y": shared})
    second = replace(
        one, weights={n: t.clone() for n, t in one.weights.items()}, metadata={"x": apart, "y": list(apart)}
    )
    assert serialise_model(first) == serialise_model(second)


def test_a_view_is_written_without_its_storage():
    large = torch.zeros(100_000)
    content = serialise_model(make_model(weights={"a": large[10:20]}))
    assert len(content) < 10_000


def test_numpy_numbers_in_a_plan_are_written_as_pythons():
    plan = replace(PLAN, spacing_mm=tuple(np.array([2.0, 1.0, 1.0])), patch=tuple(np.array([16, 32, 32])))
    assert parse_model(serialise_model(make_model(plan))).plan == PLAN


def test_written_order_is_dafnes():
    document = pickle.loads(serialise_model(make_model()))
    assert list(document) == [
        "model_id", "weights", "timestamp_id", "is_delta", "data_dimensionality", "type", "metadata",
        "init_model_function", "apply_model_function", "incremental_learn_function",
    ]  # fmt: skip
    assert type(document["weights"]) is OrderedDict
    assert document["model_id"] == MODEL_ID
    assert document["metadata"]["net_metadata"] == plan_to_net_metadata(PLAN)


SPOILED = {
    "object": {"metadata": {"x": object()}},
    "surrogate": {"metadata": {"x": "\ud800"}},
    "complex": {"weights": {"a": torch.zeros(2, dtype=torch.complex64)}},
}


@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=SPOILED)
def test_a_refused_write_leaves_everything_as_it_was(spoiled, tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(b"before")
    with pytest.raises(UnsupportedModelError):
        write_model(replace(make_model(), **spoiled), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.model"]
    assert path.read_bytes() == b"before"


# --- after stock incremental learning -------------------------------------------------------------------------------


class DillLike(pickle.Pickler):
    """Writes arrays as dill does: through dill._dill._create_array, which the test puts in place."""

    def reducer_override(self, value):
        if isinstance(value, np.ndarray):
            function, arguments, state = value.__reduce__()
            return sys.modules["dill._dill"]._create_array, (function, arguments, state, None)
        return NotImplemented


@pytest.fixture
def as_dill(monkeypatch, tmp_path):
    def _create_array(function, arguments, state, attributes):
        raise AssertionError("the reader called a foreign function")

    _create_array.__module__, _create_array.__qualname__ = "dill._dill", "_create_array"
    module = types.ModuleType("dill._dill")
    module._create_array = _create_array
    monkeypatch.setitem(sys.modules, "dill", types.ModuleType("dill"))
    monkeypatch.setitem(sys.modules, "dill._dill", module)

    def dump(document):
        with (tmp_path / "d.model").open("wb") as stream:
            DillLike(stream, protocol=4).dump(document)
        return (tmp_path / "d.model").read_bytes()

    return dump


def learned_metadata():
    arrays = {name: tensor.numpy() for name, tensor in small_weights().items()}
    return foreign_metadata(
        ewc_data={"fisher": arrays, "params_snapshot": {**arrays, "count": np.array(3)}},
        numbers=[np.float64(1.5), np.int64(-3), np.float32(0.25), np.bool_(True)],
        matrix=np.array([[1, 2], [3, 4]], dtype=np.int16).T,
        big_endian=np.array([1.5, 2.5], dtype=">f8"),
        empty=np.zeros((0, 3)),
        too_large=np.zeros(5000),
        hashes={"1700000000": "ab" * 32},
        latest_timestamp="1700000000",
    )


@pytest.mark.parametrize("numpy_name", [b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"])
def test_files_after_incremental_learning(as_dill, numpy_name):
    content = as_dill(foreign_document(metadata=learned_metadata()))
    content = content.replace(b"\x8c\x16numpy._core.multiarray", numpy_name)
    assert b"_create_array" in content and numpy_name in content
    check_learned(parse_model(content))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_as_plain_pickle_writes_them(protocol):
    check_learned(parse_model(foreign_file(protocol, metadata=learned_metadata())))


def check_learned(read):
    assert same_weights(read.weights, small_weights())
    assert read.metadata == {
        "model_name": "unet",
        "ewc_data": None,
        "numbers": [1.5, -3, 0.25, True],
        "matrix": [[1, 3], [2, 4]],
        "big_endian": [1.5, 2.5],
        "empty": [],
        "hashes": {"1700000000": "ab" * 32},
        "latest_timestamp": "1700000000",
    }
    assert all(type(number) in (float, int, bool) for number in read.metadata["numbers"])
    assert read.plan == PLAN


LOCAL = [
    "/home/somebody/base.model",
    "~/somebody.model",
    "C:\\somebody\\b.model",
    "\\\\somebody\\share",
    "file:///somebody",
]


@pytest.mark.parametrize("path", [*LOCAL, pathlib.PurePosixPath("/somebody/x"), pathlib.PureWindowsPath("c:/somebody")])
def test_paths_of_the_makers_disk_are_forgotten(path):
    net_metadata = {**plan_to_net_metadata(PLAN), "lora_config": {"base": path, "r": 4}, "seen": [path, "T1"]}
    metadata = foreign_metadata(
        net_metadata=net_metadata, train_metadata={"pretrained_model_path": path, "epochs": 3, "note": "a/b"}
    )
    content = foreign_file(metadata=metadata)
    assert b"somebody" in content
    read = parse_model(content)
    assert read.metadata["train_metadata"] == {"epochs": 3, "note": "a/b"}
    assert read.plan.extra == {"lora_config": {"r": 4}, "seen": ["T1"]}
    assert b"somebody" not in serialise_model(read)


def test_sources_are_carried_as_text():
    text = "def apply(model, data):\n    raise SystemExit\n"
    read = parse_model(foreign_file(apply_model_function=text, weight_copy_function="not even Python"))
    assert read.sources == {
        "init_model_function": INIT, "apply_model_function": text, "weight_copy_function": "not even Python",
    }  # fmt: skip
    assert parse_model(serialise_model(read)).sources == read.sources


# --- refusals -------------------------------------------------------------------------------------------------------

UNSUPPORTED = {
    "keras": ({"type": "DynamicDLModel", "weights": [np.zeros((3, 3, 1, 8), np.float32), np.zeros(8)]}, "Keras"),
    "ensemble": ({"type": "DynamicEnsembleModel"}, "DynamicEnsembleModel"),
    "flare": ({"type": "DynamicTorchFLAREModel"}, "DynamicTorchFLAREModel"),
    "dummy": ({"type": "DynamicDummyModel"}, "DynamicDummyModel"),
    "unknown type": ({"type": "Surprise"}, "unknown type"),
    "type is a list": ({"type": ["DynamicTorchModel"]}, "unknown type"),
    "difference": ({"is_delta": True}, "difference"),
    "no metadata": ({"metadata": None}, "net_metadata"),
    "no plan": ({"metadata": {"model_name": "old"}}, "net_metadata"),
    "plan is text": ({"metadata": {"net_metadata": "unet"}}, "net_metadata"),
    "plan is empty": ({"metadata": {"net_metadata": {}}}, "net_metadata"),
    "function is a number": ({"apply_model_function": 3}, "apply_model_function"),
}


@pytest.mark.parametrize(("changes", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported(changes, message):
    with pytest.raises(UnsupportedModelError, match=message):
        parse_model(foreign_file(**changes))


def test_keras_without_a_type_is_named_too():
    document = foreign_document(weights=[np.zeros(3)])
    del document["type"]
    with pytest.raises(UnsupportedModelError, match="Keras"):
        parse_model(pickle.dumps(document))


def test_what_torch_save_writes_is_named(tmp_path):
    torch.save(small_weights(), tmp_path / "a.pt")
    with pytest.raises(UnsupportedModelError, match="zip archive"):
        read_model(tmp_path / "a.pt")


def a_list_in_itself():
    inner = [1]
    inner.append(inner)
    return inner


DAMAGED = {
    "not a number": {"weights": {"a": torch.tensor([1.0, float("nan")])}},
    "infinite": {"weights": {"a": torch.tensor([float("-inf")], dtype=torch.bfloat16)}},
    "no weights": {"weights": {}},
    "weights in a list": {"weights": [torch.zeros(3)]},
    "weights are arrays": {"weights": {"a": np.zeros(3)}},
    "nameless weight": {"weights": {1: torch.zeros(3)}},
    "endless name": {"weights": {"a" * 1000: torch.zeros(3)}},
    "model_id is text": {"model_id": str(MODEL_ID)},
    "timestamp is text": {"timestamp_id": "1700000000"},
    "timestamp is negative": {"timestamp_id": -1},
    "endless source": {"init_model_function": "#" * 300_000},
    "too many sources": {f"{letter}_{other}_function": "" for letter in "abcdef" for other in "abcdef"},
    "metadata in itself": {"metadata": {"net_metadata": plan_to_net_metadata(PLAN), "x": a_list_in_itself()}},
}


@pytest.mark.parametrize("changes", DAMAGED.values(), ids=DAMAGED)
def test_damaged(changes):
    with pytest.raises(DamagedModelError):
        parse_model(foreign_file(**changes))


FILES = {
    "empty": b"", "text": b"hello\n", "one list": pickle.dumps([1]),
    "two pickles": foreign_file() + b"N.", "html": b"<!DOCTYPE html><html></html>",
}  # fmt: skip


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_not_a_model(content):
    with pytest.raises(DamagedModelError):
        parse_model(content)


def test_every_truncation_is_noticed():
    content = foreign_file()
    for length in range(len(content)):
        with pytest.raises(DamagedModelError):
            parse_model(content[:length])


@pytest.mark.parametrize("writer", ["dafne", "ours"])
@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF])
def test_changed_bytes_give_our_error_or_a_model(writer, change):
    content = foreign_file(metadata=foreign_metadata(array=np.ones(2), path=pathlib.PurePosixPath("/x")))
    content = content if writer == "dafne" else serialise_model(make_model())
    outcomes = set()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= change
        try:
            read = parse_model(bytes(changed))
        except DanteError as error:
            outcomes.add(type(error).__name__)
        else:
            outcomes.add("model")
            assert describe_model(parse_model(serialise_model(read))) == describe_model(read)
    assert outcomes >= {"DamagedModelError", "UnsafeModelError"}


def test_files_have_limits(tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(foreign_file())
    with pytest.raises(StorageError, match="at most 100 bytes"):
        read_model(path, max_bytes=100)
    with pytest.raises(StorageError, match=r"b\.model"):
        read_model(tmp_path / "b.model")


# --- descriptions ---------------------------------------------------------------------------------------------------


def test_description():
    model = make_model()
    found = describe_model(model)
    assert json.loads(json.dumps(found)) == found
    assert found["functions"]["incremental_learn_function"]["lines"] == 21
    del found["functions"]
    assert found == {
        "kind": "model", "model_id": str(MODEL_ID), "timestamp": 1_700_000_000, "architecture": "unet3d",
        "labels": ["left", "right"], "dimensions": 3, "patch": [16, 32, 32], "spacing_mm": [2.0, 1.0, 1.0],
        "parameters": 9, "tensors": 2, "weight_bytes": 36, "weights_sha256": digest_weights(model.weights),
        "metadata_keys": sorted(stock_metadata(PLAN)),
    }  # fmt: skip


def test_models_of_ours_are_new_families():
    other = replace(make_model(), model_id=uuid.UUID(int=7))
    assert parse_model(serialise_model(other)).model_id == uuid.UUID(int=7)
