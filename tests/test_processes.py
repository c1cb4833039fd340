"""One training in several processes: the parts of a batch teach what the whole teaches, and one process writes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import pytest
import torch
from joined import (
    begin_training,
    quiet_variables,
    run_as_ranked,
    run_command,
    start_jointly,
    train_and_tell,
    train_jointly,
    wait_for,
)
from limbs import EVERY_FIFTH, limb_plan, make_limb, partly
from sites import write_cases

from dafne_dante.errors import SettingsError, TrainingError
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.plugin.unfinished import has_checkpoint
from dafne_dante.training.augmentation import Strengths, apply_changes, draw_changes
from dafne_dante.training.deep_supervision import supervised_loss
from dafne_dante.training.losses import BatchShare
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.processes import ALONE, Processes, join_processes, started_processes
from dafne_dante.training.sampling import PatchSampler

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
NEAR = 1e-4
FILES = ["history.csv", "learning_curve.png", "model.model"]


@pytest.mark.parametrize(("samples", "count"), [(2, 2), (5, 2), (7, 4), (4, 1)])
def test_the_parts_of_a_batch_are_the_batch(samples, count):
    parts = [list(range(samples))[Processes(rank, count).part(samples)] for rank in range(count)]
    assert [sample for part in parts for sample in part] == list(range(samples))
    assert all(parts)


def test_a_batch_with_fewer_patches_than_processes_is_refused():
    with pytest.raises(TrainingError, match="found 2 patches for 3 processes; start fewer"):
        Processes(0, 3).part(2)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, ALONE),
        ({"WORLD_SIZE": "4"}, ALONE),
        ({"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}, ALONE),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Processes(3, 4, 1, 2)),
    ],
)
def test_torchrun_says_who_is_there(told, expected):
    assert started_processes(told) == expected


@pytest.mark.parametrize(
    "told",
    [
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "99999999999"},
    ],
)
def test_variables_that_make_no_sense_are_refused(told):
    with pytest.raises(SettingsError, match="as torchrun sets them"):
        started_processes(told)


def test_alone_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with join_processes() as processes:
        assert not torch.distributed.is_initialized()
    network = torch.nn.Linear(1, 1)
    assert processes.spread(network) is network
    assert processes.gather({"a": 1}) == [{"a": 1}]
    assert processes.part(4) == slice(0, 4)


def test_averaged_gradients_of_unlike_parts_are_those_of_the_whole_batch():
    """Three samples with 100 %, a quarter and nothing known, in parts of one and two; also at lower resolutions."""
    source = torch.Generator().manual_seed(3)
    target = torch.randint(0, 3, (3, 8, 8), generator=source)
    known = torch.ones(3, 8, 8, dtype=torch.bool)
    known[1, 2:], known[2] = False, False
    outputs = [torch.randn(3, 3, size, size, generator=source, requires_grad=True) for size in (8, 4)]
    whole = supervised_loss(outputs, target, known)
    whole.backward()
    expected = [output.grad.clone() for output in outputs]
    counts = [known.sum(), known[:, ::2, ::2].sum()]  # no row of what is known begins or ends within a coarse voxel
    losses = []
    for part in (slice(0, 1), slice(1, 3)):
        own = known[part]
        totals = iter(counts)
        share = BatchShare(2, len(own) * 2 / 3, lambda _own, totals=totals: next(totals).float())
        losses.append(supervised_loss([output[part] for output in outputs], target[part], own, share))
    for output in outputs:
        output.grad = None
    (sum(losses) / 2).backward()
    torch.testing.assert_close(sum(losses) / 2, whole)
    for output, gradient in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output.grad, gradient)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_part_is_drawn_and_changed_as_in_the_whole_batch(dimensions):
    plan = limb_plan(dimensions)
    cases = prepare_cases([make_limb(1), partly(make_limb(2), EVERY_FIFTH)], plan)
    whole, shared = (PatchSampler(cases, plan, seed=3) for _ in range(2))
    sources = [torch.Generator().manual_seed(4) for _ in range(2)]
    strengths = Strengths(1.0, 1.0, 1.0, mirror=True)
    for part in (slice(0, 2), slice(2, 5), slice(0, 2)):
        draws = [draw_changes(5, plan, strengths, source, mirror_axes=(0,)) for source in sources]
        expected = apply_changes(whole.draw(5), draws[0])
        found = apply_changes(shared.draw(5, part), draws[1].part(part.start, part.stop))
        for field in fields(expected):
            torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name)[part])


def test_two_processes_learn_what_one_learns_from_the_joined_batch(tmp_path):
    beginnings = [begin_training(architecture) for architecture in ("unet2d", "dynunet")]
    started = start_jointly(train_and_tell, tmp_path, beginnings, told=tmp_path)
    alone = [train_jointly(plan, weights) for plan, weights in beginnings]
    assert wait_for(started) == [0, 0], (tmp_path / "0.err").read_text()
    for (plan, _), (expected, weights) in zip(beginnings, alone, strict=True):
        first, second = (json.loads((tmp_path / f"{plan.architecture}-{rank}.json").read_text()) for rank in (0, 1))
        assert first == second, "the same decisions and, bit for bit, the same weights"
        assert first["best"] == expected["best"]
        for found, row in zip(first["rows"], expected["rows"], strict=True):
            assert found == pytest.approx(row, abs=NEAR)
        assert first["dice"] == pytest.approx(expected["dice"], abs=NEAR)
        joined = torch.load(tmp_path / f"{plan.architecture}-0.pt")
        for name, tensor in weights.items():
            # Where a gradient is nothing but rounding, AdamW may go either way: at most its rate, a step.
            torch.testing.assert_close(joined[name], tensor, atol=2 * 4 * 3e-4, rtol=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("data"), (41, 42, 43, 44))


def options(out, data):
    return ("train", "--data", data, "--out", out, "--epochs", "2", "--architecture", "unet2d", "--memory-gb", "0.3")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def told_by(folder):
    """What each process said."""
    return [(folder / f"{rank}.out").read_text() + (folder / f"{rank}.err").read_text() for rank in (0, 1)]


def weights(folder):
    return digest_weights(read_model(folder / "model.model").weights)


def test_the_command_that_torchrun_starts_writes_and_talks_once(data, tmp_path):
    done = subprocess.run(
        [*TORCHRUN, "-m", "dafne_dante", *map(str, options(tmp_path / "out", data)), "--folds", "2", "--json"],
        env={**os.environ, **quiet_variables(), "DAFNE_DANTE_CONFIG": str(tmp_path / "configuration")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["why"]["processes"] == "2 processes share each batch, which has 2 patches for that"
    assert len(told["folds"]["folds"]) == 2
    assert done.stderr.count("took 4 cases") == done.stderr.count("fold 2 of 2") == 1
    assert names(tmp_path / "out") == sorted([*FILES, "folds.json"])
    assert names(tmp_path / "configuration") == ["hardware.json"]


def test_a_process_that_dies_ends_the_other_and_the_rest_is_learnt_later(data, tmp_path):
    def start(out, *more):
        return start_jointly(run_command, tmp_path, *options(out, data), *more, told=tmp_path / "told")

    assert wait_for(start(tmp_path / "whole")) == [0, 0], told_by(tmp_path / "told")
    assert told_by(tmp_path / "told")[1] == ""
    assert names(tmp_path / "whole") == FILES

    out = tmp_path / "died"
    processes = start(out)
    deadline = time.monotonic() + 60
    while not has_checkpoint(out) and time.monotonic() < deadline:
        time.sleep(0.005)
    processes[1].kill()
    assert wait_for(processes) == [1, -signal.SIGKILL]
    assert told_by(tmp_path / "told")[0].endswith("see what it said, and go on with --resume\n")
    assert names(out) == ["training.checkpoint", "training.json"]

    assert wait_for(start(out)) == [1, 1]
    assert "".join(told_by(tmp_path / "told")).count("go on with --resume, or remove it\n") == 1, "told once"

    assert wait_for(start(out, "--resume")) == [0, 0], told_by(tmp_path / "told")
    assert names(out) == names(tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")


def test_processes_that_found_other_cases_are_refused(data, tmp_path):
    others = write_cases(tmp_path / "others", (41, 42, 43))
    arguments = [options(tmp_path / "out", found) for found in (data, others)]
    assert 1 in wait_for(start_jointly(run_as_ranked, tmp_path, arguments, told=tmp_path / "told"))
    told = "".join(told_by(tmp_path / "told"))
    assert "found other cases in process 1; give all the same" in told
    assert "model.model" not in (names(tmp_path / "out") if (tmp_path / "out").exists() else [])


def test_other_commands_are_refused_in_several_processes(command, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = command("keys", "list")
    assert (code, out) == (1, "")
    assert "expected the command train in several processes, found keys; start it without torchrun" in err
