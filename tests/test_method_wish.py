"""What a person may choose about a method: it reaches the method, or is refused with all that does not fit."""

import dataclasses
import json

import pytest
from phantoms import make_case
from sites import NEW_SCANNER

from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.adaptation.protocol import Method
from dafne_dante.adaptation.unfreezing import PhasedSchedule
from dafne_dante.adaptation.wish import METHOD_OPTIONS, MethodWish, check_wish, make_method, unused_words
from dafne_dante.errors import SettingsError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

LORA = ("dropout=0.25", "kinds=convolution, linear", "layers=*.model.*,*.up", "scale=1.5", "b_learning_rate_scale=4")


def test_every_choice_reaches_its_method():
    made = make_method(MethodWish("lora", rank=3, form="lora-channel", pull=2.0, options=LORA))
    assert made == LowRankAdaptation(
        rank=3, form="lora-channel", pull_to_start=2.0, dropout=0.25, kinds=("convolution", "linear"),
        layers=("*.model.*", "*.up"), scale=1.5, b_learning_rate_scale=4.0,
    )  # fmt: skip
    for schedule in ("paper", "phased", "probe"):
        wish = MethodWish("gradual-unfreezing", schedule=schedule, pull=5.0, options=("learning_rate_decay=0.5",))
        unfreezing = make_method(wish)
        assert (unfreezing.learning_rate_decay, unfreezing.pull_to_start) == (0.5, 5.0)
    for method, cls in (("lora", LowRankAdaptation), ("gradual-unfreezing", GradualUnfreezing)):
        known = {item.name for item in dataclasses.fields(cls) if item.init}
        assert METHOD_OPTIONS[method].keys() <= known, "an option is an attribute of its class"


@pytest.mark.parametrize("wish", [MethodWish("auto", rank=4, form="lora-channel", schedule="probe", pull=3.0),
                                  MethodWish("lora", options=LORA), MethodWish("full", pull=1.0, elastic=True),
                                  MethodWish("head"), MethodWish("auto")])  # fmt: skip
def test_what_fits_is_taken(wish):
    check_wish(wish)


def test_what_auto_had_no_use_for_is_told():
    wish = MethodWish("auto", rank=4, schedule="probe", pull=3.0)
    assert unused_words(wish, "gradual-unfreezing") == "gradual-unfreezing has no use for --rank 4"
    assert unused_words(wish, "lora") == "lora has no use for --schedule probe"
    assert unused_words(MethodWish("auto", rank=4, pull=3.0), "lora") == ""


MISFITS = {
    "an elastic pull of auto's": (MethodWish("auto", pull=3.0, elastic=True), ["--elastic, which is of full"]),
    "elastic without a pull": (MethodWish("full", elastic=True), ["--elastic without a pull"]),
    "LoRA's of another": (
        MethodWish("full", rank=4, form="lora-channel"), ["--rank 4, which is of lora", "--form lora-channel"],
    ),
    "a schedule of LoRA": (MethodWish("lora", schedule="probe"), ["--schedule probe, which is of gradual-unfreezing"]),
    "a pull of the head": (MethodWish("head", pull=1.0), ["--pull 1, which is of full, gradual-unfreezing, lora"]),
    "options of auto": (MethodWish("auto", options=("dropout=0.1",)), ["a method by name"]),
    "options of one that has none": (MethodWish("norm", options=("dropout=0.1",)), ["its options are none"]),
    "many at once": (
        MethodWish("lora", schedule="paper", options=("magic=1", "dropout=1", "scale=nan", "kinds=attention", "scale")),
        ["--schedule paper", "--option magic=1, where its options are b_learning_rate_scale (a number above 0)",
         "dropout is a number from 0 to below 1", "scale is a number above 0",
         "kinds is some of convolution/transposed/linear", "--option scale,"],
    ),
    "one twice": (MethodWish("lora", options=("scale=1", "scale=2")), ["--option scale twice"]),
    "a decay of nothing": (
        MethodWish("gradual-unfreezing", options=("learning_rate_decay=0",)), ["a number above 0 to 1"],
    ),
    "no layers": (MethodWish("lora", options=("layers=,",)), ["names of layers"]),
}  # fmt: skip


@pytest.mark.parametrize(("wish", "words"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_refused_and_all_of_it_is_told(wish, words):
    with pytest.raises(SettingsError) as told:
        check_wish(wish)
    assert all(word in str(told.value) for word in words), told.value


def test_a_negative_pull_is_refused_by_every_method_that_has_one():
    for name in ("full", "gradual-unfreezing", "lora"):
        with pytest.raises(TrainingError, match="pull to the start from 0"):
            make_method(MethodWish(name, pull=-1.0))


def moved(trained, method: Method, *, epochs=4):
    """How far tuning by the method takes the weights from the base's; the network is left with LoRA folded in."""
    model = read_model(trained / "base.model")
    network = build_network(model.plan, model.weights)
    cases = prepare_cases([make_case(seed, **NEW_SCANNER) for seed in (31, 32)], model.plan)
    recipe = Recipe(epochs=epochs, last_epoch=epochs, steps_per_epoch=5, learning_rate=3e-3)
    fit(network, model.plan, method, cases, (), recipe=recipe)
    method.finish(network)
    return {
        name: float((value.detach() - model.weights[name]).square().sum())
        for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", ["lora", "gradual-unfreezing"])
def test_a_pull_holds_what_lora_and_unfreezing_move(trained, name):
    free, pulled = (moved(trained, make_method(MethodWish(name, pull=pull))) for pull in (0.0, 100.0))
    assert 0 < sum(pulled.values()) < 0.5 * sum(free.values())


def test_what_is_released_late_is_pulled_too(trained):
    """A pull of all of the way: nothing moves but what the last step's clipping and warm-up leave."""
    schedule = PhasedSchedule(initial_frozen_share=1.0, kept_frozen_stages=0, plateau_epochs=0)
    free, held = (moved(trained, GradualUnfreezing(schedule, pull_to_start=pull)) for pull in (0.0, 1e6))
    first = "unet_model.model.0.conv.unit0.conv.weight"
    assert free[first] > 0, "the input's end is released in the end"
    assert all(held[name] <= 1e-3 * value for name, value in free.items() if value)


REFUSED = {
    "elastic of auto": (("--elastic", "--pull", "3", "--replay", "DATA"), "--elastic, which is of full"),
    "elastic without a pull": (("--method", "full", "--elastic", "--replay", "DATA"), "--elastic without a pull"),
    "a rank of unfreezing": (("--method", "gradual-unfreezing", "--rank", "4"), "--rank 4, which is of lora"),
    "options": (
        ("--method", "lora", "--option", "dropout=2", "--option", "magic=1"), "dropout is a number from 0 to below 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_the_command_refuses_before_anything_is_read(command, tmp_path, options, words):
    options = [tmp_path if one == "DATA" else one for one in options]
    code, _, told = command(
        "improve",
        "--data",
        tmp_path / "nothing",
        "--base",
        tmp_path / "none.model",
        "--out",
        tmp_path / "out",
        *options,
    )
    assert code == 1
    assert words in told
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_auto_had_no_use_for_and_takes_options(command, trained, tmp_path):
    """The base never saw such a scanner, so that unfreezing is chosen."""
    start = ("improve", "--data", trained / "new", "--base", trained / "base.model", "--epochs", 1, "--json", "--out")
    code, _, told = command(*start, tmp_path / "auto", "--rank", 4, "--pull", 1)
    assert code == 0, told
    assert "gradual-unfreezing has no use for --rank 4" in told
    sizes = []
    for options in ((), ("--option", "layers=*.1.submodule.1.*")):
        code, out, told = command(*start, tmp_path / f"out{len(options)}", "--method", "lora", *options)
        assert code == 0, told
        sizes.append(json.loads(out)["delta_bytes"])
    assert sizes[1] < sizes[0], "fewer layers are adapted"
