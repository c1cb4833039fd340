"""Elastic weight consolidation: what matters for the old cases is held, and it never leaves the method."""

import zipfile

import pytest
import safetensors.torch
import torch
from phantoms import make_case, tiny_plan
from sites import NEW_SCANNER, write_cases
from torch import nn

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.fisher import fisher_diagonal
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.plugin import trainings
from dafne_dante.training import loop
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

PLAN = tiny_plan()


def test_the_diagonal_is_the_mean_squared_gradient_scaled_to_mean_one():
    layer = nn.Linear(3, 1, bias=False)
    batches = [torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0]])]
    (found,) = fisher_diagonal(list(layer.parameters()), [layer(batch).sum() for batch in batches])
    squares = torch.tensor([[1.0 + 9.0, 4.0, 0.0]])
    assert torch.allclose(found, squares / squares.mean())


def test_one_number_that_matters_alone_is_cut_and_none_is_no_nonsense():
    layer = nn.Linear(1000, 1, bias=False)
    image = torch.zeros(1, 1000)
    image[0, 7] = 5.0
    (found,) = fisher_diagonal(list(layer.parameters()), [layer(image).sum()])
    assert found[0, 7] == 100.0 and float(found.sum()) == 100.0
    (found,) = fisher_diagonal(list(layer.parameters()), [0.0 * layer(image).sum()])
    assert torch.equal(found, torch.ones(1, 1000))
    (found,) = fisher_diagonal(list(layer.parameters()), [])
    assert torch.equal(found, torch.ones(1, 1000))


def tuned(trained, method, tmp_path=None, epochs=6):
    model = read_model(trained / "base.model")
    network = build_network(model.plan, model.weights)
    new, old = (
        prepare_cases([make_case(seed, **options) for seed in seeds], model.plan)
        for seeds, options in (((31, 32), NEW_SCANNER), ((71, 72), {}))
    )
    recipe = Recipe(epochs=epochs, last_epoch=epochs, steps_per_epoch=10, learning_rate=3e-3)
    fit(network, model.plan, method, new, (), recipe=recipe, look_at=old)
    return model, network


def test_numbers_that_matter_for_the_old_cases_move_less(trained):
    """At equal pull: beside a pull that is alike for all, and by how much each number is held."""
    method = FullFineTuning(pull_to_start=10.0, elastic=True)
    model, network = tuned(trained, method)
    groups = method.parameter_groups(network)
    moved, firm = [], []
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in groups:
        for parameter, stiffness in zip(group.parameters, group.stiffness, strict=True):
            moved.append((parameter.detach() - model.weights[names[id(parameter)]]).abs().flatten())
            firm.append(stiffness.flatten())
    distance, stiffness = torch.cat(moved), torch.cat(firm)
    held = stiffness > 5.0
    assert 0 < int(held.sum()) < len(held) / 2
    assert float(distance[held].mean()) < 0.5 * float(distance[~held].mean())


def test_the_old_cases_are_forgotten_less(trained):
    def old_dice(network):
        return evaluate_cases(network, PLAN, [make_case(seed) for seed in (81, 82)])["mean"]

    free, elastic = (tuned(trained, one)[1] for one in (FullFineTuning(), FullFineTuning(30.0, elastic=True)))
    assert old_dice(elastic) > old_dice(free) + 0.02


def test_what_matters_is_in_no_choice_that_is_told(trained):
    """Nothing of it is in the repr, which is digested for checkpoints, nor in what the method gives for a delta."""
    method = FullFineTuning(pull_to_start=1.0, elastic=True)
    _, network = tuned(trained, method, epochs=1)
    assert repr(method) == "FullFineTuning(pull_to_start=1.0, elastic=True, name='full')"
    assert method.factors(network) == {}
    assert method == FullFineTuning(pull_to_start=1.0, elastic=True)


@pytest.mark.parametrize("method", [FullFineTuning(elastic=True), FullFineTuning(pull_to_start=1.0)])
def test_without_a_pull_or_without_elasticity_nothing_is_looked_at(method):
    method.look(nn.Linear(2, 2), lambda: pytest.fail("not asked for"))
    assert all(not group.stiffness for group in method.parameter_groups(nn.Linear(2, 2)))


@pytest.mark.parametrize("option", ["--reference", "--replay"])
def test_a_site_holds_what_matters_for_the_models_own_domain(command, trained, tmp_path, monkeypatch, option):
    """By the command: told without cases of that domain; with them, they are what the method is shown."""
    shown = []
    real = trainings.fit

    def watched(network, plan, method, training, held_out, *, look_at, **options):
        result = real(network, plan, method, training, held_out, look_at=look_at, **options)
        firm = [value for group in method.parameter_groups(network) for value in group.stiffness]
        shown.append((method, [case.prepared.image.tobytes() for case in look_at], firm))
        return result

    monkeypatch.setattr(trainings, "fit", watched)
    old = write_cases(tmp_path / "old", (71, 72))
    known = [case.prepared.image.tobytes() for case in prepare_cases([make_case(seed) for seed in (71, 72)], PLAN)]
    options = (
        "improve", "--data", trained / "new", "--base", trained / "base.model", "--method", "full", "--epochs", 1,
        "--out", tmp_path / "out", "--pull", 30, "--elastic",
    )  # fmt: skip
    code, _, told = command(*options)
    assert code != 0 and "--replay or --reference" in told
    code, _, told = command(*options, option, old)
    assert code == 0, told
    ((method, images, firm),) = shown
    assert method == FullFineTuning(pull_to_start=30.0, elastic=True)
    assert sorted(images) == sorted(known)
    assert any(float(value.max()) > 2 * float(value.min()) for value in firm)


def test_what_matters_never_leaves_the_site(command, trained, tmp_path, monkeypatch):
    """Its numbers, in no precision that a delta has, are in no file of a run, nor in a checkpoint while it goes on."""
    made, checkpoints = [], []
    look, write = FullFineTuning.look, loop.write_checkpoint

    def looked(self, network, losses):
        look(self, network, losses)
        made.extend(self._stiffness.values())

    def written(path, snapshot, identity):
        write(path, snapshot, identity)
        checkpoints.append(path.read_bytes())

    monkeypatch.setattr(FullFineTuning, "look", looked)
    monkeypatch.setattr(loop, "write_checkpoint", written)
    old = write_cases(tmp_path / "old", (71, 72))
    code, _, told = command(
        "improve", "--data", trained / "new", "--base", trained / "base.model", "--method", "full", "--epochs", 2,
        "--out", tmp_path / "out", "--pull", 30, "--elastic", "--replay", old,
    )  # fmt: skip
    assert code == 0, told
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert {"update.delta", "improved.model", "report.html", "summary.json"} <= files.keys()
    contents = [*files.values(), *checkpoints, *_members(tmp_path / "out" / "improved.model")]
    needles = [needle for value in made for needle in _as_bytes(value)]
    assert len(checkpoints) == 2 and len(needles) > 20
    assert not [len(needle) for needle in needles for content in contents if needle in content]
    kept = safetensors.torch.save({f"kept/{number}": value.contiguous() for number, value in enumerate(made)})
    assert any(needle in kept for needle in needles), "a file that held them would be found"


def _as_bytes(value):
    """Runs of eight numbers from the middle of a tensor, in each precision in which they are not all alike."""
    run = value.flatten()[value.numel() // 2 :][:8]
    forms = [run.to(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    return [
        form.contiguous().view(torch.uint8).numpy().tobytes()
        for form in forms
        if len(form) == 8 and len(form.unique()) >= 4
    ]


def _members(path):
    """What lies compressed in a file, if it is an archive."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]
