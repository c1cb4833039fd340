"""What a set of cases is like: numbers only, from labelled slices only, one case at a time."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
from phantoms import make_case
from sites import write_cases

from dafne_dante.annotations.case import Case
from dafne_dante.config import Settings
from dafne_dante.errors import AnnotationError, NotEnoughCasesError
from dafne_dante.models.planning.fingerprint import combine_fingerprints, fingerprint_case
from dafne_dante.plugin.collecting import CaseRequest, survey_cases


def made(image, segmentation, annotated=None, spacing=(0.5, 0.75, 4.0)):
    slices = np.ones(segmentation.shape[-1], bool) if annotated is None else np.array(annotated)
    return Case("0" * 16, image, segmentation, slices, np.diag([*spacing, 1.0]), ("muscle", "fat"))


def test_sizes_are_slices_first_and_those_of_the_tissue():
    image = np.zeros((2, 10, 12, 6), np.float32)
    image[0, 2:9, 3:5, 1:4] = 7
    image[1, 4, 8, 4] = 3
    found = fingerprint_case(made(image, np.zeros((10, 12, 6), np.uint8)))
    assert found.spacing_mm == (4.0, 0.5, 0.75)
    assert found.shape == (6, 10, 12)
    assert found.tissue == (4, 7, 6), "the box of both contrasts"
    assert [contrast.median for contrast in found.intensities] == [7.0, 3.0]
    whole = combine_fingerprints([found])
    assert whole.tissues_at((2.0, 1.0, 0.75)).tolist() == [[8, 4, 6]]
    assert whole.contrasts == 2


def test_labels_are_counted_where_somebody_looked():
    segmentation = np.zeros((4, 4, 5), np.uint8)
    segmentation[:2, 0, :] = 1
    segmentation[3, 3, 1] = 2
    found = fingerprint_case(made(np.ones((1, 4, 4, 5), np.float32), segmentation, [True, False, True, False, False]))
    assert (found.annotated_slices, found.label_voxels) == (2, (4, 0))
    described = combine_fingerprints([found, found]).describe()
    assert described["labels"] == {
        "muscle": {"cases": 2, "drawn_ml": 0.006},
        "fat": {"cases": 0, "drawn_ml": None},
    }
    assert (described["annotated_slices"], described["slices"]) == (4, 10)


def test_intensities_are_those_of_voxels_that_are_not_zero():
    image = np.zeros((1, 10, 10, 10), np.float32)
    image.reshape(-1)[:500] = np.arange(1, 501)
    values = fingerprint_case(made(image, np.zeros((10, 10, 10), np.uint8))).intensities[0]
    assert values.mean == pytest.approx(250.5)
    assert values.median == pytest.approx(250.5)
    assert values.deviation == pytest.approx(np.arange(1, 501).std())
    assert (values.low, values.high) == tuple(np.percentile(np.arange(1, 501), (0.5, 99.5)))
    empty = fingerprint_case(made(image * 0, np.zeros((10, 10, 10), np.uint8)))
    assert empty.intensities[0].mean == 0.0
    assert empty.tissue == (10, 10, 10)


def test_a_large_image_is_sampled_and_close():
    image = np.random.default_rng(0).gamma(4.0, 50.0, (1, 128, 128, 96)).astype(np.float32)
    case = made(image, np.zeros((128, 128, 96), np.uint8))
    values = fingerprint_case(case).intensities[0]
    assert values.mean == pytest.approx(float(image.mean()), rel=0.005)
    assert values.high == pytest.approx(float(np.percentile(image, 99.5)), rel=0.02)
    assert fingerprint_case(case) == fingerprint_case(case)


def test_cases_must_agree():
    one = fingerprint_case(make_case(1))
    with pytest.raises(NotEnoughCasesError, match="found none"):
        combine_fingerprints([])
    for other in (replace(one, labels=("ball", "cube")), replace(one, intensities=one.intensities * 2)):
        with pytest.raises(AnnotationError, match="same labels and contrasts"):
            combine_fingerprints([one, other])


def test_nothing_in_it_tells_whose_it_is():
    case = replace(make_case(1), case_id="feedfacefeedface")
    fingerprint = combine_fingerprints([fingerprint_case(case)])
    assert "feedface" not in repr(fingerprint) + json.dumps(fingerprint.describe())
    moved = replace(case, affine=case.affine + np.array([[0, 0, 0, 99.0]] * 3 + [[0, 0, 0, 0]]))
    assert fingerprint_case(moved) == fingerprint.cases[0], "nor where the body lay"


def test_studies_are_held_one_at_a_time(tmp_path):
    write_cases(tmp_path, (1, 2, 3, 4))
    alive, most = weakref.WeakSet(), []

    class Held:
        pass

    def look(case):
        token = Held()
        object.__setattr__(case, "token", token)
        alive.add(token)
        most.append(len(alive))
        return fingerprint_case(case)

    survey = survey_cases(CaseRequest((tmp_path,)), Settings(folder=tmp_path), look)
    assert most == [1, 1, 1, 1]
    assert len(survey.seen) == len(survey.taken) == 4
