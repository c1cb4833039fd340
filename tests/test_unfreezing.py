"""Stages by execution, schedules, and that a frozen prefix builds no graph and keeps every bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from networks import NETWORKS, Normalised, build, take_steps
from torch import Tensor, nn

from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.lora import attach_lora
from dafne_dante.adaptation.stages import execution_order, module_stages, output_head, stages
from dafne_dante.adaptation.unfreezing import PaperSchedule, PhasedSchedule, Schedule, release_only
from dafne_dante.errors import TrainingError

UNET = "unet_model.model"
UNET_STAGES = [
    f"{UNET}.0",
    f"{UNET}.1.submodule.0",
    f"{UNET}.1.submodule.1.submodule.0",
    f"{UNET}.1.submodule.1.submodule.1.submodule",
    f"{UNET}.1.submodule.1.submodule.2",
    f"{UNET}.1.submodule.2",
    f"{UNET}.2",
]
DYNUNET_STAGES = [
    f"dyn_unet.{block}"
    for block in ("input_block", "downsamples.0", "bottleneck", "upsamples.0", "upsamples.1", "output_block")
]


@contextmanager
def recorded_outputs(network: nn.Module) -> Iterator[list[tuple[str, bool, bool]]]:
    """(module, requires grad, has a grad_fn) of every module's output, in the order in which they finish."""
    outputs: list[tuple[str, bool, bool]] = []
    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: outputs.append(
                (name, output.requires_grad, output.grad_fn is not None)
            )
        )
        for name, module in network.named_modules()
        if name
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", NETWORKS)
def test_stages_are_the_blocks_in_the_order_of_the_data(kind: str) -> None:
    network, image = build(kind)
    found = stages(network, image)
    assert [stage.name for stage in found] == (UNET_STAGES if kind.startswith("unet") else DYNUNET_STAGES)
    listed = [name for stage in found for name in stage.parameter_names]
    assert sorted(listed) == sorted(name for name, _ in network.named_parameters())
    assert len(set(listed)) == len(listed)
    for stage in found:
        assert all(name.startswith(f"{stage.name}.") for name in stage.parameter_names)


def test_execution_order_follows_the_data_and_not_the_registration() -> None:
    network, image = build("unet 2D")
    order = execution_order(network, image)
    assert order.index(f"{UNET}.0.residual") < order.index(f"{UNET}.0.conv.unit0.conv")  # registered after it
    assert order[-1] == f"{UNET}.2.1.conv.unit0.conv"
    assert len(order) == len(set(order)) == len({name.rpartition(".")[0] for name, _ in network.named_parameters()})


def test_order_reversed_at_registration_and_an_idle_layer() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Conv1d(3, 3, 1)
            self.last = nn.Conv1d(5, 3, 1)
            self.first = nn.Conv1d(2, 5, 1)
            self.offset = nn.Parameter(torch.zeros(1))

        def forward(self, image: Tensor) -> Tensor:
            return self.last(self.first(image)) + self.offset

    network, image = Backwards(), torch.zeros(1, 2, 4)
    assert execution_order(network, image) == ("", "first", "last")
    assert [stage.name for stage in stages(network, image)] == ["", "first", "last", "idle"]
    assert output_head(network, image) == "last"


def test_looking_leaves_modes_and_statistics_alone() -> None:
    network = Normalised().train()
    network.second.eval()
    before = deepcopy(network.state_dict())
    stages(network, torch.randn(2, 1, 8, 8))
    assert network.training
    assert network.first[1].training
    assert not network.second[1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_an_example_that_does_not_fit_is_refused() -> None:
    network, _ = build("unet 2D")
    with pytest.raises(TrainingError, match=r"\(1, 4, 16, 16\)"):
        stages(network, torch.zeros(1, 4, 16, 16))


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("unet 2D", f"{UNET}.2.1.conv.unit0.conv"),
        ("unet 3D", f"{UNET}.2.1.conv.unit0.conv"),
        ("dynunet 2D", "dyn_unet.output_block.conv.conv"),
        ("dynunet 3D", "dyn_unet.output_block.conv.conv"),
    ],
)
def test_the_head_is_the_last_layer_to_make_the_output(kind: str, head: str) -> None:
    network, image = build(kind)
    assert output_head(network, image) == head
    attach_lora(network, rank=2)
    assert output_head(network, image) == head


def test_a_network_may_have_no_head() -> None:
    assert output_head(nn.Sequential(nn.Conv1d(2, 4, 1), nn.Flatten()), torch.zeros(1, 2, 5)) is None


def test_modules_as_units_hold_every_parameter_once_and_the_buffers() -> None:
    network, image = build("dynunet 3D")
    units = module_stages(network, image)
    assert tuple(unit.name for unit in units) == execution_order(network, image)
    assert sorted(name for unit in units for name in unit.parameter_names) == sorted(
        name for name, _ in network.named_parameters()
    )
    normalised = module_stages(Normalised(), torch.zeros(2, 1, 8, 8))
    assert normalised[0].module_names == ("first.0", "first.1")
    assert len(normalised) == 4


@pytest.mark.parametrize(
    ("schedule", "epochs", "count", "expected"),
    [
        (PhasedSchedule(), 12, 7, [3, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1]),
        (PhasedSchedule(), 12, 6, [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]),
        (PhasedSchedule(kept_frozen_stages=0, phases=2), 4, 9, [4, 4, 0, 0]),
        (PhasedSchedule(phases=1), 4, 9, [4, 4, 4, 4]),
        (PhasedSchedule(released_by_share_of_epochs=1.0), 4, 9, [4, 4, 3, 3]),
        (PhasedSchedule(initial_frozen_share=1.0, kept_frozen_stages=0), 6, 5, [4, 4, 2, 0, 0, 0]),
        (PhasedSchedule(kept_frozen_stages=5), 4, 7, [5, 5, 5, 5]),
        (PhasedSchedule(kept_frozen_stages=50), 2, 3, [2, 2]),
        (PhasedSchedule(), 1, 7, [3]),
        (PhasedSchedule(), 3, 1, [0, 0, 0]),
        (PaperSchedule(0.5), 10, 10, [3, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        (PaperSchedule(1.0), 20, 4, [3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (PaperSchedule(0.0), 3, 4, [0, 0, 0]),
    ],
)
def test_schedules(schedule: Schedule, epochs: int, count: int, expected: list[int]) -> None:
    found = [schedule.frozen(epoch, epochs, count) for epoch in range(1, epochs + 1)]
    assert found == expected
    assert schedule.initial(count) >= found[0]


@pytest.mark.parametrize(
    ("degree", "expected"),
    [
        (0.5, {1: 0.5, 4: 0.5, 5: 0.635, 10: 0.77, 15: 0.905, 20: 1.0, 50: 1.0}),
        (0.7, {4: 0.3, 5: 0.435, 30: 1.0}),
        (0.9, {30: 0.911, 35: 1.0}),
    ],
)
def test_the_papers_percentages_for_fifty_epochs(degree: float, expected: dict[int, float]) -> None:
    """Measured on dante-trainer itself (SCIENCE section 2.1)."""
    schedule = PaperSchedule(degree)
    assert {epoch: schedule.trainable_share(epoch, 50) for epoch in expected} == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("schedule", [PhasedSchedule(), PhasedSchedule(0.9, 7, 0, 0.8), PaperSchedule(0.7)])
def test_schedules_never_freeze_again(schedule: Schedule) -> None:
    for count in range(1, 60):
        for epochs in (1, 2, 3, 7, 10, 33, 100):
            found = [schedule.initial(count)]
            found += [schedule.frozen(epoch, epochs, count) for epoch in range(1, epochs + 1)]
            assert found == sorted(found, reverse=True)
            assert 0 <= found[-1] <= found[0] <= count - 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: PhasedSchedule(initial_frozen_share=1.1),
        lambda: PhasedSchedule(initial_frozen_share=float("nan")),
        lambda: PhasedSchedule(phases=0),
        lambda: PhasedSchedule(kept_frozen_stages=-1),
        lambda: PhasedSchedule(released_by_share_of_epochs=0.0),
        lambda: PaperSchedule(-0.1),
    ],
)
def test_schedules_out_of_range_are_refused(make) -> None:
    with pytest.raises(TrainingError, match="expected"):
        make()


@pytest.mark.parametrize("unit", ["stage", "module"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_no_graph_before_the_first_trainable_stage(kind: str, unit: str) -> None:
    network, image = build(kind)
    found = stages(network, image) if unit == "stage" else module_stages(network, image)
    first = len(found) // 2
    assert release_only(network.train(), found, range(first, len(found)))
    frozen = {stage.name for stage in found[:first]}
    with recorded_outputs(network) as outputs:
        network(image)
    inside = [row for row in outputs if any(row[0] == name or row[0].startswith(f"{name}.") for name in frozen)]
    assert len(inside) >= first
    assert not [row for row in inside if row[1] or row[2]]
    outside = [row for row in outputs if row[0] == found[first].name]
    assert all(row[1] and row[2] for row in outside)
    assert outside


@pytest.mark.parametrize("kind", NETWORKS)
def test_frozen_stages_keep_every_bit_and_released_ones_move(kind: str) -> None:
    network, image = build(kind)
    take_steps(network, image, steps=1)  # leaves gradients behind, as an earlier run would
    method, epochs = GradualUnfreezing(PhasedSchedule(kept_frozen_stages=1)), 6
    method.prepare(network, image)
    found = stages(network, image)
    assert all(network.get_parameter(name).grad is None for name in found[0].parameter_names)
    start = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    groups_before: set[str] = set()
    released = []
    for epoch in range(1, epochs + 1):
        network.train()
        changed = method.advance(network, epoch, epochs)
        groups = {group.name for group in method.parameter_groups(network)}
        assert groups >= groups_before
        assert changed == (bool(groups - groups_before) and epoch > 1)
        groups_before = groups
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        take_steps(network, image, steps=1)
        for stage in found:
            trainable = {network.get_parameter(name).requires_grad for name in stage.parameter_names}
            assert len(trainable) == 1
            moved = [not torch.equal(network.get_parameter(name), before[name]) for name in stage.parameter_names]
            assert any(moved) if trainable == {True} else not any(moved)
        released.append(sum(network.get_parameter(stage.parameter_names[0]).requires_grad for stage in found))
    assert released == sorted(released)
    assert released[0] < released[-1] == len(found) - 1
    assert all(torch.equal(network.get_parameter(name), start[name]) for name in found[0].parameter_names)


def test_running_statistics_of_the_frozen_prefix_stand_still() -> None:
    torch.manual_seed(1)
    network, image = Normalised(), torch.randn(2, 1, 8, 8) + 5
    found = stages(network, image)
    network.train()
    release_only(network, found, range(1, len(found)))
    before = deepcopy(network.state_dict())
    network(image)
    after = network.state_dict()
    assert torch.equal(after["first.1.running_mean"], before["first.1.running_mean"])
    assert torch.equal(after["first.1.num_batches_tracked"], before["first.1.num_batches_tracked"])
    assert not torch.equal(after["second.1.running_mean"], before["second.1.running_mean"])
    release_only(network, found, range(0, len(found)))
    network(image)
    assert not torch.equal(network.state_dict()["first.1.running_mean"], before["first.1.running_mean"])
    assert network.training


def test_releasing_reports_whether_anything_changed() -> None:
    network = Normalised()
    found = stages(network, torch.zeros(2, 1, 8, 8))
    steps = [release_only(network, found, range(first, len(found))) for first in (0, 2, 2, 1, 0)]
    assert steps == [False, True, False, True, True]
