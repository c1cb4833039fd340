"""Several contrasts of one image are channels all the way: read, planned, trained, improved, predicted, refused."""

import json

import nibabel
import numpy as np
import pytest
from phantoms import make_case
from sites import save

from dafne_dante.models.file import read_model

SEEDS = (51, 52, 53, 54)


def write_two_contrasts(folder, seeds=SEEDS, *, contrasts=2):
    """Plain folders whose label "ball" is seen in the second contrast alone, and "box" in the first alone."""
    for seed in seeds:
        case = make_case(seed)
        first, second = case.image[0].copy(), case.image[0].copy()
        tissue = case.image[0][(case.segmentation == 0) & (case.image[0] > 0)]
        first[case.segmentation == 1] = np.median(tissue)
        second[case.segmentation == 2] = np.median(tissue)
        own = folder / f"c{seed}"
        own.mkdir(parents=True)
        save(own / "image.nii.gz", first, case.affine)
        if contrasts == 2:
            save(own / "image2.nii.gz", second, case.affine)
        for value, label in enumerate(case.labels, start=1):
            save(own / f"mask_{label}.nii.gz", (case.segmentation == value).astype(np.uint8), case.affine)
    return folder


def answer(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_two_contrasts(tmp_path_factory.mktemp("two") / "site")


@pytest.mark.parametrize("architecture", ["unet2d", "unet3d", "dynunet"])
def test_both_contrasts_are_used_from_the_first_model_to_the_improved_one(command, data, tmp_path, architecture):
    told = answer(command(
        "train", "--data", data, "--out", tmp_path / "out", "--epochs", 2, "--architecture", architecture,
        "--memory-gb", 0.5, "--json",
    ))  # fmt: skip
    model = tmp_path / "out" / "model.model"
    assert told["cases"] == len(SEEDS)
    assert read_model(model).plan.in_channels == 2
    improved = answer(command(
        "improve", "--base", model, "--data", data, "--out", tmp_path / "improved", "--epochs", 1, "--json"
    ))  # fmt: skip
    assert improved["cases"] == len(SEEDS)
    images = [data / "c51" / name for name in ("image.nii.gz", "image2.nii.gz")]
    masks = []
    for order in (images, images[::-1]):
        options = [word for path in order for word in ("--image", path)]
        answer(command("predict", "--model", model, *options, "--out", tmp_path / "mask.nii.gz", "--json"))
        masks.append(np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj))
    assert masks[0].shape == nibabel.load(images[0]).shape
    assert not np.array_equal(*masks), "the order of the contrasts matters, so both are looked at"


def test_another_number_of_contrasts_is_refused_in_one_line(command, data, tmp_path):
    answer(command("train", "--data", data, "--out", tmp_path / "out", "--epochs", 1, "--architecture", "unet2d",
                   "--memory-gb", 0.3, "--json"))  # fmt: skip
    model = tmp_path / "out" / "model.model"
    one = write_two_contrasts(tmp_path / "one", contrasts=1)
    code, out, err = command("improve", "--base", model, "--data", one, "--out", tmp_path / "x", "--json")
    assert (code, out) == (1, "")
    assert "expected 2 contrast(s), found 1" in err
    code, out, err = command(
        "predict", "--model", model, "--image", data / "c51" / "image.nii.gz", "--out", tmp_path / "mask.nii.gz"
    )
    assert (code, out) == (1, "")
    assert "expected images with 2 contrast(s), found 1" in err
    assert not (tmp_path / "mask.nii.gz").exists()
