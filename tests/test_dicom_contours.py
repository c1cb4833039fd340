"""Structure sets: what is inside a contour is labelled, by voxel centres; what lies elsewhere is refused."""

import copy
import itertools
import warnings

import numpy as np
import pydicom
import pytest
from dicom_labels import (
    contour,
    contours_of,
    image_slices,
    laid_over,
    lps_of,
    phantom_masks,
    random_affine,
    save,
    structure_set,
)
from oriented import ALL_ORIENTATIONS, oblique, turned, world_values
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dafne_dante.annotations.dicom.contours import describe_structure_set
from dafne_dante.annotations.dicom.even_odd import MAX_CROSSINGS, count_crossings, fill_even_odd
from dafne_dante.annotations.dicom.planes import Lattice
from dafne_dante.errors import AnnotationError, DanteError, GeometryMismatchError, UnreadableImageError

SHAPE = (13, 10, 7)
AFFINE = oblique(np.array([[-1.5, 0, 0, 9], [0, -1.2, 0, 8], [0, 0, 3, -7], [0, 0, 0, 1.0]]))
SLICES = image_slices(np.zeros(SHAPE), AFFINE)


def at(points, affine=AFFINE):
    """Fractional voxel indices (N, 3) as millimetres LPS+."""
    return (np.column_stack([points, np.ones(len(points))]) @ lps_of(affine).T)[:, :3]


def box(low, high, k=3.0):
    """Round the voxels from `low` to below `high`, halfway to those outside."""
    corners = [low, (high[0], low[1]), high, (low[0], high[1])]
    return at([(i - 0.5, j - 0.5, k) for i, j in corners])


def written(path, regions, slices=SLICES, **elements):
    return save(structure_set(slices, regions, **elements), path)


def drawn(path, affine=AFFINE, shape=SHAPE, notes=()):
    onto = np.zeros(shape, np.uint16)
    found = describe_structure_set(path, pydicom.dcmread(path))
    ranks = {label: rank for rank, label in enumerate(found.labels, 1)}
    assert found.draw(ranks, Lattice(affine, shape), onto) == notes
    return onto


def test_regions_come_back_voxel_for_voxel_from_random_oblique_slices(tmp_path):
    """Their contours run halfway between centres, so that not even rounding to 0.0001 mm changes a voxel."""
    masks = phantom_masks(SHAPE)
    for seed in range(20):
        affine = random_affine(seed)
        regions = [(name, contours_of(mask, affine)) for name, mask in masks.items()]
        path = written(tmp_path / "a.dcm", regions, image_slices(np.zeros(SHAPE), affine))
        np.testing.assert_array_equal(drawn(path, affine), laid_over(masks))


def test_left_stays_left_however_the_image_s_columns_and_rows_run(tmp_path):
    masks = phantom_masks(SHAPE)
    path = written(tmp_path / "a.dcm", [(name, contours_of(mask, AFFINE)) for name, mask in masks.items()])
    expected = world_values(laid_over(masks), AFFINE)
    for orientation in [one for one in ALL_ORIENTATIONS if one[2, 0] == 2]:
        stored, affine = turned(laid_over(masks), AFFINE, orientation)
        assert world_values(drawn(path, affine, stored.shape), affine) == expected


def test_smooth_shapes_agree_with_their_own_voxels(tmp_path):
    """Contours as a person draws them, from the shape itself and not from its voxels."""
    shape = (64, 56, 3)
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    line = [30.3 + 17 * np.cos(angle), 26.1 + 11 * np.sin(angle)]
    regions = [("a", [at(np.column_stack([*line, np.full(90, k)])) for k in range(3)])]
    onto = drawn(written(tmp_path / "a.dcm", regions, image_slices(np.zeros(shape), AFFINE)), AFFINE, shape)
    i, j, _ = np.indices(shape)
    expected = ((i - 30.3) / 17) ** 2 + ((j - 26.1) / 11) ** 2 < 1
    assert 2 * (onto & expected).sum() / (onto.sum() + expected.sum()) > 0.99


def test_a_contour_in_another_one_is_a_hole_and_one_in_the_hole_is_an_island(tmp_path):
    nested = [box((1, 1), (11, 8)), box((3, 3), (9, 7)), box((5, 4), (7, 6))]
    onto = drawn(written(tmp_path / "a.dcm", [("a", nested)]))
    expected = np.zeros(SHAPE, np.uint16)
    expected[1:11, 1:8, 3], expected[3:9, 3:7, 3], expected[5:7, 4:6, 3] = 1, 0, 1
    np.testing.assert_array_equal(onto, expected)
    xor = structure_set(SLICES, [("a", nested)])
    for item in xor.ROIContourSequence[0].ContourSequence:
        item.ContourGeometricType = "CLOSEDPLANAR_XOR"
    np.testing.assert_array_equal(drawn(save(xor, tmp_path / "b.dcm")), expected)


def test_a_keyhole_contour_is_a_hole_too(tmp_path):
    outer = [(1, 1), (11, 1), (11, 8), (1, 8), (1, 1)]
    inner = [(3, 3), (3, 7), (9, 7), (9, 3), (3, 3)]
    keyhole = at([(i - 0.5, j - 0.5, 3.0) for i, j in outer + inner])
    onto = drawn(written(tmp_path / "a.dcm", [("a", [keyhole])]))
    assert onto.sum() == 10 * 7 - 6 * 4
    assert not onto[3:9, 3:7].any()


def test_regions_of_one_name_are_one_label_and_not_each_other_s_holes(tmp_path):
    regions = [("a", [box((1, 1), (8, 6))]), ("b", [box((2, 2), (4, 4))]), ("a", [box((3, 3), (6, 5))])]
    onto = drawn(written(tmp_path / "a.dcm", regions))
    assert (onto[1:8, 1:6, 3] > 0).all()
    assert (onto == 2).sum() == 4


def test_a_region_without_a_name_is_called_by_its_number(tmp_path):
    path = written(tmp_path / "a.dcm", [("", [box((1, 1), (8, 6))])])
    assert describe_structure_set(path, pydicom.dcmread(path)).labels == ("ROI 1",)


def test_points_and_open_contours_are_left_with_a_note(tmp_path):
    dataset = structure_set(SLICES, [("a", [box((1, 1), (8, 6))]), ("marks", [])])
    dataset.ROIContourSequence[0].ContourSequence += [
        contour(at([(2, 2, 90.0)]), "POINT"),
        contour(at([(2, 2, 3), (9, 9, 4), (7, 3, 5)]), "OPEN_NONPLANAR"),
        contour(at([(2, 2, 3), (3, 3, 3)])),
    ]
    dataset.ROIContourSequence[1].ContourSequence = [contour(at([(2, 2, 3), (3, 4, 3), (5, 5, 3)]), "OPEN_PLANAR")]
    path = save(dataset, tmp_path / "a.dcm")
    assert describe_structure_set(path, pydicom.dcmread(path)).labels == ("a",)
    onto = drawn(path, notes=("a.dcm: 4 points or open contours enclose nothing and were left",))
    assert onto.sum() == 7 * 5


ELSEWHERE = {
    "between two slices": (box((1, 1), (8, 6), 3.5), "0.5 of the spacing away"),
    "a third of the spacing off": (box((1, 1), (8, 6), 3.3), "0.3 of the spacing away"),
    "tilted": (at([(1, 1, 3.0), (8, 1, 3.0), (8, 6, 3.2)]), "not parallel"),
    "sagittal": (at([(3, 1, 1), (3, 8, 1), (3, 8, 5)]), "not parallel"),
    "below the first slice": (box((1, 1), (8, 6), -1.0), "outside of the image"),
    "far above the last": (box((1, 1), (8, 6), 1e6), "outside of the image"),
    "beside the image": (box((-4, 1), (8, 6)), "outside of the image"),
    "a voxel beyond its border": (box((1, 1), (8, 11.2)), "outside of the image"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_contour_that_is_not_in_a_slice_is_refused(tmp_path, name):
    points, words = ELSEWHERE[name]
    with pytest.raises(GeometryMismatchError, match=words) as error:
        drawn(written(tmp_path / "a.dcm", [("liver", [box((1, 1), (4, 4)), points])]))
    assert str(error.value).startswith("a.dcm: liver: expected contours in the slices of the image")


def test_a_contour_a_fifth_of_the_spacing_off_its_slice_is_rounding(tmp_path):
    onto = drawn(written(tmp_path / "a.dcm", [("a", [box((1, 1), (8, 6), 3.2), box((-0.4, -0.4), (3, 3), 6.2)])]))
    assert onto[..., 3].sum() == 7 * 5
    assert onto[..., 6].sum() == 3 * 3


def item_of(dataset):
    return dataset.ROIContourSequence[0].ContourSequence[0]


def element(keyword, value):
    return lambda dataset: setattr(item_of(dataset), keyword, value)


def duplicate(dataset):
    dataset.StructureSetROISequence.append(copy.deepcopy(dataset.StructureSetROISequence[0]))


def two_frames(dataset):
    duplicate(dataset)
    dataset.StructureSetROISequence[1].ROINumber = 2
    dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"


BAD_FILES = {
    "no regions": (lambda d: delattr(d, "StructureSetROISequence"), UnreadableImageError, "each declared region"),
    "no contours": (lambda d: delattr(d, "ROIContourSequence"), UnreadableImageError, "at least one region"),
    "one number twice": (duplicate, UnreadableImageError, "a number of its own"),
    "two frames of reference": (two_frames, UnreadableImageError, "one frame of reference"),
    "not three numbers a point": (element("ContourData", ["1"] * 10), UnreadableImageError, "found 10 in all"),
    "not a number": (element("ContourData", ["nan"] * 9), UnreadableImageError, "finite numbers in ContourData"),
    "beyond number": (element("ContourData", ["1e308"] * 9), UnreadableImageError, "finite numbers in ContourData"),
    "an unknown kind": (element("ContourGeometricType", "CURVE"), UnreadableImageError, "closed, open or a point"),
    "an offset": (element("ContourOffsetVector", [0, 0, 1]), UnreadableImageError, "without an offset"),
    "a name of 200 letters": (
        lambda d: setattr(d.StructureSetROISequence[0], "ROIName", "x" * 200),
        AnnotationError,
        "label names of 1 to 100",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*")
def test_a_bad_file_is_refused_in_words(tmp_path, name):
    change, kind, words = BAD_FILES[name]
    dataset = structure_set(SLICES, [("liver", [box((1, 1), (8, 6))])])
    change(dataset)
    with pytest.raises(kind, match=words) as error:
        drawn(save(dataset, tmp_path / "a.dcm"))
    assert str(error.value).startswith("a.dcm: ")
    assert dataset.SOPInstanceUID not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*exceeds the size of 64 kByte:UserWarning")
def test_contours_of_absurd_length_are_refused_before_they_are_filled(tmp_path):
    """What explicit VR cannot hold is stored as UN, and is read all the same."""
    zigzag = at([(i % 2, (i % 2) * 8.0, 3.0) for i in range(6000)])
    assert drawn(written(tmp_path / "a.dcm", [("a", [zigzag])])).shape == SHAPE
    tall = np.column_stack([np.zeros(1 << 17), np.tile([0.0, 1e6], 1 << 16)])
    assert count_crossings([tall], 1024) == (1 << 17) * 1024 > MAX_CROSSINGS
    assert count_crossings([np.array([[0, 0], [5, 0], [5, 4.0], [0, 4]])], 100) == 8


def slowly_inside(polygons, shape):
    """The rule itself: for each centre, how many edges lie to its left."""
    inside = np.zeros(shape, dtype=bool)
    for i, j in itertools.product(*map(range, shape)):
        for polygon in polygons:
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                if min(y0, y1) <= j < max(y0, y1) and x0 + (j - y0) * (x1 - x0) / (y1 - y0) <= i:
                    inside[i, j] ^= True
    return inside


def test_filling_agrees_with_the_rule_itself_on_random_polygons():
    draw = np.random.default_rng(3)
    for trial in range(40):
        corners = [draw.uniform(-3, 12, (draw.integers(3, 9), 2)) for _ in range(draw.integers(1, 4))]
        polygons = [points.round(0) if trial % 2 else points for points in corners]
        np.testing.assert_array_equal(fill_even_odd(polygons, (9, 8)), slowly_inside(polygons, (9, 8)))


def test_areas_that_share_an_edge_share_no_voxel_and_leave_none_out():
    left, right = np.array([[0, 0], [4, 0], [4, 6.0], [0, 6]]), np.array([[4, 0], [8, 0], [8, 6.0], [4, 6]])
    both = fill_even_odd([left], (8, 6)).astype(int) + fill_even_odd([right], (8, 6))
    assert (both == 1).all()


def test_pydicom_s_own_structure_set_is_read_or_refused(tmp_path):
    path = get_testdata_file("rtstruct.dcm", download=False)
    header = pydicom.dcmread(path, force=True)
    found = describe_structure_set(tmp_path / "rtstruct.dcm", header)
    assert found.labels == ("patient", "Isocenter")[:1] or found.labels


def test_mutated_files_give_an_error_of_ours_or_regions(tmp_path):
    masks = phantom_masks(SHAPE)
    dataset = structure_set(SLICES, [(name, contours_of(mask, AFFINE)) for name, mask in masks.items()])
    content = save(dataset, tmp_path / "sound.dcm").read_bytes()
    outcomes = mutated_outcomes(content, tmp_path / "a.dcm", 100)
    assert outcomes["refused"] > 10
    assert outcomes["drawn"] > 3


def mutated_outcomes(content, path, count, seed=0):
    draw = np.random.default_rng(seed)
    outcomes = {"refused": 0, "drawn": 0}
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(draw.integers(1, 6)):
            changed[draw.integers(132, len(content))] = draw.integers(0, 256)
        path.write_bytes(changed[: draw.integers(200, len(changed))] if draw.random() < 0.1 else changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = pydicom.dcmread(path)
        except Exception:  # reading headers is not what is tested here
            header = Dataset()
        try:
            found = describe_structure_set(path, header)
            found.draw(dict.fromkeys(found.labels, 1), Lattice(AFFINE, SHAPE), np.zeros(SHAPE, np.uint16))
            outcomes["drawn"] += 1
        except DanteError:
            outcomes["refused"] += 1
    return outcomes
