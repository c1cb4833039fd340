"""An interrupted training goes on as if nothing had happened, and takes up no file that is not its own."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from phantoms import make_case, tiny_plan

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import method_named
from dafne_dante.errors import StorageError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import digest_weights
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.checkpoint import Snapshot, read_checkpoint, write_checkpoint
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

THIN = replace(tiny_plan(), patch=(8, 16, 16), median_shape=(8, 24, 20))
DYNAMIC = replace(
    THIN, architecture="dynunet", levels=0,
    kernels=((3, 3, 3),) * 3, strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
)  # fmt: skip
FLAT = replace(THIN, architecture="unet2d", patch=(32, 32), spacing_mm=(2.0, 2.0), median_shape=(24, 20))
EVERYTHING = Strengths(1.0, 1.0, 1.0, mirror=True)
FAST = Recipe(epochs=4, steps_per_epoch=3, warmup_steps=2, learning_rate=1e-2, augmentation=EVERYTHING)
SETUPS = {
    "full": (THIN, "full", FAST),
    "average, poly": (THIN, "full", replace(FAST, average_decay=0.9, schedule="poly")),
    "2D": (FLAT, "full", replace(FAST, batch_size=3)),
    "gradual unfreezing": (THIN, "gradual-unfreezing", FAST),
    "gradual unfreezing, pulled": (THIN, "gradual-unfreezing", FAST),
    "LoRA": (THIN, "lora", FAST),
    "deep supervision": (DYNAMIC, "full", replace(FAST, deep_supervision=True, steps_per_epoch=1)),
}
OPTIONS = {"gradual unfreezing, pulled": {"pull_to_start": 20.0}}


class StoppedError(Exception):
    """What a test stops a training with."""


def train(name, *, checkpoint=None, stop_after=None, cases=(1, 2, 3), recipe=None):
    """Digest of the weights and rows of a run; StoppedError after so many epochs."""
    plan, method, own = SETUPS[name]
    torch.manual_seed(5)
    network = build_network(plan)
    training, held_out = (prepare_cases([make_case(seed) for seed in seeds], plan) for seeds in (cases, (9,)))

    def on_epoch(record):
        if record.epoch == stop_after:
            raise StoppedError

    result = fit(
        network, plan, method_named(method, **OPTIONS.get(name, {})), training, held_out,
        recipe=recipe or own, on_epoch=on_epoch, checkpoint=checkpoint,
    )  # fmt: skip
    rows = [replace(record, seconds=0.0, train_seconds=0.0) for record in result.history]
    return digest_weights(plain_weights(network)), rows, result.best_epoch


@pytest.mark.parametrize("name", SETUPS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(name, tmp_path):
    whole = train(name)
    for epoch in (1, 3):
        torch.rand(7)  # whoever goes on has drawn other numbers meanwhile
        with pytest.raises(StoppedError):
            train(name, checkpoint=tmp_path / "checkpoint", stop_after=epoch)
    assert train(name, checkpoint=tmp_path / "checkpoint") == whole
    assert train(name, checkpoint=tmp_path / "checkpoint") == whole, "nothing is left to do"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
import torch
torch.set_num_threads(1)
import test_checkpoint
print(test_checkpoint.train(sys.argv[3], checkpoint=Path(sys.argv[4])), flush=True)
"""


def child(name, checkpoint):
    tests = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tests), str(tests.parent), name, str(checkpoint)], stdout=subprocess.PIPE
    )


def test_a_killed_process_changes_no_bit(tmp_path):
    """SIGKILL at a random moment after the first checkpoint: in a step, in validation or while writing."""
    name, checkpoint = "average, poly", tmp_path / "checkpoint"
    moment = np.random.default_rng().uniform(0, 1.0)
    with child(name, checkpoint) as process:
        limit = time.monotonic() + 60
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(moment * 0.5)
        process.send_signal(signal.SIGKILL)
    with child(name, checkpoint) as process:
        resumed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert resumed.decode().strip() == str(train(name)), f"killed {moment * 0.5:.3f} s after the first epoch"
    finally:
        torch.set_num_threads(threads)


def test_another_training_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    with pytest.raises(StoppedError):
        train("full", checkpoint=path, stop_after=1)
    for other in (
        {"cases": (1, 2, 4)},
        {"recipe": replace(FAST, epochs=5)},
        {"recipe": replace(FAST, seed=1)},
        {"name": "LoRA"},
        {"name": "2D"},
    ):
        with pytest.raises(TrainingError, match="of this training"):
            train(**{"name": "full", **other}, checkpoint=path)


IDENTITY = "0" * 64


def write(path, **changes):
    write_checkpoint(path, Snapshot({"a": torch.arange(6.0)}, {"epoch": 1}), IDENTITY)
    tensors = safetensors.torch.load(path.read_bytes())
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    path.write_bytes(safetensors.torch.save(tensors, {**metadata, **changes}))


FAULTS = {
    "empty": (lambda path: path.write_bytes(b""), "version 1"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-4]), "be whole"),
    "text": (lambda path: path.write_bytes(b"nothing of ours" * 9), "version 1"),
    "header of terabytes": (lambda path: path.write_bytes(b"\xff" * 7 + b"\x00" + b"{}"), "version 1"),
    "deep header": (lambda path: path.write_bytes((9000).to_bytes(8, "little") + b"[" * 9000), "version 1"),
    "a bit": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"), "digest differs"),
    "another state": (lambda path: write(path, state=json.dumps({"epoch": 2})), "digest differs"),
    "state is no JSON": (lambda path: write(path, state="{"), "be whole"),
    "another version": (lambda path: write(path, version="2"), "version 1"),
    "another format": (lambda path: write(path, format="x"), "version 1"),
    "another identity": (lambda path: write(path, identity="1" * 64), "of this training"),
    "a plain safetensors file": (
        lambda path: path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)})), "version 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_refused(fault, tmp_path):
    path = tmp_path / "checkpoint"
    write(path)
    assert read_checkpoint(path, IDENTITY, max_bytes=10_000).state == {"epoch": 1}
    harm, told = FAULTS[fault]
    harm(path)
    with pytest.raises(TrainingError, match=told):
        read_checkpoint(path, IDENTITY, max_bytes=10_000)


def test_a_checkpoint_is_bounded(tmp_path):
    write(tmp_path / "checkpoint")
    with pytest.raises(StorageError, match="at most 100 bytes"):
        read_checkpoint(tmp_path / "checkpoint", IDENTITY, max_bytes=100)


def forged(snapshot, **changes):
    return Snapshot(
        {
            name: value
            for name, value in {**snapshot.tensors, **changes.get("tensors", {})}.items()
            if value is not None
        },
        {**snapshot.state, **changes.get("state", {})},
    )


FORGERIES = {
    "no weights": {"tensors": {"network/unet_model.model.0.conv.unit0.conv.weight": None}},
    "another shape": {"tensors": {"network/unet_model.model.0.conv.unit0.conv.bias": torch.zeros(3)}},
    "no best": {"state": {"best": None}},
    "another queue": {"state": {"sampler": {"queue": [99], "random": {}}}},
    "another generator": {"tensors": {"chance/cpu": torch.zeros(3, dtype=torch.uint8)}},
    "a strange row": {"state": {"history": [{"epoch": 1}]}},
    "history of something else": {"state": {"history": 3}},
    "others move": {"state": {"moving": []}},
    "an optimiser of others": {"tensors": {"optimizer/exp_avg/nobody": torch.zeros(2)}},
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_whole_but_does_not_fit_is_refused(name, tmp_path, monkeypatch):
    """Even with a right digest nothing but our error comes out."""
    path = tmp_path / "checkpoint"
    with pytest.raises(StoppedError):
        train("full", checkpoint=path, stop_after=1)
    with safetensors.safe_open(path, "pt") as file:
        identity = file.metadata()["identity"]
    snapshot = read_checkpoint(path, identity, max_bytes=1 << 30)
    write_checkpoint(path, forged(snapshot, **FORGERIES[name]), identity)
    with pytest.raises(TrainingError, match="fits this training"):
        train("full", checkpoint=path)


def test_a_checkpoint_names_no_case(tmp_path):
    with pytest.raises(StoppedError):
        train("full", checkpoint=tmp_path / "checkpoint", stop_after=1)
    assert b"case1" not in (tmp_path / "checkpoint").read_bytes()
