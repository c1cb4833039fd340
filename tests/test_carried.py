"""What an update's coding leaves out comes with the site's next one: not lost, not sent twice, not sent by itself."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.config import Settings
from dafne_dante.delta.carried import compressed_with, left_of
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import WeightUpdate, dense_value
from dafne_dante.delta.encode import updates_as_sent
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import read_model
from dafne_dante.plugin.carrying_over import carried_folder, carried_from_before, drop_carried, keep_carried
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve

SHAPES = {"conv": (12, 8, 3, 3, 3), "norm": (12,), "linear": (10, 30)}
TYPE = "Brain"


def learned(seed):
    """Updates of three weights, one of them of low rank."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random)

    return (
        WeightUpdate("conv", draw(12, 8, 3, 3, 3)),
        WeightUpdate("norm", draw(12)),
        WeightUpdate("linear", LowRank("lora-linear", draw(10, 2), draw(2, 30), 0.5)),
    )


def dense(updates):
    return {update.weight: dense_value(update, SHAPES[update.weight]) for update in updates}


@hypothesis_settings(max_examples=15, deadline=None)
@given(residual=st.sampled_from([0.0, 0.1, 0.3, 0.6]), seed=st.integers(0, 1000), rounds=st.integers(1, 6))
def test_what_was_sent_and_what_is_left_add_up_to_what_was_meant(residual, seed, rounds):
    carried = {}
    meant, sent = ({name: torch.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    for number in range(rounds):
        updates = learned(seed + number)
        received = updates_as_sent(compressed_with(carried, updates, SHAPES, residual))
        carried = left_of(updates, carried, received, SHAPES)
        for total, found in ((meant, dense(updates)), (sent, dense(received))):
            for name, tensor in found.items():
                total[name] += tensor
    for name, total in meant.items():
        together = sent[name] + carried.get(name, torch.zeros(SHAPES[name]))
        assert torch.allclose(together, total, atol=1e-4, rtol=1e-5)


def test_with_what_was_carried_the_sum_drifts_less():
    def drift(carries, rounds=12):
        carried, meant, sent = {}, torch.zeros(SHAPES["conv"]), torch.zeros(SHAPES["conv"])
        for number in range(rounds):
            updates = learned(number)[:1]
            received = updates_as_sent(compressed_with(carried, updates, SHAPES, 0.3))
            carried = left_of(updates, carried, received, SHAPES) if carries else {}
            meant, sent = meant + dense(updates)["conv"], sent + dense(received)["conv"]
        return float((meant - sent).norm())

    assert drift(carries=True) < 0.6 * drift(carries=False)


def test_a_low_rank_update_stays_small_and_leaves_the_rest_for_another_time():
    updates = learned(1)[2:]
    carried = {"linear": torch.randn(10, 30, generator=torch.Generator().manual_seed(9))}
    (found,) = compressed_with(carried, updates, SHAPES, 0.05)
    assert found.value.a.numel() + found.value.b.numel() <= 2 * 40
    left = left_of(updates, carried, [found], SHAPES)
    assert torch.allclose(left["linear"], carried["linear"], atol=0.2)


def test_what_did_not_move_takes_nothing_along():
    carried = {"linear": torch.ones(10, 30)}
    sent = compressed_with(carried, learned(1)[:2], SHAPES, 0.1)
    assert [update.weight for update in sent] == ["conv", "norm"]
    assert torch.equal(left_of(learned(1)[:2], carried, sent, SHAPES)["linear"], carried["linear"])


@pytest.fixture(scope="module")
def improved(tmp_path_factory, trained):
    """A site that sent two updates to a real server; read only."""
    root = tmp_path_factory.mktemp("carried")
    shelf = Shelf(root / "server")
    shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    shelf.publish_copy(TYPE, trained / "base.model")
    key = Accounts(root / "server").add_user("site", access=[TYPE])
    with RunningServer(root / "server") as server:
        settings = Settings(folder=root / "configuration", server=server.url, api_key=key, dice_margin=0.4)
        client, rounds = connect(settings), []
        for number in (1, 2):
            request = ImprovementRequest(
                CaseRequest((trained / "new",)), root / f"out{number}", model_type=TYPE, method="full", epochs=8,
                seed=number, upload=True,
            )  # fmt: skip
            assert improve(request, settings, client=client).uploaded
            rounds.append(carried_from_before(settings, read_model(trained / "base.model")))
    return settings, root, rounds, shelf


def site(tmp_path, improved):
    import shutil

    settings, root, rounds, _ = improved
    shutil.copytree(settings.folder, tmp_path / "configuration")
    deltas = [
        decode_delta((root / f"out{n}" / "update.delta").read_bytes(), base=None, trusted_keys=None) for n in (1, 2)
    ]
    return replace(settings, folder=tmp_path / "configuration"), deltas, rounds


def test_each_update_that_was_sent_leaves_something_for_the_next(tmp_path, improved, trained):
    settings, deltas, (first, second) = site(tmp_path, improved)
    assert first and second and first.keys() <= read_model(trained / "base.model").weights.keys()
    moved = sum(float(value.norm()) ** 2 for value in first.values()) ** 0.5
    assert 0 < moved < deltas[0].length, "less than what was sent"
    assert not all(torch.equal(first[name], second[name]) for name in first.keys() & second.keys())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in carried_folder(settings).iterdir())


def test_only_what_an_update_that_counts_left_is_carried(tmp_path, improved, trained):
    settings, deltas, (first, second) = site(tmp_path, improved)
    model = read_model(trained / "base.model")

    def carried():
        return carried_from_before(settings, model)

    def same(one, other):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    never_queued = uuid4()
    keep_carried(settings, never_queued, model, {"x": torch.ones(1)})
    assert same(carried(), second), "the program was killed before the outbox had it"
    drop_carried(settings, str(deltas[1].manifest.update_id))
    assert same(carried(), first), "the second was withdrawn"
    drop_carried(settings, str(deltas[0].manifest.update_id))
    assert carried() == {}


def test_an_update_that_is_cancelled_carries_nothing(tmp_path, improved, trained):
    settings, deltas, (first, _) = site(tmp_path, improved)
    model = read_model(trained / "base.model")
    content = (improved[1] / "out2" / "update.delta").read_bytes()
    other = replace(settings, folder=tmp_path / "other")
    outbox = open_outbox(other)
    outbox.queue(content, server=settings.server, dice=0.5, trigger="command")
    update_id = deltas[1].manifest.update_id
    keep_carried(other, UUID(str(update_id)), model, first)
    assert carried_from_before(other, model).keys() == first.keys(), "it waits, and will be sent"
    outbox.cancel(str(update_id))
    assert carried_from_before(other, model) == {}


def test_another_family_another_network_or_a_damaged_file_carries_nothing(tmp_path, improved, trained):
    settings, deltas, _ = site(tmp_path, improved)
    model = read_model(trained / "base.model")
    assert carried_from_before(settings, replace(model, model_id=uuid4())) == {}
    keep_carried(settings, UUID(str(deltas[1].manifest.update_id)), model, {"no such weight": torch.ones(2)})
    assert carried_from_before(settings, model) == {}
    for path in carried_folder(settings).iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert carried_from_before(settings, model) == {}


def test_few_files_lie_there_and_none_is_sent(tmp_path, improved, trained):
    settings, _, _ = site(tmp_path, improved)
    model = read_model(trained / "base.model")
    for _ in range(6):
        keep_carried(settings, uuid4(), model, {"x": torch.ones(1)})
    assert len(list(carried_folder(settings).iterdir())) == 3
    assert len(improved[3].uploads(TYPE)) == 2, "two updates left this site, and nothing else"


def test_with_noise_nothing_is_left_or_taken_along(tmp_path, trained):
    """What was clipped or hidden by noise must not come by another way."""
    from dafne_dante.adaptation.method import method_named
    from dafne_dante.annotations.folders import read_cases
    from dafne_dante.delta.noise import Noise
    from dafne_dante.plugin.division import divide
    from dafne_dante.plugin.tuning import Tuning, tune
    from dafne_dante.training.recipe import Recipe

    model = read_model(trained / "base.model")
    cases = read_cases(trained / "new")
    recipe = Recipe(epochs=2, steps_per_epoch=4, learning_rate=2e-3)
    carried = {name: torch.ones_like(value) for name, value in model.weights.items() if value.dim() > 1}
    tuning = Tuning(model, lambda: method_named("full"), recipe, noise=Noise(5.0, 0.0), carried=carried)
    assert tune(tuning, divide(cases, seed=0)).left == {}
