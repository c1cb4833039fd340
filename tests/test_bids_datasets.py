"""Where the datasets of a BIDS folder lie, and what happens to all that is in doubt: nothing is guessed or dropped."""

import json
import shutil
import time

import numpy as np
import pytest
from oriented import AFFINE, image_array, label_array, oblique, write
from test_bids import DERIVED, TABLE, describe, only_left, put, site, taken
from test_folders import plain

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.nifti.bids import find_bids_studies
from dafne_dante.annotations.nifti.bids_files import is_bids_folder
from dafne_dante.annotations.reading import Reading, read_case
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.errors import NotEnoughCasesError, UnreadableImageError

__all__ = ["site"]  # a fixture

ANAT = f"{DERIVED}/sub-1/anat"
STUDY = "anat/sub-1_dseg"


def same_as_plain(folder, tmp_path):
    (case,) = taken(folder).values()
    (same,) = collect(find_studies_in([plain(tmp_path / "plain", ("a",))]), ("left", "top")).cases
    for name in ("image", "segmentation", "affine", "annotated"):
        np.testing.assert_array_equal(getattr(case, name), getattr(same, name))
    return True


def link(folder, **entries):
    facts = json.loads((folder / "dataset_description.json").read_text())
    (folder / "dataset_description.json").write_text(json.dumps(facts | entries))


def sums(folder):
    return [one.reason for one in find_bids_studies(folder).left if one.reason[0].isdigit()]


def moved(site, *ways):
    """The site with folders moved; a way is `from to`."""
    for way in ways:
        start, end = way.split()
        (site / end).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(site / start, site / end)


@pytest.mark.parametrize("ways", [
    ("derivatives/manual/sub-1 derivatives/sub-1", "derivatives/manual/dseg.tsv derivatives/dseg.tsv"),
    ("derivatives/manual derivatives/first/derivatives/manual",),
    ("sub-1 rawbids/sub-1", "sub-2 rawbids/sub-2", "dataset_description.json rawbids/dataset_description.json"),
    ("sub-1 sourcedata/raw/sub-1", "sub-2 sourcedata/raw/sub-2",
     "dataset_description.json sourcedata/raw/dataset_description.json"),
])  # fmt: skip
def test_datasets_are_found_wherever_bids_puts_them(site, tmp_path, ways):
    moved(site, *ways)
    if not is_bids_folder(site):
        describe(site, "study")
    assert same_as_plain(site, tmp_path)


def test_a_derivative_carries_its_raw_dataset_with_it(site, tmp_path):
    alone = tmp_path / "alone"
    shutil.move(site / DERIVED, alone)
    shutil.move(site, alone / "rawbids")
    assert same_as_plain(alone, tmp_path)


@pytest.mark.parametrize("kind", ["derivative", None])
def test_a_derivative_named_by_itself_is_drawn_on_the_dataset_around_it(site, tmp_path, kind):
    describe(site / DERIVED, kind)
    assert same_as_plain(site / DERIVED, tmp_path)
    assert sums(site / DERIVED) == [], "the images around it are not its own"


@pytest.mark.parametrize("entries", [
    {"DatasetLinks": {"raw": "../site"}}, {"SourceDatasets": [{"URL": "../site/"}, {"DOI": "10.1/2"}, 5]},
])  # fmt: skip
def test_a_derivative_beside_its_raw_dataset_says_so(site, tmp_path, entries):
    beside = tmp_path / "labels"
    shutil.move(site / DERIVED, beside)
    assert "found none of its acquisition and space; name the raw dataset" in only_left(beside)[0]
    link(beside, **entries)
    assert same_as_plain(beside, tmp_path)


@pytest.mark.parametrize("where", [
    "/etc", "..", "../..", "../site/../site", "../site2", "file:///etc", "../site\0", "../SITE", "", "../", "./",
])  # fmt: skip
def test_links_lead_nowhere_but_to_a_dataset_beside(site, tmp_path, where):
    beside = tmp_path / "labels"
    shutil.move(site / DERIVED, beside)
    link(beside, DatasetLinks={"raw": where}, SourceDatasets=[{"URL": where}])
    assert "found none of its acquisition and space" in only_left(beside)[0]


def test_links_to_folders_are_told_and_not_followed(site, tmp_path):
    shutil.move(site / "sub-2", tmp_path / "elsewhere")
    (site / "sub-2").symlink_to(tmp_path / "elsewhere")
    (site / "derivatives" / "more").symlink_to(tmp_path)
    assert "2 link(s) to folders, which are not followed" in sums(site)
    assert len(taken(site)) == 1


def test_what_is_not_read_is_counted(site):
    anat = site / ANAT
    (anat / "sub-1_label-liver_mask.nii.gz").symlink_to(".git/annex/objects/nowhere")
    put(site, f"{ANAT}/sub-1_T1w_seg {ANAT}/more/deep/sub-1_dseg {ANAT}/sub-1_label-liver_roi {ANAT}/sub-1_probseg")
    (anat / "SUB.NII.GZ").write_bytes(b"")
    (site / "derivatives" / "report").mkdir()
    assert sums(site) == [
        "1 image(s) without a _dseg or _mask that is taken",
        "1 probability map(s); expected _dseg or _mask",
        "1 drawing(s) under other names; expected _dseg or _mask",
        "3 NIfTI file(s) or folder(s) whose names or places are none of BIDS",
        "1 link(s) to files that are not here; fetch them",
        "1 derivative(s) without folders sub-<label>",
    ]


def test_a_damaged_image_does_not_decide_which_one_was_drawn_on(site):
    """Were it passed over, the T2w would be taken for what the T1w's labels were drawn on."""
    put(site, "sub-1/anat/sub-1_T2w")
    (site / "sub-1/anat/sub-1_T1w.nii.gz").write_bytes(b"no image")
    (reason,) = only_left(site)
    assert reason.startswith("sub-1_T1w.nii.gz: expected a NIfTI file")


@pytest.mark.parametrize("source", ["bids:raw:sub-1/anat/sub-1_T2w.nii.gz", "sub-1/anat/sub-1_acq-thin_T1w.nii.gz"])
def test_another_contrast_than_the_sidecar_names_is_never_taken(site, source):
    (site / DERIVED / "dseg.json").write_text(json.dumps({"Sources": [source, "bids:fs:sub-1/mri/aseg.mgz"]}))
    (reason,) = only_left(site)
    assert "the image that its sidecar names under Sources, found none" in reason


@pytest.mark.parametrize("source", ["bids::sub-1/anat/sub-1_desc-preproc_T1w.nii.gz", "bids:fs:sub-1/mri/aseg.mgz"])
def test_a_cleaned_image_that_was_not_kept_stands_for_the_raw_one(site, source):
    put(site, "sub-1/anat/sub-1_T2w")
    (site / DERIVED / "dseg.json").write_text(json.dumps({"Sources": [source]}))
    if "T1w" in source:
        assert [path.name for path in find_studies_in([site]).studies[0].images] == ["sub-1_T1w.nii.gz"]
    else:
        assert "found sub-1_T1w.nii.gz and sub-1_T2w.nii.gz" in only_left(site)[0]


def test_sidecars_add_to_those_above_them(site):
    """BIDS' inheritance principle, rule 5.b: tables replace each other, JSON does not."""
    (site / DERIVED / "dseg.tsv").unlink()
    put(site, "sub-1/anat/sub-1_T2w")
    (site / DERIVED / "dseg.json").write_text(json.dumps({"LabelMap": {"1": "left", "2": "top"}, "Sources": ["x"]}))
    own = {"Sources": ["bids:raw:sub-1/anat/sub-1_T2w.nii.gz"]}
    (site / DERIVED / "sub-1/anat/sub-1_dseg.json").write_text(json.dumps(own))
    (study,) = find_studies_in([site]).studies
    assert (study.labels, study.images[0].name) == (("left", "top"), "sub-1_T2w.nii.gz")


@pytest.mark.parametrize("content", [
    b"[" * 100_000, b"[]", b"{", b"\xff", b'{"LabelMap": {"1": "left", "1": "top"}}', b" " * (5 << 20),
    b'{"LabelMap": {"left": 1}}', b'{"LabelMap": {"1": null}}', b'{"LabelMap": ["left"]}', b'{"Sources": {"a": [1]}}',
    b'{"LabelMap": {"1": "a", " 1": "b"}}', b'{"LabelMap": {"\xc2\xb2": "a"}}',
])  # fmt: skip
def test_a_hostile_sidecar_leaves_its_file(site, content):
    (site / DERIVED / "dseg.tsv").unlink()
    (site / DERIVED / "dseg.json").write_bytes(content)
    (reason,) = only_left(site)
    assert "dseg" in reason or "LabelMap" in reason


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b'{"BIDSVersion": 1}', b"\xff", b" " * (2 << 20)])
def test_a_hostile_description_is_none(tmp_path, content):
    (tmp_path / "dataset_description.json").write_bytes(content)
    assert not is_bids_folder(tmp_path)
    (tmp_path / "dataset_description.json").unlink()
    (tmp_path / "dataset_description.json").mkdir()
    assert not is_bids_folder(tmp_path)


def test_of_two_readers_neither_is_taken_until_one_is_named(site):
    shutil.copytree(site / DERIVED, site / "derivatives/auto")
    reasons = only_left(site)
    assert len(reasons) == 2
    assert all("sub-1_dseg.nii.gz in auto" in reason and "in manual; name the folder" in reason for reason in reasons)
    assert len(taken(site / DERIVED)) == 1


def test_other_labels_of_one_image_are_no_rivals(site):
    """A brain mask lies beside every label map of fMRIPrep; the model's labels tell which one is meant."""
    put(site, f"{ANAT}/sub-1_desc-brain_mask", np.ones_like(label_array()))
    assert [study.labels for study in find_bids_studies(site).studies] == [("left", "top"), ("brain",)]
    assert list(taken(site)) == ["sub-1_dseg"]


def masks(site):
    (site / ANAT / "sub-1_dseg.nii.gz").unlink()
    put(site, f"{ANAT}/sub-1_label-left_mask", (label_array() == 1).astype(np.uint8))
    put(site, f"{ANAT}/sub-1_label-top_mask", (label_array() == 2).astype(np.uint8), oblique(AFFINE))


def test_a_mask_in_doubt_leaves_the_other_masks_of_its_image(site):
    """Else a site that says "what is missing is absent" would teach that a structure is background."""
    masks(site)
    first, second = only_left(site)
    assert first.startswith("sub-1_label-top_mask.nii.gz: expected the grid of its image")
    assert (
        second == "expected all masks of its image to be sound, found a fault in sub-1_label-top_mask.nii.gz; see there"
    )
    with pytest.raises(NotEnoughCasesError):
        collect(find_studies_in([site]), ("left", "top"), Reading(missing_is_absent=True))


def test_a_mask_in_doubt_costs_no_other_image(site):
    masks(site)
    put(site, f"{DERIVED}/sub-2/anat/sub-2_label-left_mask", (label_array() == 1).astype(np.uint8))
    assert [study.images[0].name for study in find_bids_studies(site).studies] == ["sub-2_T1w.nii.gz"]


def test_two_masks_of_one_label_are_told(site):
    masks(site)
    (site / ANAT / "sub-1_label-top_mask.nii.gz").unlink()
    put(site, f"{ANAT}/sub-1_label-Left_mask", (label_array() == 1).astype(np.uint8))
    assert only_left(site) == [
        "expected one mask a label, found sub-1_label-Left_mask.nii.gz and sub-1_label-left_mask.nii.gz; remove one"
    ]


def test_the_space_of_the_own_t1w_is_that_of_the_t1w(site):
    moved(site, f"{ANAT}/sub-1_dseg.nii.gz {ANAT}/sub-1_space-T1w_dseg.nii.gz")
    put(site, "sub-1/anat/sub-1_T2w")
    assert [path.name for path in find_bids_studies(site).studies[0].images] == ["sub-1_T1w.nii.gz"]


@pytest.mark.parametrize("entity", ["space-MNI", "res-2", "space-orig_res-2", "space-T2w", "run-1", "ses-a"])
def test_another_space_or_acquisition_is_left(site, entity):
    moved(site, f"{ANAT}/sub-1_dseg.nii.gz {ANAT}/sub-1_{entity}_dseg.nii.gz")
    assert "found none of its acquisition and space" in only_left(site)[0]


def test_a_series_in_time_is_paired_and_then_refused_for_what_it_is(site):
    (site / "sub-1/anat/sub-1_T1w.nii.gz").unlink()
    write(site / "sub-1/anat/sub-1_bold.nii.gz", np.stack([image_array()] * 3, axis=-1))
    (study,) = find_bids_studies(site).studies
    with pytest.raises(UnreadableImageError, match=r"sub-1_bold\.nii\.gz: expected one volume, found 4D with 3"):
        read_case(study)


def test_a_surface_or_a_link_to_one_is_no_label_map(site):
    (site / ANAT / "sub-1_dseg.dlabel.nii").write_bytes(b"CIFTI")
    assert len(taken(site)) == 1


@pytest.mark.parametrize("name", [
    "sub-_dseg", "sub-1__dseg", "sub-1_sub-2_dseg", "-_dseg", "_dseg", "dseg", "sub-1_", "sub-1_dseg-1", "sub-1",
    "sub-1_label-_mask", "sub-1_\x1b[2J-1_dseg", "sub-1_label-\x1b[2J_mask", "sub-1_label-" + "x" * 200 + "_mask",
])  # fmt: skip
def test_hostile_names_take_nothing_and_end_nothing(site, name):
    put(site, f"{ANAT}/{name}", label_array())
    found = find_bids_studies(site)
    assert [study.name for study in found.studies] == ["sub-1_dseg"]
    assert len(found.left) == 2, "it and the image of subject 2"
    assert not any("\x1b" in one.reason for one in found.left)


def test_many_subjects_are_paired_in_time_that_grows_with_them(tmp_path):
    """600 subjects, each with an image and a mask: every folder listed once, every header opened once."""
    describe(tmp_path / "site")
    content = write(tmp_path / "a.nii", label_array((2, 2, 2))).read_bytes()
    for number in range(600):
        for place in (f"sub-{number}/anat/sub-{number}_T1w", f"{DERIVED}/sub-{number}/anat/sub-{number}_dseg"):
            path = tmp_path / "site" / f"{place}.nii"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    (tmp_path / "site" / DERIVED / "dseg.tsv").write_text(TABLE)
    start = time.process_time()
    assert len(find_bids_studies(tmp_path / "site").studies) == 600
    assert time.process_time() - start < 5


def test_a_subject_with_endless_files_is_told_soon(site):
    content = (site / "sub-1/anat/sub-1_T1w.nii.gz").read_bytes()
    for number in range(1100):
        (site / ANAT / f"sub-1_label-left{number}_mask.nii.gz").write_bytes(content)
        (site / "sub-1/anat" / f"sub-1_acq-{number}_T1w.nii.gz").write_bytes(content)
    start = time.process_time()
    assert all("expected at most 2048 files of a subject" in reason for reason in only_left(site))
    assert time.process_time() - start < 5
