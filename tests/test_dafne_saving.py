"""What is drawn in Dafne becomes a kept case with the slices that were really annotated, and a job for its model.

The window is a stand-in with Dafne's own names; tests/dafne_client drives the real one.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.new_slices import new_slices
from dafne_dante.annotations.store.opening import open_case_store
from dafne_dante.config import Settings, WorkerSettings
from dafne_dante.errors import AnnotationError, SettingsError
from dafne_dante.host.dafne_qt.drawn import drawn_study, model_type_of
from dafne_dante.host.keeping import keep_save
from dafne_dante.plugin.jobs import DEBOUNCE_S, open_jobs

AFFINE = np.diag([1.5, 1.5, 4.0, 1.0])
SHAPE = (9, 7, 5)


class Rois:
    """Dafne's store of masks: `get_mask` makes what it is asked for, so that looking at it can change it."""

    def __init__(self, **masks):
        self.masks = {name: {z: mask.copy() for z, mask in by_slice.items()} for name, by_slice in masks.items()}

    def get_roi_names(self):
        return list(self.masks)

    def contains(self, name, index):
        return index in self.masks.get(name, {})

    def get_mask(self, name, index):
        return self.masks.setdefault(name, {}).setdefault(index, np.zeros(SHAPE[:2]))


def square(corner, kind=np.uint8):
    mask = np.zeros(SHAPE[:2], kind)
    mask[corner : corner + 3, 1:4] = 1
    return mask


def window(classification="Thigh, Left", **masks):
    volume = np.random.default_rng(0).normal(100, 20, SHAPE)
    image = SimpleNamespace(volume=volume, affine=AFFINE)
    return SimpleNamespace(
        medical_volume=image, roiManager=Rois(**masks), classifications=[classification] * SHAPE[2], curImage=2.0
    )


DRAWN = {
    "vastus": {1: square(0), 3: square(2, np.float64), 4: np.zeros(SHAPE[:2], np.uint8)},
    "rectus": {3: square(5)},
    "empty": {0: np.zeros(SHAPE[:2], np.uint8)},
}


@pytest.fixture
def settings(tmp_path):
    return Settings(folder=tmp_path / "configuration")


def test_only_slices_with_something_drawn_are_annotated_and_voxels_stay_where_they_are(settings):
    shown = window(**DRAWN)
    kept = keep_save(drawn_study(shown), "Thigh", settings, open_jobs(settings))
    case = open_case_store(settings, say=print).read(kept.added.case_id)
    assert (case.labels, kept.annotated) == (("rectus", "vastus"), 2)
    assert case.annotated.tolist() == [False, True, False, True, False]
    assert case.spacing_mm == (1.5, 1.5, 4.0)
    assert np.array_equal(case.segmentation[:, :, 3], square(5) + 2 * square(2))
    assert np.array_equal(case.image[0], shown.medical_volume.volume.astype(np.float32))


def test_looking_leaves_what_dafne_has_as_it_was_and_later_strokes_do_not_reach_the_copy():
    shown = window(**DRAWN)
    before = {name: sorted(found) for name, found in shown.roiManager.masks.items()}
    study = drawn_study(shown)
    assert {name: sorted(found) for name, found in shown.roiManager.masks.items()} == before
    shown.roiManager.masks["vastus"][1][:] = 0
    shown.medical_volume.volume[:] = 0
    image = study.read({"vastus": 1})
    assert image.segmentation[:, :, 1].sum() == 9
    assert image.grid.image.max() > 50


@pytest.mark.parametrize(
    "shown",
    [
        SimpleNamespace(medical_volume=None, roiManager=None),
        SimpleNamespace(medical_volume=window().medical_volume, roiManager=None),
        window(),
        window(empty=DRAWN["empty"]),
    ],
    ids=["nothing open", "no annotations yet", "no label", "nothing drawn"],
)
def test_without_anything_drawn_there_is_no_study(shown):
    assert drawn_study(shown) is None


def test_a_volume_that_is_not_finite_is_refused_and_asks_for_no_job(settings):
    shown = window(**DRAWN)
    shown.medical_volume.volume[0, 0, 0] = np.nan
    with pytest.raises(AnnotationError, match="finite"):
        keep_save(drawn_study(shown), "Thigh", settings, open_jobs(settings))
    assert open_jobs(settings).jobs() == []


@pytest.mark.parametrize(
    ("chosen", "name"), [("Thigh", "Thigh"), ("Thigh, Left", "Thigh"), ("None", ""), ("Brain (3D)", "Brain (3D)")]
)
def test_the_model_is_the_one_of_the_slice_without_its_variant(chosen, name):
    assert model_type_of(window(chosen)) == name


def test_before_anything_is_open_there_is_no_model():
    assert not model_type_of(SimpleNamespace(classifications=[], curImage=0))


def test_a_save_asks_for_one_job_and_the_same_save_for_none(settings):
    queue = open_jobs(settings)
    first = keep_save(drawn_study(window(**DRAWN)), "Thigh", settings, queue)
    again = keep_save(drawn_study(window(**DRAWN)), "Thigh", settings, queue)
    assert (first.added.outcome, again.added.outcome, again.job) == ("new", "unchanged", None)
    assert [(job.trigger, job.model_type, job.not_before_s - job.created_s) for job in queue.jobs()] == [
        ("saved", "Thigh", DEBOUNCE_S)
    ]


def test_a_correction_replaces_the_case_and_puts_the_job_off(settings):
    queue = open_jobs(settings)
    first = keep_save(drawn_study(window(**DRAWN)), "Thigh", settings, queue)
    corrected = keep_save(drawn_study(window(vastus={1: square(1)})), "Thigh", settings, queue)
    assert (corrected.added.outcome, corrected.added.case_id) == ("replaced", first.added.case_id)
    (job,) = queue.jobs()
    assert job.not_before_s > first.job.not_before_s
    assert len(open_case_store(settings, say=print).cases()) == 1


def save(settings, queue, **masks):
    return keep_save(drawn_study(window(**masks)), "Thigh", settings, queue)


def test_too_little_for_a_job_adds_up_until_it_is_enough(settings):
    queue = open_jobs(settings)
    one, two = {1: square(0)}, {1: square(0), 2: square(1)}
    assert (save(settings, queue, vastus=one).job, queue.jobs()) == (None, [])
    assert save(settings, queue, vastus=one).job is None, "the same again is nothing new"
    assert queue.jobs() == []
    kept = save(settings, open_jobs(settings), vastus=two)
    assert (kept.annotated, kept.fresh, kept.job.trigger) == (2, 1, "saved")
    assert save(settings, queue, vastus={**two, 3: square(0)}).job.job_id == kept.job.job_id, "one that waits takes it"


def test_what_a_job_learned_from_is_not_counted_for_the_next_one(settings):
    queue = open_jobs(settings)
    save(settings, queue, vastus={1: square(0)})
    queue.claim(queue.add("Thigh", "button").job_id, "a 1 1 0")
    assert save(settings, queue, vastus={1: square(0), 2: square(0)}).job is None
    assert save(settings, queue, vastus={1: square(1), 2: square(0)}).job is not None, "a slice drawn anew is new"


def test_another_model_s_slices_are_its_own_and_the_setting_says_how_many(settings):
    queue = open_jobs(settings)
    at_once = replace(settings, worker=WorkerSettings(after_slices=1))
    save(settings, queue, vastus={1: square(0)})
    assert keep_save(drawn_study(window(rectus={1: square(0)})), "Leg", settings, queue).job is None
    assert keep_save(drawn_study(window(rectus={2: square(0)})), "Leg", at_once, queue).job.model_type == "Leg"
    assert [job.model_type for job in queue.jobs()] == ["Leg"]


def case(annotated, labels=("a", "b"), value=1, shape=(4, 4, 3)):
    segmentation = np.zeros(shape, np.uint8)
    segmentation[1:3, 1:3, annotated] = value
    flags = np.zeros(shape[2], bool)
    flags[annotated] = True
    return Case("c", np.zeros((1, *shape), np.float32), segmentation, flags, np.eye(4), labels)


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (None, case([0, 2]), 2),
        (case([0, 2]), case([0, 2]), 0),
        (case([0]), case([0, 2]), 1),
        (case([0, 2]), case([0]), 0),
        (case([0, 2], value=1), case([0, 2], value=2), 2),
        (case([0, 2], ("a", "b"), 1), case([0, 2], ("b", "a"), 2), 0),
        (case([0, 2], ("b",), 1), case([0, 2], ("a", "b"), 2), 0),
        (case([0], shape=(4, 4, 2)), case([0], shape=(4, 4, 3)), 1),
    ],
    ids=["new", "same", "one more", "one less", "other label", "other order", "more labels", "other image"],
)
def test_slices_are_new_when_they_show_something_else(before, after, count):
    assert new_slices(before, after) == count


def test_without_a_model_the_case_is_kept_and_nothing_is_asked_for(settings):
    kept = keep_save(drawn_study(window("None", **DRAWN)), "", settings, open_jobs(settings))
    assert (kept.added.outcome, kept.job, open_jobs(settings).jobs()) == ("new", None, [])


def test_a_name_that_can_be_no_model_is_refused_after_the_case_was_kept(settings):
    with pytest.raises(SettingsError):
        keep_save(drawn_study(window(**DRAWN)), "a\nb", settings, open_jobs(settings))
    assert len(open_case_store(settings, say=print).cases()) == 1
