"""The simulated hospitals: the same body in every scanner, labels that fit, geometry that tells the truth."""

import gzip
import json
from dataclasses import replace
from itertools import combinations

import nibabel
import numpy as np
import pytest

from dafne_dante.annotations.case import Case
from dafne_dante.demo import anatomy
from dafne_dante.demo.anatomy import ALIKE, LABELS, PEOPLE, Variety, individual, smooth_field
from dafne_dante.demo.scanners import SCANNER_A, SCANNER_B, SCANNER_C, make_case, write_hospital
from dafne_dante.errors import SettingsError

VOXEL_MM = 6.0
GREY, WHITE = 1, 2


@pytest.fixture(scope="module")
def cases():
    return {scanner.name: make_case(scanner, 5, VOXEL_MM) for scanner in (SCANNER_A, SCANNER_B, SCANNER_C)}


def spacing_of(case):
    return np.linalg.norm(case.affine[:3, :3], axis=0)


def millilitres(case, label):
    return (case.segmentation == label).sum() * spacing_of(case).prod() / 1000


def centre_mm(case, weight):
    index = np.argwhere(weight > 0)
    centre = np.average(index, axis=0, weights=weight[weight > 0])
    return (case.affine @ [*centre, 1])[:3]


def test_one_seed_is_one_image_bit_for_bit(cases):
    again = make_case(SCANNER_C, 5, VOXEL_MM)
    assert np.array_equal(again.image, cases["C"].image)
    assert np.array_equal(again.segmentation, cases["C"].segmentation)
    other = make_case(SCANNER_C, 6, VOXEL_MM)
    assert not np.array_equal(other.segmentation, again.segmentation)


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_what_a_scanner_makes_is_a_proper_case(cases, name):
    case = cases[name]
    annotated = np.ones(case.image.shape[2], dtype=bool)
    made = Case("case", case.image[np.newaxis], case.segmentation, annotated, case.affine, LABELS)
    assert made.spacing_mm == pytest.approx(tuple(spacing_of(case)))


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_tissue_volumes_are_those_of_a_brain(cases, name):
    # The template's own maps hold about 1,100 ml of grey and 630 ml of white matter above one half.
    assert 850 < millilitres(cases[name], GREY) < 1250
    assert 400 < millilitres(cases[name], WHITE) < 750


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_intensities_are_positive_in_the_brain_and_zero_around_it(cases, name):
    case = cases[name]
    assert (case.image[case.segmentation > 0] > 0).all()
    assert case.image.min() == 0
    assert case.image[0].max() == 0
    brain_ml = (case.image > 0).sum() * spacing_of(case).prod() / 1000
    assert 1600 < brain_ml < 2100


def test_white_matter_is_brighter_than_grey_in_a_and_c_much_more_than_in_b(cases):
    def ratio(name):
        case = cases[name]
        return case.image[case.segmentation == WHITE].mean() / case.image[case.segmentation == GREY].mean()

    assert ratio("A") > 1.25
    assert 1.0 < ratio("B") < 1.16
    assert ratio("C") > 1.2


def test_the_coil_of_b_is_uneven():
    plain = make_case(replace(SCANNER_B, bias=0.0, noise=0.0), 5, VOXEL_MM).image
    uneven = make_case(replace(SCANNER_B, noise=0.0), 5, VOXEL_MM).image
    logarithm = np.log(uneven[plain > 0] / plain[plain > 0])
    assert 0.5 * SCANNER_B.bias < np.abs(logarithm).max() <= SCANNER_B.bias + 1e-3
    assert abs(logarithm.mean()) < 0.05
    assert logarithm.std() > 0.05


def test_noise_of_c_has_the_strength_it_is_told():
    quiet = make_case(replace(SCANNER_C, noise=0.0), 5, VOXEL_MM).image
    noisy = make_case(SCANNER_C, 5, VOXEL_MM).image
    bright = quiet > 500
    assert (noisy - quiet)[bright].std() == pytest.approx(SCANNER_C.noise * 1000, rel=0.1)


def test_c_has_slices_twice_as_thick(cases):
    x, y, z = spacing_of(cases["C"])
    assert (y, z) == pytest.approx((x, 2 * x))


def test_a_slice_factor_halves_the_slices_and_leaves_the_rest(cases):
    thin, thick = cases["A"], make_case(replace(SCANNER_A, slice_factor=2), 5, VOXEL_MM)
    assert thick.image.shape[:2] == thin.image.shape[:2]
    assert thick.image.shape[2] == -(-thin.image.shape[2] // 2)
    assert spacing_of(thick) == pytest.approx(spacing_of(thin) * [1, 1, 2])


def test_the_field_of_view_is_fitted_to_each_head(cases):
    spacings = [spacing_of(make_case(SCANNER_A, subject, 8.0))[0] for subject in range(4)]
    assert len(set(spacings)) == 4
    assert all(0.03 <= abs(spacing / 8.0 - 1) <= 0.06 for spacing in spacings)
    assert [spacing > 8.0 for spacing in spacings] == [False, True, False, True]


def test_fluid_is_bright_in_b_only(cases):
    """In the middle of the brain what is neither grey nor white matter is mostly fluid."""

    def fluid_over_grey(name):
        case = cases[name]
        x, y, z = (slice(size // 3, -size // 3) for size in case.image.shape)
        image, labels = case.image[x, y, z], case.segmentation[x, y, z]
        return image[(labels == 0) & (image > 0)].mean() / image[labels == GREY].mean()

    assert fluid_over_grey("B") > 1.0
    assert fluid_over_grey("A") < 0.95


def test_thick_and_thin_slices_show_the_same_body_at_the_same_place(cases):
    thin, thick = cases["A"], cases["C"]
    for label in (GREY, WHITE):
        shift = centre_mm(thin, thin.segmentation == label) - centre_mm(thick, thick.segmentation == label)
        assert np.abs(shift).max() < 2.0  # an affine that forgot the average would be off by 3 mm
    quiet = [make_case(replace(SCANNER_A, noise=0.0, slice_factor=factor), 5, VOXEL_MM) for factor in (1, 3)]
    brightness = [centre_mm(case, case.image) for case in quiet]
    assert np.abs(brightness[0] - brightness[1]).max() < 0.5


def test_a_subject_does_not_depend_on_the_resolution():
    coarse, fine = make_case(SCANNER_A, 9, 8.0), make_case(SCANNER_A, 9, 5.0)
    assert millilitres(coarse, WHITE) == pytest.approx(millilitres(fine, WHITE), rel=0.15)
    assert np.abs(centre_mm(coarse, coarse.image) - centre_mm(fine, fine.image)).max() < 1.0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_displacement_reaches_its_length_and_never_folds(seed):
    displacement = anatomy._displacement_mm(seed, (53, 62, 51), ALIKE)
    assert np.sqrt((displacement**2).sum(axis=0)).max() == pytest.approx(9.0, rel=1e-5)
    gradient = np.stack([np.stack(np.gradient(component, 4.0)) for component in displacement])
    jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3)
    assert np.linalg.det(jacobian).min() > 0.1


@pytest.mark.parametrize("variety", [ALIKE, PEOPLE])
def test_a_body_never_folds_and_is_never_cut(variety):
    for seed in range(3):
        body = individual(seed, 4.0, variety)
        gradient = np.stack([np.stack(np.gradient(place, 4.0)) for place in body.template_mm])
        assert np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1))).min() > 0.1
        inside = np.pad(body.brain[1:-1, 1:-1, 1:-1], 1)
        assert np.array_equal(inside, body.brain), "the brain reaches the edge"


def test_people_lie_in_a_scanner_less_alike_than_bodies_that_are_only_bent():
    def overlap(variety):
        whites = [individual(seed, 6.0, variety).white > 0.5 for seed in range(4)]
        return np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in combinations(whites, 2)])

    assert overlap(ALIKE) > 0.85
    assert 0.45 < overlap(PEOPLE) < 0.7


def test_each_way_to_differ_does_what_it_says():
    plain = individual(4, 6.0)
    turned = individual(4, 6.0, Variety(turn_degrees=10.0))
    grown = individual(4, 6.0, Variety(size=0.06))
    shining = individual(4, 6.0, Variety(brightness=0.2))
    assert np.array_equal(shining.white, plain.white) and not np.array_equal(shining.t1, plain.t1)
    assert turned.brain.sum() == pytest.approx(plain.brain.sum(), rel=0.01)
    assert 0.01 < abs(grown.brain.sum() / plain.brain.sum() - 1) < 1.06**3 - 1
    stiff = individual(4, 6.0, Variety(displacement_mm=0.0, turn_degrees=10.0)).template_mm
    steps = np.stack([np.diff(stiff, axis=1 + axis)[:, 0, 0, 0] / 6.0 for axis in range(3)], axis=1)
    assert steps @ steps.T == pytest.approx(np.eye(3), abs=1e-4), "a turn keeps lengths and angles"
    assert 1.0 < np.degrees(np.arccos((np.trace(steps) - 1) / 2)) < 18.0


def test_people_do_not_depend_on_the_resolution():
    coarse, fine = (make_case(SCANNER_A, 9, voxel_mm, variety=PEOPLE) for voxel_mm in (8.0, 5.0))
    assert np.abs(centre_mm(coarse, coarse.image) - centre_mm(fine, fine.image)).max() < 1.0


def test_image_and_tissue_maps_move_together():
    body = individual(3, 4.0)
    assert (body.grey + body.white)[body.brain == 0].max() < 0.5
    assert np.corrcoef(body.t1[body.brain > 0.9], body.white[body.brain > 0.9])[0, 1] > 0.7


def test_a_smooth_field_is_smooth_and_of_magnitude_one():
    field = smooth_field(np.random.default_rng(0), (27, 31, 26), 40.0)
    assert field.dtype == np.float32
    assert 0.8 < np.abs(field).max() <= 1.0
    assert np.abs(np.diff(field, axis=0)).max() < 0.4


def test_a_hospital_is_written_in_the_layout_of_nnunet(tmp_path):
    folder = write_hospital(tmp_path / "B", SCANNER_B, (1, 2), voxel_mm=8.0)
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == ["B_001_0000.nii.gz", "B_002_0000.nii.gz"]
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == ["B_001.nii.gz", "B_002.nii.gz"]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "grey matter": 1, "white matter": 2}
    assert description["numTraining"] == 2
    case = make_case(SCANNER_B, 2, 8.0)
    image = nibabel.load(folder / "imagesTr" / "B_002_0000.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), case.image)
    assert image.affine == pytest.approx(case.affine)
    segmentation = nibabel.load(folder / "labelsTr" / "B_002.nii.gz")
    assert np.array_equal(np.asarray(segmentation.dataobj), case.segmentation)
    assert segmentation.get_data_dtype() == np.uint8


def test_a_hospital_is_the_same_file_every_time(tmp_path):
    first = write_hospital(tmp_path / "1", SCANNER_A, (4,), voxel_mm=8.0) / "imagesTr" / "A_004_0000.nii.gz"
    second = write_hospital(tmp_path / "2", SCANNER_A, (4,), voxel_mm=8.0) / "imagesTr" / "A_004_0000.nii.gz"
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("damage", ["missing", "truncated", "not an image"])
def test_a_template_that_cannot_be_read_is_one_clear_error(tmp_path, damage):
    if damage != "missing":
        content = b"text" if damage == "not an image" else gzip.compress(b"\0" * 1000)[:-9]
        for name in ("t1", "gm", "wm"):
            (tmp_path / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz").write_bytes(content)
    with pytest.raises(SettingsError, match="expected the ICBM152 2009a template in nilearn"):
        anatomy._read_template(tmp_path)
