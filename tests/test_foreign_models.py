"""Models with code of their own: refused, or run where the site trusts the file, and unable to do harm there."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from pickled import foreign_file

from dafne_dante.errors import DamagedModelError, ForeignCodeError, UnsupportedModelError
from dafne_dante.models.file import parse_model
from dafne_dante.models.foreign import process
from dafne_dante.models.foreign.answer import read_answer
from dafne_dante.models.foreign.frame import FrameError, pack_frame, unpack_frame
from dafne_dante.models.foreign.isolation import Limits, missing_isolation
from dafne_dante.models.foreign.model import parse_foreign_model, read_foreign_model
from dafne_dante.models.foreign.predict import predict_foreign

LIMITS = Limits(seconds=60, memory_bytes=8 * 1024**3, threads=1)
SPACING = (1.5, 1.0, 3.0)
BUILD = """\
def init_model():
    import torch
    return torch.nn.Conv3d(1, 2, 3, padding=1)
"""
APPLY = """\
def apply_model(model_object, data):
    import torch
    assert list(data["resolution"]) == [1.5, 1.0, 3.0] and not model_object.model.training
    scores = model_object.model(torch.from_numpy(data["image"])[None, None])[0]
    return {"left": (scores[0] > 0).numpy(), "right": (scores[1] > 0).numpy()}
"""
HERE = Path(__file__).parent
isolated = pytest.mark.skipif(bool(missing_isolation()), reason="this system cannot isolate a process")


def network(dimensions=3):
    torch.manual_seed(3)
    kind = torch.nn.Conv3d if dimensions == 3 else torch.nn.Conv2d
    return kind(1, 2, 3, padding=1)


def content(**changes):
    own = {
        "metadata": {"model_name": "own"},
        "weights": OrderedDict(network().state_dict()),
        "init_model_function": BUILD,
        "apply_model_function": APPLY,
    }
    return foreign_file(**{**own, **changes})


def image(shape=(1, 10, 9, 5)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def predict(file, *, limits=LIMITS, data=None):
    model = parse_foreign_model(file)
    return predict_foreign(model, image() if data is None else data, SPACING, run_model_code=[model.sha256],
                           limits=limits)  # fmt: skip


def hostile(body):
    """A model whose code does `body` when it is applied."""
    return content(apply_model_function=f"def apply_model(model_object, data):\n{body}\n")


# --- consent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["DynamicTorchModel", "DynamicTorchFLAREModel", "DynamicEnsembleModel"])
def test_a_refusal_tells_what_is_missing_and_how_a_site_would_trust_the_file(kind):
    file = content(type=kind)
    digest = parse_foreign_model(file).sha256
    with pytest.raises(UnsupportedModelError) as caught:
        parse_model(file)
    told = str(caught.value)
    assert f'[trust] run_model_code = ["{digest}"]' in told
    assert "init_model_function (3 lines) and apply_model_function (5 lines)" in told
    assert ("net_metadata" if kind == "DynamicTorchModel" else kind) in told
    with pytest.raises(UnsupportedModelError, match="carries no code"):
        parse_model(content(type=kind, apply_model_function=None))


def test_an_old_file_without_any_metadata_is_told_the_same():
    file = content(metadata=None)
    with pytest.raises(UnsupportedModelError, match=r"net_metadata.*run_model_code"):
        parse_model(file)
    assert parse_foreign_model(file).metadata == {}
    with pytest.raises(DamagedModelError, match="metadata as a dictionary"):
        parse_foreign_model(content(metadata="text"))


@pytest.mark.parametrize("trusted", [[], ["0" * 64], ["*"], [""]], ids=repr)
def test_nothing_is_started_for_a_file_that_is_not_trusted(trusted, monkeypatch):
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_a, **_k: pytest.fail("a process was started"))
    model = parse_foreign_model(content())
    for almost in (trusted, [model.sha256[:-1]], [model.sha256.upper()], [model.sha256 + " "]):
        with pytest.raises(UnsupportedModelError, match=f"SHA-256 is {model.sha256}"):
            predict_foreign(model, image(), SPACING, run_model_code=almost)


def test_the_digest_is_of_the_bytes_that_were_read(tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(content())
    listed = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    model = read_foreign_model(path)
    path.write_bytes(b"another file by now")
    assert model.sha256 == listed
    assert model.sources["apply_model_function"] == APPLY
    changed = content().replace(b"left", b"Left")
    assert parse_foreign_model(changed).sha256 != listed


REFUSED = {
    "Keras": ({"type": "DynamicDLModel"}, UnsupportedModelError, "another"),
    "difference": ({"is_delta": True}, UnsupportedModelError, "another"),
    "no code": ({"init_model_function": None}, UnsupportedModelError, "functions"),
    "four dimensions": ({"data_dimensionality": 4}, UnsupportedModelError, "data_dimensionality"),
    "no networks": ({"weights": []}, UnsupportedModelError, "networks"),
    "not a number": ({"weights": {"a": torch.tensor([float("nan")])}}, DamagedModelError, "finite"),
}


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_run_is_refused_while_reading(changes, error, message):
    with pytest.raises(error, match=message):
        parse_foreign_model(content(**changes))


def test_a_system_that_cannot_isolate_runs_nothing(monkeypatch):
    monkeypatch.setattr("dafne_dante.models.foreign.predict.missing_isolation", lambda: "Linux, found win32")
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_a, **_k: pytest.fail("a process was started"))
    with pytest.raises(UnsupportedModelError, match="Linux, found win32"):
        predict(content())


# --- prediction -----------------------------------------------------------------------------------------------------


@isolated
def test_masks_are_those_of_the_network():
    masks = predict(content())
    with torch.no_grad():
        scores = network()(torch.from_numpy(image())[None])[0]
    assert list(masks) == ["left", "right"]
    for found, expected in zip(masks.values(), scores > 0, strict=True):
        assert found.dtype == bool and 0 < found.sum() < found.size
        assert np.array_equal(found, expected.numpy())


ENSEMBLE_OF_SLICES = {
    "type": "DynamicEnsembleModel",
    "data_dimensionality": 2,
    "weights": [OrderedDict(network(2).state_dict()), {k: -v for k, v in network(2).state_dict().items()}],
    "init_model_function": BUILD.replace("Conv3d(1, 2, 3, padding=1)", "ModuleList([torch.nn.Conv2d(1, 2, 3, padding=1)"
                                         " for _ in range(2)])").replace("return ", "return list(") + "    )\n",
    "apply_model_function": """\
def apply_model(model_object, data):
    import torch
    image = torch.from_numpy(data["image2"])[None, None]
    assert data["resolution"].shape == (2,) and data["image"].shape == data["image2"].shape
    first, second = (one(image)[0, 0] for one in model_object.model)
    found = {"both": ((first + second).abs() < 1e-6).numpy(), "first": (first > 0).numpy()}
    return found if data["image"].max() < 90 else {"first": found["first"]}
""",
}  # fmt: skip


@isolated
def test_ensembles_slices_and_contrasts():
    data = image((2, 8, 7, 3))
    data[0, 0, 0, 1] = 99  # the slice whose answer lacks a label
    masks = predict(content(**ENSEMBLE_OF_SLICES), data=data)
    assert masks["both"].all(axis=(0, 1)).tolist() == [True, False, True]
    with torch.no_grad():
        expected = network(2)(torch.from_numpy(data[1]).permute(2, 0, 1)[:, None])[:, 0] > 0
    assert np.array_equal(masks["first"], expected.permute(1, 2, 0).numpy())


# --- harm -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def facts(tmp_path):
    """Things that hostile code would like to reach, each of them reachable without isolation."""
    for name in ("settings.toml", "victim", "to_rename", "to_remove"):
        (tmp_path / name).write_text("api_key = 'secret'")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "s"))
        local.listen()
        yield {"folder": str(tmp_path), "port": server.getsockname()[1], "unix": str(tmp_path / "s"),
               "pid": os.getpid(), "home": str(Path.home())}  # fmt: skip


@isolated
def test_code_of_a_model_can_do_no_harm(facts, tmp_path):
    text = f"FACTS = {facts!r}\n" + (HERE / "foreign_deeds.py").read_text()
    before = {path.name: (path.stat().st_mtime, path.stat().st_mode) for path in tmp_path.iterdir()}
    outcomes = dict(name.split("=") for name in predict(content(apply_model_function=text)))
    assert outcomes.pop("do_make_temporary_file") == "FileNotFoundError"  # what Python says of folders it cannot use
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "PermissionError"} == {}
    assert {path.name: (path.stat().st_mtime, path.stat().st_mode) for path in tmp_path.iterdir()} == before
    free = json.loads(subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout)
    assert set(free) == set(outcomes) | {"do_make_temporary_file"} and len(free) > 35
    assert {name: outcome for name, outcome in free.items() if outcome != "done"} == {}  # each is a real deed


@isolated
def test_the_child_sees_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_API_KEY", "secret")
    body = """\
    import os, sys
    found = {**os.environ, "arguments": " ".join(sys.argv[1:]), "folder": os.getcwd()}
    descriptors = []
    for number in range(256):
        try:
            os.fstat(number)
            descriptors.append(str(number))
        except OSError:
            pass
    found["descriptors"] = " ".join(descriptors)
    sys.stdout.write("nothing that is printed gets anywhere" * 100_000)
    sys.stderr.write("neither here" * 100_000)
    return {f"{name}={value}": data["image"] for name, value in found.items()}"""
    seen = dict(one.split("=", 1) for one in predict(hostile(body)))
    assert seen == {
        "LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1", "arguments": "", "folder": "/",
        "descriptors": "0 1 2 3",
    } | {name: value for name, value in seen.items() if name in {"LC_CTYPE", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK"}
         or name.startswith("TORCHINDUCTOR")}  # fmt: skip


HARMFUL = {
    "loops": ("    while True: pass", {"seconds": 4}, "within 4 s"),
    "eats memory": ("    return {'a': bytearray(1 << 40)}", {}, "failed with MemoryError"),
    "eats memory slowly": (
        "    import torch\n    kept = []\n    while True: kept.append(torch.ones(1 << 24))",
        {"memory_bytes": 3 * 1024**3}, "RuntimeError|MemoryError",
    ),
    "floods the answer": (
        "    import os\n    while True: os.write(3, bytes(1 << 16))",
        {"max_answer_bytes": 1 << 20}, "at most 1048576 bytes",
    ),
    "ends": ("    import os; os._exit(7)", {}, "ended with 7"),
    "crashes": ("    import ctypes; ctypes.string_at(0)", {}, "SIGSEGV"),
    "raises with a secret": ("    raise SystemExit('/home/somebody')", {}, "failed with SystemExit"),
    "needs what is not there": ("    import dafne_nowhere.deep", {}, "the module dafne_nowhere,"),
}  # fmt: skip


@isolated
@pytest.mark.parametrize(("body", "limits", "message"), HARMFUL.values(), ids=HARMFUL)
def test_harmful_code_is_told_and_ended(body, limits, message):
    began, before = time.monotonic(), set(psutil.Process().children())
    with pytest.raises(ForeignCodeError, match=message) as caught:
        predict(hostile(body), limits=replace(LIMITS, **limits))
    assert time.monotonic() - began < 30
    assert "somebody" not in str(caught.value)
    assert set(psutil.Process().children()) <= before, "nothing of it is left, no zombie either"


def frame(message, **tensors):
    return pack_frame(message, tensors)


MASK = torch.zeros(2, 3, 4, dtype=torch.bool)
STRANGE = {
    "nothing": b"",
    "text": b"hello, these are no masks",
    "a pickle": foreign_file(),
    "endless message": (1 << 62).to_bytes(8, "little") + b"{}",
    "nested message": (200_000).to_bytes(8, "little") + b"[" * 200_000 + b"\x02" + bytes(7) + b"{}",
    "a list": (2).to_bytes(8, "little") + b"[]" + pack_frame({}, {})[10:],
    "no safetensors": frame({"labels": ["a"]})[:-3],
    "claims of safetensors": (2).to_bytes(8, "little") + b"{}" + (1 << 40).to_bytes(8, "little") + b"{}",
    "no labels": frame({}),
    "labels without masks": frame({"labels": ["a"]}),
    "masks without labels": frame({"labels": []}, **{"0": MASK}),
    "a label twice": frame({"labels": ["a", "a"]}, **{"0": MASK, "1": MASK.clone()}),
    "a number": frame({"labels": [1]}, **{"0": MASK}),
    "control characters": frame({"labels": ["a\x1b[2J"]}, **{"0": MASK}),
    "endless name": frame({"labels": ["a" * 201]}, **{"0": MASK}),
    "no name": frame({"labels": [""]}, **{"0": MASK}),
    "another name": frame({"labels": ["a"]}, **{"1": MASK}),
    "another shape": frame({"labels": ["a"]}, **{"0": MASK[:1].contiguous()}),
    "numbers": frame({"labels": ["a"]}, **{"0": MASK.float()}),
    "many labels": frame({"labels": [str(n) for n in range(255)]}, **{str(n): MASK.clone() for n in range(255)}),
}  # fmt: skip


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_an_answer_without_masks_is_refused(answer):
    with pytest.raises(ForeignCodeError) as caught:
        read_answer(answer, (2, 3, 4))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_a_good_answer_is_taken_and_bytes_that_are_no_truth_values_become_some():
    good = frame({"labels": ["a"]}, **{"0": MASK})
    assert read_answer(good, (2, 3, 4))["a"].sum() == 0
    found = read_answer(good[:-1] + b"\x07", (2, 3, 4))["a"]
    assert found.view(np.uint8).max() == 1 and found.sum() == 1


@pytest.mark.parametrize("forged", ["\x1b[2J" * 50, 7, None, ["x"]], ids=repr)
def test_forged_failures_are_told_without_control_characters(forged):
    for message in ({"stage": forged, "kind": forged, "missing": forged}, {"stage": "x", "isolation": forged}):
        with pytest.raises((ForeignCodeError, UnsupportedModelError)) as caught:
            read_answer(frame(message), (1, 1, 1))
        assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_frame_comes_back_and_bounds_its_message():
    message, tensors = unpack_frame(frame({"a": [1, "é"]}, x=MASK), max_message_bytes=100)
    assert message == {"a": [1, "é"]} and torch.equal(tensors["x"], MASK)
    with pytest.raises(FrameError):
        unpack_frame(frame({"a": "b" * 100}), max_message_bytes=100)
