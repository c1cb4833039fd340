"""What bounds a training: how long a gradient may be, and how long to wait for a better epoch."""

import pytest
import torch
from phantoms import make_case, tiny_plan
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dafne_dante.adaptation.method import method_named
from dafne_dante.models.build import build_network
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases


@pytest.mark.parametrize("longest", [1e-3, 1e6])
def test_gradients_are_clipped(longest):
    plan, norms = tiny_plan(), []

    def measure(optimizer, _arguments, _options):
        moving = [one.grad for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(moving)))

    handle = register_optimizer_step_pre_hook(measure)
    try:
        torch.manual_seed(0)
        recipe = Recipe(epochs=1, steps_per_epoch=4, clip_norm=longest)
        fit(build_network(plan), plan, method_named("full"), prepare_cases([make_case(1)], plan), [], recipe=recipe)
    finally:
        handle.remove()
    assert len(norms) == 4
    assert max(norms) <= longest * 1.001
    assert min(norms) > 0
    assert (max(norms) > 1e-2) == (longest > 1), "without clipping they are longer"


def wait(patience, checkpoint, rate=0.0):
    """Epochs of a training, by default one that can learn nothing; and the epoch that stays."""
    plan = tiny_plan()
    torch.manual_seed(0)
    training, held_out = (prepare_cases([make_case(seed)], plan) for seed in (1, 9))
    recipe = Recipe(epochs=6, steps_per_epoch=2, learning_rate=rate, patience=patience)
    result = fit(
        build_network(plan), plan, method_named("full"), training, held_out, recipe=recipe, checkpoint=checkpoint
    )
    return [record.epoch for record in result.history], result.best_epoch


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 2), (3, 4), (9, 6)])
def test_training_stops_when_nothing_becomes_better(tmp_path, patience, epochs):
    expected = list(range(1, epochs + 1)), 1
    assert wait(patience, tmp_path / "checkpoint") == expected
    assert wait(patience, tmp_path / "checkpoint") == expected, "a run that stopped early is done, also when resumed"


def test_training_goes_on_while_it_becomes_better(tmp_path):
    epochs, best = wait(2, tmp_path / "checkpoint", rate=3e-3)
    assert len(epochs) == min(6, best + 2)
    assert best > 1
