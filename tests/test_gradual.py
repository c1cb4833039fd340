"""Gradual unfreezing beyond its schedule: where it begins, what it costs, and how what is released warms up."""

import numpy as np
import pytest
import torch
from limbs import limb_plan, make_limb
from networks import build
from torch import nn

from dafne_dante.adaptation.gradual import SCHEDULE_NAMES, GradualUnfreezing, gradual_unfreezing_by
from dafne_dante.adaptation.stages import stages
from dafne_dante.adaptation.unfreezing import PaperSchedule, PhasedSchedule
from dafne_dante.adaptation.work import live_share, stage_work
from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.recipe import rate_factor


def moving(network, found):
    return [network.get_parameter(stage.parameter_names[0]).requires_grad for stage in found]


@pytest.mark.parametrize("direction", ["output", "input"])
def test_release_begins_where_it_was_asked_to(direction):
    network, image = build("unet 2D")
    found = stages(network, image)
    method = GradualUnfreezing(PhasedSchedule(0.8, phases=2), direction=direction)
    method.prepare(network, image)
    live = moving(network, found)
    assert 0 < sum(live) < len(live)
    assert live == sorted(live, reverse=direction == "input")


def test_a_probe_begins_with_the_stage_that_the_loss_asks_most_of():
    network, image = build("unet 2D")
    found = stages(network, image)
    method = GradualUnfreezing(PhasedSchedule(1.0, phases=1, kept_frozen_stages=9), direction="probe")
    method.prepare(network, image)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    wanted = network.get_parameter(found[2].parameter_names[0])

    def losses():
        return [network(image).mean() + 1e6 * wanted.sum(), network(image).mean()]

    method.look(network, losses)
    assert moving(network, found) == [index == 2 for index in range(len(found))]
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_phases_end_on_a_plateau_or_when_their_time_is_over_and_never_go_back():
    schedule = PhasedSchedule(initial_frozen_share=1.0, phases=3, released_by_share_of_epochs=1.0, plateau_epochs=2)
    rising = list(np.linspace(0, 1, 12))
    flat = [0.5] * 12

    def frozen(scores):
        return [schedule.frozen(epoch, 12, 7, scores[: epoch - 1]) for epoch in range(1, 13)]

    assert frozen(rising) == [6] * 6 + [4] * 6  # the third phase would begin after the last epoch
    assert frozen(flat) == [6, 6, 6, 4, 4, 1, 1, 1, 1, 1, 1, 1]
    assert schedule.frozen(4, 12, 7) == 6, "without scores, by time alone"


def test_later_stages_learn_more_slowly_where_that_is_asked_for():
    network, image = build("unet 2D")
    method = GradualUnfreezing(PhasedSchedule(0.0, phases=1, kept_frozen_stages=0), learning_rate_decay=0.5)
    method.prepare(network, image)
    count = len(stages(network, image))
    scales = [group.learning_rate_scale for group in method.parameter_groups(network)]
    assert min(scales) == 0.5 ** (count - 1)
    assert max(scales) == 1.0
    assert scales == sorted(scales)
    with pytest.raises(TrainingError, match="decay"):
        GradualUnfreezing(learning_rate_decay=0.0)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_every_schedule_by_name_trains_and_says_what_moves(name):
    plan = limb_plan(2)
    torch.manual_seed(0)
    network, said = build_network(plan), []
    cases = prepare_cases([make_limb(1)], plan)
    method = gradual_unfreezing_by(name)
    recipe = Recipe(epochs=6, steps_per_epoch=1, learning_rate=1e-2)
    history = fit(network, plan, method, cases, cases, recipe=recipe, on_stage=said.append).history
    live = [record.trainable_parameters for record in history]
    assert live == sorted(live)
    assert live[0] < live[-1]
    live_in_the_end = sum(parameter.numel() for parameter in network.parameters())
    counts = [f": {live:,} of {live_in_the_end:,} parameters (" for live in sorted(set(live))]
    for words, count in zip(said, counts, strict=True):
        assert "stages move" in words and count in words and "% of a step's work" in words
    assert len(said) == len(set(live))


def test_an_unknown_schedule_is_refused_and_the_papers_is_on_modules():
    with pytest.raises(TrainingError, match="paper, phased, probe, found dante"):
        gradual_unfreezing_by("dante")
    paper = gradual_unfreezing_by("paper")
    assert (paper.schedule, paper.unit) == (PaperSchedule(), "module")


def test_work_is_counted_by_hand_for_a_small_network():
    network = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ConvTranspose1d(3, 4, 2, stride=2), nn.Flatten())
    network.append(nn.Linear(80, 5))
    example = torch.zeros(1, 2, 10)
    work = stage_work(network, example, stages(network, example))
    assert work == (10 * 2 * 3 * 3, 10 * 3 * 4 * 2, 80 * 5)
    first, second, third = work
    whole = 3 * sum(work)
    assert live_share(work, [True, True, True]) == 1
    assert live_share(work, [False, True, True]) == pytest.approx((sum(work) + 2 * (second + third)) / whole)
    assert live_share(work, [True, False, True]) == pytest.approx((sum(work) + 2 * first + second + 2 * third) / whole)
    assert live_share((0.0, 0.0), [True, False]) == 1


def test_what_was_just_released_warms_up_by_itself():
    recipe = Recipe(epochs=10, steps_per_epoch=10, warmup_steps=10, warmup_share=0.1)
    assert rate_factor(41, recipe, steps_before=40) == pytest.approx(0.1 * rate_factor(41, recipe))
    assert rate_factor(50, recipe, steps_before=40) == rate_factor(50, recipe)
    assert [rate_factor(step, recipe) for step in (1, 5, 10)] == [0.1, 0.5, 1.0]
