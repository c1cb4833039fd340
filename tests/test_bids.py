"""BIDS datasets: each segmentation goes with the image that it was drawn on, or is left with the reason."""

import json

import numpy as np
import pytest
from oriented import AFFINE, image_array, label_array, oblique, turned, write
from test_folders import plain

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.search import find_studies_in

TABLE = "index\tname\tcolor\n0\tbackground\t#000\n2\ttop\t#0f0\n1\tleft\t#f00\n"
DERIVED = "derivatives/manual"


def describe(folder, kind=None):
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"Name": "test", "BIDSVersion": "1.9.0"} | ({"DatasetType": kind} if kind else {})
    (folder / "dataset_description.json").write_text(json.dumps(facts))


def put(folder, places, array=None, affine=AFFINE):
    for place in places.split():
        write(folder / f"{place}.nii.gz", image_array() if array is None else array, affine)


@pytest.fixture
def site(tmp_path):
    """A raw dataset with two subjects and a derivative that has labels for the first."""
    folder = tmp_path / "site"
    describe(folder)
    describe(folder / DERIVED, "derivative")
    put(folder, "sub-1/anat/sub-1_T1w sub-2/anat/sub-2_T1w")
    put(folder / DERIVED, "sub-1/anat/sub-1_dseg", label_array())
    (folder / DERIVED / "dseg.tsv").write_text(TABLE)
    return folder


def taken(folder, labels=("left", "top")):
    collection = collect(find_studies_in([folder]), labels)
    return {one.name: case for one, case in zip(collection.taken, collection.cases, strict=True)}


def only_left(folder):
    """Why nothing of the folder is taken, without the sums."""
    found = find_studies_in([folder])
    assert found.studies == ()
    return [one.reason for one in found.left if not one.reason[0].isdigit()]


def test_a_label_map_has_the_labels_of_its_table(site, tmp_path):
    (case,) = taken(site).values()
    (same,) = taken(plain(tmp_path / "plain", ("a",))).values()
    for name in ("image", "segmentation", "affine", "annotated"):
        np.testing.assert_array_equal(getattr(case, name), getattr(same, name))
    found = find_studies_in([site])
    assert found.studies[0].labels == ("left", "top")
    assert [(one.name, one.reason) for one in found.left] == [
        ("site", "1 image(s) without a _dseg or _mask that is taken")
    ]


def test_left_stays_left_in_another_order_of_axes(site):
    for degrees, orientation in ((0, [[1, -1], [2, 1], [0, -1]]), (30, [[0, 1], [2, -1], [1, -1]])):
        affine = oblique(AFFINE, degrees)
        put(site, "sub-1/anat/sub-1_T1w", affine=affine)
        put(site / DERIVED, "sub-1/anat/sub-1_dseg", *turned(label_array(), affine, np.array(orientation, float)))
        (case,) = taken(site).values()
        np.testing.assert_array_equal(case.segmentation, label_array())


@pytest.mark.parametrize(("name", "sidecar"), [
    ("sub-1_label-left_mask", {}), ("sub-1_desc-left_mask", {}), ("sub-1_mask", {"Type": "left"}),
    ("sub-1_label-left_desc-reader1_mask", {}),
])  # fmt: skip
def test_a_mask_says_in_its_name_or_sidecar_which_label_it_shows(site, name, sidecar):
    (site / DERIVED / "sub-1/anat/sub-1_dseg.nii.gz").unlink()
    put(site / DERIVED, f"sub-1/anat/{name}", (label_array() == 1).astype(np.uint8))
    put(site / DERIVED, "sub-1/anat/sub-1_label-top_mask", (label_array() == 2).astype(np.float32))
    if sidecar:
        (site / DERIVED / "sub-1/anat/sub-1_mask.json").write_text(json.dumps(sidecar))
        (site / DERIVED / "sub-1/anat/sub-1_label-top_mask.json").write_text("{}")
    (case,) = taken(site).values()
    np.testing.assert_array_equal(case.segmentation, label_array())


def test_the_nearest_and_most_specific_table_counts(site):
    """BIDS' inheritance principle: deeper folders before higher ones, more entities before fewer."""
    wrong = TABLE.replace("left", "wrong")
    (site / DERIVED / "dseg.tsv").write_text(wrong)
    (site / DERIVED / "sub-1_dseg.tsv").write_text(wrong)
    (site / DERIVED / "sub-1/anat/dseg.tsv").write_text(wrong)
    (site / DERIVED / "sub-1/anat/sub-2_dseg.tsv").write_text(wrong)
    (site / DERIVED / "sub-1/anat/sub-1_dseg.tsv").write_text(TABLE)
    assert find_studies_in([site]).studies[0].labels == ("left", "top")


def test_names_in_the_sidecar_do_as_well(site):
    (site / DERIVED / "dseg.tsv").unlink()
    (site / DERIVED / "dseg.json").write_text(json.dumps({"LabelMap": {"1": "left", "2": "top"}}))
    (case,) = taken(site).values()
    np.testing.assert_array_equal(case.segmentation, label_array())


def test_values_without_names_are_never_guessed(site):
    (site / DERIVED / "dseg.tsv").unlink()
    (reason,) = only_left(site)
    assert reason.startswith("sub-1_dseg.nii.gz: expected names of its values in dseg.tsv")


def test_of_several_contrasts_the_grid_tells_which_was_drawn_on(site):
    put(site, "sub-1/anat/sub-1_T2w", affine=AFFINE @ np.diag([1, 1, 2.0, 1]))
    assert find_studies_in([site]).studies[0].images == (site / "sub-1/anat/sub-1_T1w.nii.gz",)


def test_contrasts_on_one_grid_need_the_sidecar(site):
    put(site, "sub-1/anat/sub-1_T2w sub-1/anat/sub-1_FLAIR")
    (reason,) = only_left(site)
    assert "found sub-1_FLAIR.nii.gz and sub-1_T1w.nii.gz (and 1 more); name one, and one only, under Sources" in reason
    for source in ("bids:raw:sub-1/anat/sub-1_T2w.nii.gz", "sub-1/anat/sub-1_T2w.nii.gz"):
        for key in ("Sources", "RawSources"):
            (site / DERIVED / "dseg.json").write_text(json.dumps({key: [source]}))
            assert find_studies_in([site]).studies[0].images == (site / "sub-1/anat/sub-1_T2w.nii.gz",)


@pytest.mark.parametrize("source", ["../../../etc/passwd", "/etc/passwd", "bids::../site2/sub-1_T1w.nii.gz", 5, None])
def test_a_sidecar_leads_nowhere_else(site, source):
    (site / DERIVED / "dseg.json").write_text(json.dumps({"Sources": [source]}))
    assert find_studies_in([site]).studies[0].images == (site / "sub-1/anat/sub-1_T1w.nii.gz",)


def test_a_template_space_goes_with_an_image_in_that_space(site):
    (site / DERIVED / "sub-1/anat/sub-1_dseg.nii.gz").unlink()
    put(site / DERIVED, "sub-1/anat/sub-1_space-MNI_res-2_dseg", label_array())
    assert "found none of its acquisition and space" in only_left(site)[0]
    put(site / DERIVED, "sub-1/anat/sub-1_space-MNI_res-2_desc-preproc_T1w")
    put(site / DERIVED, "sub-1/anat/sub-1_space-MNI_res-1_desc-preproc_T1w")
    assert [path.name for path in find_studies_in([site]).studies[0].images] == [
        "sub-1_space-MNI_res-2_desc-preproc_T1w.nii.gz"
    ]


def test_sessions_and_runs_are_kept_apart(site):
    (site / DERIVED / "sub-1/anat/sub-1_dseg.nii.gz").unlink()
    for session in "ab":
        put(site, f"sub-1/ses-{session}/anat/sub-1_ses-{session}_run-1_T1w", image_array() + ord(session))
        put(site / DERIVED, f"sub-1/ses-{session}/anat/sub-1_ses-{session}_run-1_dseg", label_array())
    for name, case in taken(site).items():
        assert case.image[0, 0, 0, 0] == 10_000 + ord(name[10])


def test_another_grid_is_told(site):
    put(site / DERIVED, "sub-1/anat/sub-1_dseg", label_array(), oblique(AFFINE))
    (reason,) = only_left(site)
    assert reason.startswith("sub-1_dseg.nii.gz: expected the grid of its image, found none on it among sub-1_T1w")


def test_probability_maps_are_told(site):
    put(site / DERIVED, "sub-1/anat/sub-1_label-GM_probseg")
    assert "1 probability map(s); expected _dseg or _mask" in [one.reason for one in find_studies_in([site]).left]


FAULTY_TABLES = {
    "no columns": "a\tb\n1\tleft\n", "empty": "", "twice": "index\tname\n1\tleft\n1\ttop\n",
    "spelt alike": "index\tname\n1\tleft\n2\tLEFT\n", "too large": "index\tname\n1024\tleft\n",
    "negative": "index\tname\n-1\tleft\n", "no number": "index\tname\nx\tleft\n", "no name": "index\tname\n1\t\n",
    "background only": "index\tname\n0\tleft\n", "short row": "index\tname\n1\n",
    "control": "index\tname\n1\tle\x07ft\n",
    "nothing": "index\tname\n1\tn/a\n", "name twice": "index\tname\tname\n1\ta\tb\n",
    "open quotes": 'index\tname\n1\t"left\n2\ttop\n',
    "commas": "index,name\n1,left\n", "long": "index\tname\n1\t" + "x" * 10_000 + "\n",
}  # fmt: skip


@pytest.mark.parametrize(
    "content", [*(text.encode() for text in FAULTY_TABLES.values()), b"\xff\xfe\x00", b"\x00" * 64]
)
def test_a_faulty_table_leaves_its_file(site, content):
    (site / DERIVED / "dseg.tsv").write_bytes(content)
    (reason,) = only_left(site)
    assert "dseg.tsv" in reason


def test_a_bad_dataset_costs_no_other(site, tmp_path):
    (site / DERIVED / "sub-1/anat/sub-1_dseg.nii.gz").write_bytes(b"no image")
    plain(tmp_path / "other", ("a",))
    found = find_studies_in([tmp_path])
    assert [study.name for study in found.studies] == ["a"]
    assert "sub-1_dseg" in [one.name for one in found.left]
