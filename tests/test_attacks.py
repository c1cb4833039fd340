"""Attacks on a merge with the real merger and a real small network that learned something.

In none does the published model lose more than the margin, or is a good update lost.
"""

import io
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import torch
from deltas import forge, replace_numbers
from phantoms import make_case
from pickled import file_with_other, storage, tensor
from sites import NEW_SCANNER, train_model
from test_operator import HEAD, TYPE, Operator
from test_unsafe_models import BOMBS

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.delta.container import read_container
from dafne_dante.delta.difference import WeightUpdate, take_difference
from dafne_dante.delta.signing import ensure_signing_key, public_key_text, trust_key
from dafne_dante.federation.operator import merge_pending
from dafne_dante.models.build import build_network, canonical_weights
from dafne_dante.models.file import serialise_model, write_model
from dafne_dante.plugin.apply import updated_model
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

MARGIN = 0.05
CASES = [make_case(5, shape=(16, 16, 16)), make_case(6, shape=(16, 16, 16), **NEW_SCANNER)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("base") / "base.model")


@pytest.fixture(scope="module")
def learned(base):
    """What a site with another scanner learned, as updates."""
    own, new = [make_case(number) for number in (1, 2)], [make_case(number, **NEW_SCANNER) for number in (21, 22, 23)]
    return trained_updates(base, [*own, *new])


def trained_updates(base, cases, **options):
    """What a training on these cases moves; the last case is held out."""
    plan, network = base.plan, build_network(base.plan, base.weights)
    prepared = prepare_cases(cases, plan)
    recipe = Recipe(**{"epochs": 4, "steps_per_epoch": 10, "learning_rate": 3e-3, "seed": 2, **options})
    fit(network, plan, FullFineTuning(), prepared[:-1], prepared[-1:], recipe=recipe)
    return take_difference(
        canonical_weights(plan, base.weights), canonical_weights(plan, plain_weights(network)), {}
    )  # fmt: skip


@pytest.fixture(scope="module")
def flipped(base):
    """What honest code learns where somebody has swapped the names of the two structures."""
    swapped = np.array([0, 2, 1], dtype=np.uint8)
    cases = [make_case(number) for number in (1, 2, 3)]
    cases += [make_case(number, **NEW_SCANNER) for number in (21, 22, 23)]
    flipped = [replace(case, segmentation=swapped[case.segmentation]) for case in cases]
    return trained_updates(base, flipped, epochs=8)


class Federation(Operator):
    """Ten trusted sites; honest ones send what was learned, a little different each."""

    def __init__(self, root, model, learned):
        super().__init__(root, model)
        self.settings = replace(self.settings, dice_margin=MARGIN, max_norm_ratio=1.0)
        self.learned = learned
        for number in range(10):
            self.keys[f"h{number}"] = ensure_signing_key(root / f"h{number}")
            trust_key(self.settings.folder, public_key_text(self.keys[f"h{number}"]), f"h{number}")

    def honest(self, number, **options):
        draw = torch.Generator().manual_seed(number)
        updates = [
            WeightUpdate(one.weight, one.value * (1 + 0.1 * torch.randn(one.value.shape, generator=draw)))
            for one in self.learned
        ]
        return self.delta(0, site=f"h{number}", updates=updates, **options)

    def scaled(self, factor, site, **options):
        updates = [WeightUpdate(one.weight, one.value * factor) for one in self.learned]
        return self.delta(0, site=site, updates=updates, **options)

    def random(self, site, size):
        draw = torch.Generator().manual_seed(9)
        updates = [
            WeightUpdate(one.weight, size * torch.randn(one.value.shape, generator=draw)) for one in self.learned
        ]
        return self.delta(0, site=site, updates=updates)

    def merge(self, depot=None):
        return merge_pending(depot or self.depot, TYPE, CASES, self.settings)

    def dice(self, model):
        return evaluate_cases(build_network(model.plan, model.weights), model.plan, CASES)

    def check(self, good, *, before=None):
        """Merge until nothing waits: the good ones are merged, and no label lost more than the margin."""
        merged, before = 0, before or self.dice(self.newest())
        while self.shelf.uploads(TYPE):
            report = self.merge()
            merged += report.merged
        assert merged == len(good)
        assert not set(good) & set(self.quarantined())
        after = self.dice(self.newest())
        assert all(after[label] >= value - MARGIN - 1e-9 for label, value in before.items() if label != "mean")
        return self.quarantined()


@pytest.fixture
def federation(tmp_path, base, learned):
    return Federation(tmp_path, base, learned)


def zip_of_zeros(megabytes=400):
    """What torch.save writes today is a zip: one that is a thousandth of what it holds."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(megabytes):
            entry.write(bytes(1 << 20))
    return packed.getvalue()


def zip_bomb():
    """A model file, begun as such, whose weights are that zip."""
    return file_with_other("weights", tensor(storage(zip_of_zeros())))


def pickle_bomb():
    """A billion laughs in a model file: lists of twice the same list, thirty deep."""
    return file_with_other(*BOMBS["lists of the same list"])


def safetensors_bomb():
    return (2**62).to_bytes(8, "little") + b"{" + b" " * 1000


def lying_manifest(one):
    def lie(document):
        entry = document["tensors"][next(iter(document["tensors"]))]
        entry["shape"] = [2**30, *entry["shape"][1:]]

    return forge(one.honest(9), manifest=lie, key=one.keys["h9"])


def not_a_number(one):
    content = one.honest(9)
    stored = next(name for name in read_container(content).tensors if HEAD in name)
    spoiled = replace_numbers(content, stored, float("nan"))
    return forge(spoiled, key=one.keys["h9"])


def wrong_family(one):
    return one.honest(9, model=replace(one.model, model_id=UUID(int=8)))


def of_a_stranger(one):
    return one.scaled(1.0, "stranger")


REFUSED = {
    "a hundredfold": lambda one: one.scaled(100.0, "h9"),
    "sign flipped": lambda one: one.scaled(-8.0, "h9"),
    "random weights": lambda one: one.random("h9", 0.2),
    "wrong family": wrong_family,
    "not a number": not_a_number,
    "zip bomb": lambda one: zip_bomb(),
    "pickle bomb": lambda one: pickle_bomb(),
    "safetensors bomb": lambda one: safetensors_bomb(),
    "lying manifest": lying_manifest,
    "unlisted key": of_a_stranger,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_attack_beside_two_good_updates(federation, name):
    good = [federation.send(federation.honest(number), user=f"h{number}") for number in (1, 2)]
    bad = federation.send(REFUSED[name](federation), user="evil")
    reasons = federation.check(good)
    assert list(reasons) == [bad], reasons


@contextmanager
def no_more_memory_than(megabytes):
    """Beyond what this process has already taken; what asks for more gets a MemoryError."""
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
def test_no_bomb_goes_off_in_the_merger(federation):
    """Each would take more than that, some a million times more, if it were written out."""
    federation.send(federation.honest(1))
    assert federation.merge().merged == 1  # so that what every merge takes is taken
    contents = [file_with_other(*bomb) for bomb in BOMBS.values()]
    contents += [zip_of_zeros(), zip_bomb(), safetensors_bomb(), lying_manifest(federation)]
    bombs = [federation.send(content, user=f"evil{number}") for number, content in enumerate(contents)]
    good = federation.send(federation.honest(2))
    with no_more_memory_than(megabytes=192):
        reasons = federation.check([good])
    assert sorted(reasons) == sorted(bombs)
    assert not any("MemoryError" in reason for reason in reasons.values())


@pytest.mark.parametrize("honest", [1, 2, 6])
def test_training_on_swapped_labels_is_found_or_outweighed(federation, flipped, honest):
    """It is signed by a site on the list, of the right length, and made by the same code: only the cases tell."""
    alone = federation.dice(updated_model(federation.model, flipped, timestamp=federation.model.timestamp + 1))
    before = federation.dice(federation.model)
    assert min(alone[label] - before[label] for label in ("ball", "box")) < -3 * MARGIN, "it does harm"
    good = [federation.send(federation.honest(number), user=f"h{number}") for number in range(honest)]
    federation.send(federation.delta(0, site="h9", updates=flipped), user="evil")
    while federation.shelf.uploads(TYPE):
        federation.merge()
    assert not set(good) & set(federation.quarantined())
    after = federation.dice(federation.newest())
    assert all(after[label] >= before[label] - MARGIN for label in ("ball", "box"))
    assert after["mean"] > before["mean"] - MARGIN / 2


def test_a_plain_sign_flip_beside_nine_good_ones_is_trimmed_away(federation):
    uploads = [federation.send(federation.honest(number)) for number in range(9)]
    uploads.append(federation.send(federation.scaled(-1.0, "h9"), user="evil"))
    before = federation.dice(federation.model)
    report = federation.merge()
    assert report.merged >= 9
    assert all(report.dice_after[label] >= before[label] - MARGIN for label in ("ball", "box"))


@pytest.mark.parametrize("factor", [-1.0, -20.0])
def test_a_colluding_pair_of_ten_moves_nothing(federation, factor):
    good = [federation.send(federation.honest(number)) for number in range(8)]
    for site in ("h8", "h9"):
        federation.send(federation.scaled(factor, site), user="evil")
    report = federation.merge()
    assert not set(good) & set(federation.quarantined())
    assert report.step == 1
    # The pair is among what is cut at the ends of every coordinate.
    check_moved_as_learned(federation)


@pytest.mark.parametrize("factor", [-1.0, -20.0])
def test_one_of_five_moves_nothing_where_the_operator_takes_the_median(federation, factor):
    federation.settings = replace(federation.settings, merge_rule="median")
    good = [federation.send(federation.honest(number)) for number in range(4)]
    federation.send(federation.scaled(factor, "h9"), user="evil")
    report = federation.merge()
    assert not set(good) & set(federation.quarantined())
    assert report.step == 1
    check_moved_as_learned(federation)


def check_moved_as_learned(federation):
    """The step is that of the honest sites."""
    expected = torch.cat([one.value.reshape(-1) for one in federation.learned])
    newest = federation.newest()
    moved = torch.cat(
        [(newest.weights[o.weight] - federation.model.weights[o.weight]).reshape(-1) for o in federation.learned]
    )
    cosine = torch.nn.functional.cosine_similarity(moved, expected, dim=0)
    assert cosine > 0.9
    assert 0.5 < moved.norm() / expected.norm() < 1.2


@pytest.mark.parametrize("factor", [100.0, -100.0])
def test_a_hundredfold_is_found_by_the_operators_cases_where_any_length_is_allowed(federation, factor):
    federation.settings = replace(federation.settings, max_norm_ratio=100.0)
    good = federation.send(federation.honest(1))
    bad = federation.send(federation.scaled(factor, "h9"), user="evil")
    reasons = federation.check([good])
    assert list(reasons) == [bad]
    assert "Dice of" in reasons[bad]


def test_a_replay_counts_once(federation):
    content = federation.honest(1)
    federation.send(content)
    assert federation.merge().merged == 1
    once = federation.newest()
    federation.send(content, user="again")
    assert federation.merge().merged == 0
    assert all(torch.equal(tensor, once.weights[name]) for name, tensor in federation.newest().weights.items())


def test_stale_by_twenty_versions_is_refused_and_blocks_nothing(federation):
    stale = federation.honest(9)
    model = federation.model
    for number in range(20):
        weights = {**model.weights, HEAD: federation.model.weights[HEAD] + 1e-6 * (number + 1)}
        model = replace(model, weights=weights)
        write_model(model, federation.root / "next.model")
        federation.shelf.publish_copy(TYPE, federation.root / "next.model")
    bad = federation.send(stale, user="evil")
    good = [federation.send(federation.honest(1, model=model))]
    assert "base" in federation.check(good)[bad]


def test_a_full_model_that_does_harm_is_refused(federation):
    federation.settings = replace(federation.settings, max_norm_ratio=100.0)
    ruin = federation.model.weights[HEAD] + torch.tensor([50.0, -50.0, -50.0])
    harmful = replace(federation.model, weights={**federation.model.weights, HEAD: ruin})
    bad = federation.send(serialise_model(harmful), user="evil")
    good = [federation.send(federation.honest(1))]
    assert list(federation.check(good)) == [bad]
