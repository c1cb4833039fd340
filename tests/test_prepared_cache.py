"""A prepared case is the same from memory, from the disk and made anew; the disk never stops a training."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from limbs import limb_plan
from prepared_limbs import PLANS, content, files, fill_store, limb, opened

from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.adaptation.method import method_named
from dafne_dante.errors import IncompatibleModelError, StorageError
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import digest_weights
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.prepared_bytes import decode_prepared
from dafne_dante.training.prepared_cache import PreparedCache


@pytest.fixture
def cases():
    return [limb(number) for number in range(3)]


@pytest.fixture
def folder(tmp_path):
    return fill_store(tmp_path / "cases")


class Untouched(PreparedCache):
    """Fails when it has to prepare a case."""

    def _prepare(self, entry):
        raise AssertionError("prepared again")


@pytest.mark.parametrize("max_memory_bytes", [None, 0, 150_000])
@pytest.mark.parametrize("dimensions", PLANS)
def test_it_is_what_preparing_makes_wherever_it_was(folder, cases, dimensions, max_memory_bytes):
    plan = PLANS[dimensions]
    truth = content(prepare_cases(cases, plan))
    first = PreparedCache(opened(folder).prepared, max_memory_bytes=max_memory_bytes).prepare(cases, plan)
    assert (len(first), content(first)) == (len(truth), truth)
    assert len(files(folder)) == 3
    later = Untouched(opened(folder).prepared, max_memory_bytes=max_memory_bytes).prepare(cases, plan)
    assert content(later) == truth == content(first)
    assert content(first[1:]) == truth[1:]
    assert content(PreparedCache().prepare(cases, plan)) == truth


def test_a_second_training_of_the_process_prepares_nothing(cases):
    cache = PreparedCache()
    first = cache.prepare(cases, PLANS[3])
    again = cache.prepare(cases[::-1], PLANS[3])
    assert [one is other for one, other in zip(first, reversed(again), strict=True)] == [True] * 3


def trained(prepare, checkpoint=None, stop_after=None):
    """Digest of the weights and the losses of a short training."""
    plan = replace(PLANS[3], patch=(8, 16, 16))
    torch.manual_seed(0)
    network = build_network(plan)
    recipe = Recipe(epochs=3, steps_per_epoch=3, augmentation=Strengths(1.0, mirror=True))

    def on_epoch(record):
        if record.epoch == stop_after:
            raise InterruptedError

    training, held_out = prepare([limb(0), limb(1)], plan), prepare([limb(2)], plan)
    result = fit(
        network, plan, method_named("full"), training, held_out,
        recipe=recipe, on_epoch=on_epoch, checkpoint=checkpoint,
    )  # fmt: skip
    rows = [(record.train_loss, record.val_loss, record.dice) for record in result.history]
    return digest_weights(plain_weights(network)), rows


def test_a_training_comes_to_the_same_weights_with_or_without_also_when_resumed(folder, tmp_path):
    truth = trained(prepare_cases)

    def prepare(cases, plan):
        return PreparedCache(opened(folder).prepared, max_memory_bytes=0).prepare(cases, plan)

    assert trained(prepare) == truth
    assert trained(PreparedCache().prepare) == truth
    with pytest.raises(InterruptedError):
        trained(prepare_cases, tmp_path / "checkpoint", stop_after=2)
    assert trained(prepare, tmp_path / "checkpoint") == truth, "it is the same training"


CHANGES = {
    "another drawing": lambda case: limb(0, version=1),
    "another mask": lambda case: replace(case, segmentation=np.where(case.segmentation == 2, 1, case.segmentation)),
    "another image": lambda case: replace(case, image=case.image + np.float32(1)),
    "another spacing": lambda case: replace(case, affine=np.diag([2.0, 2.0, 2.5, 1.0])),
    "turned": lambda case: replace(case, affine=case.affine @ np.diag([1.0, -1.0, 1.0, 1.0])),
    "other slices": lambda case: replace(case, annotated=np.roll(case.annotated, 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_differs_is_prepared_by_itself(folder, cases, name):
    changed = CHANGES[name](cases[0])
    cache = PreparedCache(opened(folder).prepared)
    cache.prepare(cases[:1], PLANS[3])
    assert content(cache.prepare([changed], PLANS[3])) == content(prepare_cases([changed], PLANS[3]))
    assert len(files(folder)) == 2


def test_another_spacing_is_another_file_and_another_size_of_patch_is_not(folder, cases):
    cache = PreparedCache(opened(folder).prepared)
    for plan, count in ((PLANS[3], 1), (replace(PLANS[3], patch=(8, 8, 8)), 1), (limb_plan(3), 2), (PLANS[2], 3)):
        cache.prepare(cases[:1], plan)
        assert len(files(folder)) == count


def test_what_does_not_fit_the_plan_is_refused(cases):
    with pytest.raises(IncompatibleModelError, match="labelled"):
        PreparedCache().prepare(cases, replace(PLANS[3], labels=("fat",)))


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES = {
    **{f"a bit at {at}": lambda path, other, at=at: flipped(path, at) for at in (0, 20, 5000, -30, -2)},
    "empty": lambda path, other: path.write_bytes(b""),
    "cut short": lambda path, other: path.write_bytes(path.read_bytes()[:-100]),
    "longer": lambda path, other: path.write_bytes(path.read_bytes() + b"x"),
    "a length beyond all": lambda path, other: path.write_bytes(path.read_bytes()[:-4] + b"\xff" * 4),
    "of another case": lambda path, other: path.write_bytes(other.read_bytes()),
    "gone": lambda path, other: path.unlink(),
}


@pytest.mark.parametrize("moment", ["before", "while it is in use"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_made_anew(folder, cases, name, moment):
    truth = content(prepare_cases(cases, PLANS[3]))
    told = []

    def cached():
        return PreparedCache(opened(folder).prepared, max_memory_bytes=0, say=told.append).prepare(cases, PLANS[3])

    found = cached()
    path, other, _ = files(folder)
    DAMAGES[name](path, other)
    found = cached() if moment == "before" else found
    assert content(found) == truth
    assert content(Untouched(opened(folder).prepared).prepare(cases, PLANS[3])) == truth, "and stays so"
    assert not told


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file_is_never_waited_for(folder, cases):
    truth = content(PreparedCache(opened(folder).prepared).prepare(cases, PLANS[3]))
    path, other, _ = files(folder)
    path.unlink()
    os.mkfifo(path)
    other.unlink()
    other.mkdir()
    told = []
    assert content(PreparedCache(opened(folder).prepared, say=told.append).prepare(cases, PLANS[3])) == truth
    assert len(told) == 1, "a folder cannot be replaced"


def test_a_disk_that_refuses_is_told_once_and_stops_nothing(folder, cases):
    (folder / "prepared").write_bytes(b"no folder")
    told = []
    cache = PreparedCache(opened(folder).prepared, max_memory_bytes=0, say=told.append)
    assert content(cache.prepare(cases, PLANS[3])) == content(prepare_cases(cases, PLANS[3]))
    assert len(told) == 1
    assert told[0].startswith("cases that are prepared from now on are held in memory only: ")
    assert str(folder) not in told[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_is_told_once_and_leaves_nothing_behind(folder, cases, monkeypatch):
    PreparedCache(opened(folder).prepared).prepare(cases[:1], PLANS[3])
    before, told = files(folder), []

    def full(descriptor, mode):
        os.close(descriptor)
        return Path("/dev/full").open(mode)

    monkeypatch.setattr(os, "fdopen", full)
    cache = PreparedCache(opened(folder).prepared, max_memory_bytes=0, say=told.append)
    found = cache.prepare(cases, PLANS[3])
    assert content(found) == content(prepare_cases(cases, PLANS[3]))
    assert len(told) == 1
    assert files(folder) == before


def of_shape(*shape):
    return b"\0\0\1\0" + json.dumps({"byte_order": sys.byteorder, "shape": shape}).ljust(256).encode()


WRONG = {
    "nothing": b"", "no json": b"\0\0\0\2{]", "another thing": b"\0\0\0\2[]",
    "a shape beyond all": of_shape(1, 1 << 60, 9, 9), "a negative one": of_shape(-1, 3, 3), "no number": of_shape("a"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_bytes_of_something_else_are_a_storage_error(name):
    with pytest.raises(StorageError, match="prepared case"):
        decode_prepared(bytearray(WRONG[name]), "x")
