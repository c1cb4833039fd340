"""Attacks on a merge with the real merger and a real small network that learned something.

In none does the published model lose more than the margin, or is a good update lost.
"""

import io
import zipfile
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
import torch
from deltas import forge, replace_numbers
from phantoms import make_case
from sites import NEW_SCANNER, train_model
from test_operator import HEAD, TYPE, Operator

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.delta.container import read_container
from dafne_dante.delta.difference import WeightUpdate, take_difference
from dafne_dante.delta.signing import ensure_signing_key, public_key_text, trust_key
from dafne_dante.errors import UntrustedVersionError
from dafne_dante.federation.model_signature import without_signature
from dafne_dante.federation.operator import merge_pending
from dafne_dante.federation.published_versions import hand_in, roll_back
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


def zip_bomb():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    return packed.getvalue()


def pickle_bomb():
    """A billion laughs: lists of lists that share their members."""
    return b"\x80\x04]" + b"(]" * 20_000 + b"e" * 20_000 + b"."


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
    # The pair is among what is cut at the ends of every coordinate, so the step is that of the honest sites.
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


def write_over(federation, version, model):
    """What whoever runs the server can do."""
    write_model(model, federation.shelf.model_path(TYPE, version))


def altered(federation, model):
    draw = torch.Generator().manual_seed(3)
    noisy = model.weights[HEAD] + 0.05 * torch.randn(model.weights[HEAD].shape, generator=draw)
    return without_signature(replace(model, weights={**model.weights, HEAD: noisy}))


def swap_weights(federation, newest, first):
    write_over(federation, newest, altered(federation, federation.newest()))


def swap_code(federation, newest, first):
    """The weights are the same; stock clients run the text of the functions, and the next version would be signed."""
    model = federation.newest()
    write_over(federation, newest, replace(model, sources={**model.sources, "apply_model_function": "import os"}))


def take_the_newest_away(federation, newest, first):
    federation.shelf.model_path(TYPE, newest).unlink()


def bring_an_old_release_back(federation, newest, first):
    federation.shelf.publish_copy(TYPE, federation.shelf.model_path(TYPE, first))


def push_in_a_version(federation, newest, first):
    write_model(altered(federation, federation.newest()), federation.root / "theirs.model")
    federation.shelf.publish_copy(TYPE, federation.root / "theirs.model")


def swap_an_older_base(federation, newest, first):
    write_over(federation, first, altered(federation, federation.model))


def spoil_the_newest(federation, newest, first):
    federation.shelf.model_path(TYPE, newest).write_bytes(b"no model")


SERVERS = {
    "swaps the weights": swap_weights,
    "swaps the code": swap_code,
    "rolls back": take_the_newest_away,
    "brings an old release back as a new version": bring_an_old_release_back,
    "pushes in a version": push_in_a_version,
    "swaps an older base": swap_an_older_base,
    "spoils the newest": spoil_the_newest,
}


def kept_files(federation):
    """What the operator and the server hold, but for the lock and the digests that are kept beside the files."""
    roots = (federation.settings.folder, federation.root / "server")
    files = {path: path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}
    return {path: content for path, content in files.items() if path.name != "lock" and path.suffix != ".sha256"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_changes_what_it_holds_is_found_and_nothing_is_lost(federation, name):
    ensure_signing_key(federation.settings.folder)
    first = hand_in(federation.depot, TYPE, federation.model, federation.settings)
    federation.send(federation.honest(1))
    newest = federation.merge().version
    good = federation.send(federation.honest(2), user="late")
    colluder = altered(federation, federation.newest())
    federation.send(federation.delta(0.001, site="h9", model=colluder), user="evil")
    before = {path: path.read_bytes() for path in (federation.root / "server").rglob("*.model")}
    SERVERS[name](federation, newest, first)
    changed = kept_files(federation)
    with pytest.raises(UntrustedVersionError):
        federation.merge()
    if name == "swaps an older base":  # found when its weights are asked for: the colluder's may be gone by then
        assert not [one for one in federation.quarantined() if "late" in one]
    else:
        with pytest.raises(UntrustedVersionError):
            roll_back(federation.depot, TYPE, federation.shelf.versions(TYPE)[0], federation.settings)
        assert kept_files(federation) == changed, "nothing is published, refused or remembered"
    for path in set((federation.root / "server").rglob("*.model")) - set(before):
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    report = federation.merge()
    assert report.merged == 1
    assert good not in federation.quarantined()


def test_a_rollback_to_a_version_that_was_swapped_is_refused(federation):
    federation.send(federation.honest(1))
    federation.merge()
    write_over(federation, federation.first, altered(federation, federation.model))
    with pytest.raises(UntrustedVersionError, match=federation.first):
        roll_back(federation.depot, TYPE, federation.first, federation.settings)
    assert len(federation.shelf.versions(TYPE)) == 2
