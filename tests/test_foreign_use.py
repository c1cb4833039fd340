"""What a site can do with a model whose code it trusts: segment from the command line, and measure it on cases."""

import hashlib
import json
from collections import OrderedDict
from functools import cache

import nibabel
import numpy as np
import pytest
import torch
from phantoms import make_case
from pickled import foreign_file
from sites import write_cases

from dafne_dante.config import Settings, configuration_folder, write_settings
from dafne_dante.errors import IncompatibleModelError, NotEnoughCasesError, UnsupportedModelError
from dafne_dante.models.file import serialise_model
from dafne_dante.models.foreign.isolation import Limits, missing_isolation
from dafne_dante.models.foreign.loading import read_any_model
from dafne_dante.models.foreign.model import ForeignModel, parse_foreign_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.training.evaluate_foreign import evaluate_foreign

pytestmark = pytest.mark.skipif(bool(missing_isolation()), reason="this system cannot isolate a process")
LIMITS = Limits(seconds=60, memory_bytes=8 * 1024**3, threads=1)
BUILD = "def init_model():\n    import torch\n    return torch.nn.Threshold(0, 0)\n"
APPLY = """\
def apply_model(model_object, data):
    image = data["image"]
    return {"upper": image > 250, "bright": image > 150}
"""


@cache  # torch writes addresses into a pickle, so that no two are alike
def content(labels=("upper", "bright")):
    apply = APPLY.replace("upper", labels[0]).replace("bright", labels[1])
    weights = OrderedDict(unused=torch.zeros(1))
    fill = "def fill(model_object, weights):\n    model_object.filled = weights['unused']\n"
    return foreign_file(metadata={}, weights=weights, init_model_function=BUILD, apply_model_function=apply,
                        weights_to_model_function=fill)  # fmt: skip


def test_a_trusted_file_is_run_only_where_there_is_no_other_way(tmp_path):
    own, ours = tmp_path / "own.model", tmp_path / "ours.model"
    own.write_bytes(content())
    ours.write_bytes(foreign_file())
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (own, ours)]
    assert isinstance(read_any_model(own, run_model_code=digests), ForeignModel)
    model = read_any_model(ours, run_model_code=digests)
    assert isinstance(model, GlobalModel) and serialise_model(model)
    with pytest.raises(UnsupportedModelError, match=f"run_model_code = ..{digests[0]}"):
        read_any_model(own, run_model_code=digests[1:])


def test_predict_from_the_command_line(command, tmp_path):
    model, image, out = tmp_path / "own.model", tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz"
    model.write_bytes(content())
    values = np.zeros((6, 5, 4), np.float32)
    values[1], values[2:4] = 300, 200
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, 1, 1, 1])), image)  # the first axis runs to the left
    arguments = ("predict", "--model", model, "--image", image, "--out", out, "--json")
    code, _, errors = command(*arguments)
    digest = parse_foreign_model(content()).sha256
    assert code != 0 and f'run_model_code = ["{digest}"]' in errors and not out.exists()
    write_settings(Settings(folder=configuration_folder(), run_model_code=(digest,)))
    code, told, _ = command(*arguments)
    # "bright" comes after "upper" and holds it, so it is what counts where both lie
    assert code == 0 and json.loads(told)["voxels"] == {"upper": 0, "bright": 60}
    assert np.array_equal(np.asarray(nibabel.load(out).dataobj) == 2, values > 150)
    model.write_bytes(content().replace(b"150", b"151"))
    assert command(*arguments)[0] != 0


def test_evaluate_from_the_command_line(command, tmp_path):
    data = write_cases(tmp_path / "cases", (1,))
    model = tmp_path / "own.model"
    model.write_bytes(content(("ball", "box")))
    write_settings(
        Settings(folder=configuration_folder(), run_model_code=(hashlib.sha256(model.read_bytes()).hexdigest(),))
    )
    code, told, errors = command("evaluate", "--model", model, "--data", data, "--json")
    assert code == 0, errors
    scores = json.loads(told)
    assert scores.keys() == {"dice", "cases", "taken", "left"} and scores["cases"] == 1
    assert 0 < scores["dice"]["ball"] <= 1 and 0 < scores["dice"]["box"] < 1
    improve = ("improve", "--base", model, "--data", data, "--out", tmp_path / "out", "--json")
    code, _, errors = command(*improve)
    assert code != 0 and "but not be improved" in errors


def test_dice_is_measured_label_by_label():
    case = make_case(1, bright=(300.0, 200.0), noise=0.0)
    trusted = [parse_foreign_model(content(case.labels)).sha256]
    found = evaluate_foreign(parse_foreign_model(content(case.labels)), [case], run_model_code=trusted, limits=LIMITS)
    expected = {}
    for value, (name, bound) in enumerate(zip(case.labels, (250, 150), strict=True), start=1):
        mask = case.image[0] > bound
        known = np.broadcast_to(case.annotated, mask.shape)
        reference = (case.segmentation == value) & known
        expected[name] = 2 * (mask & reference).sum() / ((mask & known).sum() + reference.sum())
    assert {name: found[name] for name in case.labels} == pytest.approx(expected)
    assert 0 < found["mean"] < 1


def test_cases_of_another_model_are_refused():
    model = parse_foreign_model(content())
    with pytest.raises(NotEnoughCasesError):
        evaluate_foreign(model, [], run_model_code=[model.sha256], limits=LIMITS)
    with pytest.raises(IncompatibleModelError, match="found one that finds upper, bright"):
        evaluate_foreign(model, [make_case(1)], run_model_code=[model.sha256], limits=LIMITS)
    with pytest.raises(UnsupportedModelError, match="trusts"):
        evaluate_foreign(model, [make_case(1)], run_model_code=[], limits=LIMITS)
