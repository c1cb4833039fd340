"""Grids: left stays left whatever the order of storage, and what is another grid is seen to be one."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oriented import AFFINE, ALL_ORIENTATIONS, SHAPE, image_array, oblique, turned, world_values
from scipy.ndimage import map_coordinates

from dafne_dante.annotations.geometry import (
    affine_fault,
    canonical_orientation,
    orientation_between,
    same_grid,
    spacing_mm,
)
from dafne_dante.errors import GeometryMismatchError, UnreadableImageError

THICK_SAGITTAL = np.array([[0.0, 0, -5, 20], [1, 0, 0, -9], [0, -1, 0, 8], [0, 0, 0, 1]])


def canonical(array, affine):
    way = canonical_orientation(affine, array.shape)
    return way.apply(array), way.affine(affine)


@pytest.mark.parametrize("base", [AFFINE, oblique(AFFINE)], ids=["straight", "oblique"])
def test_all_48_orders_of_storage_have_one_canonical_grid_and_it_is_nibabels(base):
    volume = image_array()
    for orientation in ALL_ORIENTATIONS:
        stored, affine = turned(volume, base, orientation)
        found, found_affine = canonical(stored, affine)
        expected = nib.as_closest_canonical(nib.Nifti1Image(stored, affine))
        np.testing.assert_array_equal(found, np.asarray(expected.dataobj))
        np.testing.assert_allclose(found_affine, expected.affine, atol=1e-9)
        np.testing.assert_array_equal(found, volume)


def test_every_voxel_keeps_its_place_in_the_world():
    volume = image_array((3, 4, 5))
    before = world_values(volume, oblique(THICK_SAGITTAL))
    for orientation in ALL_ORIENTATIONS:
        found, affine = canonical(*turned(volume, oblique(THICK_SAGITTAL), orientation))
        assert world_values(found, affine) == before


def test_an_interpolation_in_the_world_finds_the_same_values():
    """The slow way round: ask the stored file, at every canonical voxel's place in the world, for its value."""
    stored, affine = turned(image_array(), oblique(AFFINE), ALL_ORIENTATIONS[29])
    found, found_affine = canonical(stored, affine)
    indices = np.stack([*np.indices(found.shape), np.ones(found.shape)]).reshape(4, -1)
    places = np.linalg.inv(affine) @ found_affine @ indices
    slow = map_coordinates(stored, places[:3], order=1, mode="nearest").reshape(found.shape)
    np.testing.assert_allclose(found, slow, atol=1e-2)


def test_thick_sagittal_slices_come_last_and_left_is_at_their_start():
    volume = image_array((8, 6, 4))
    found, affine = canonical(volume, THICK_SAGITTAL)
    assert found.shape == (8, 6, 4)
    np.testing.assert_allclose(spacing_mm(affine), (1, 1, 5))
    assert nib.aff2axcodes(affine) == ("A", "S", "R")
    np.testing.assert_array_equal(found, volume[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("sizes", "codes"),
    [
        ((1, 1, 1), "RAS"),
        ((1, 1, 1.49), "RAS"),
        ((1, 1, 1.5), "RAS"),
        ((1, 1.5, 1), "RSA"),
        ((np.float32(1.2), np.float32(0.8), np.float32(0.8)), "ASR"),
        ((3, 1, 1), "ASR"),
        ((1, 3, 2.5), "RAS"),
        ((0.5, 3, 2), "RSA"),
    ],
)
def test_only_an_axis_thicker_than_both_others_is_the_slice_axis(sizes, codes):
    affine = np.diag([*map(float, sizes), 1.0])
    assert "".join(nib.aff2axcodes(canonical_orientation(affine, SHAPE).affine(affine))) == codes


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    orientation=st.sampled_from(ALL_ORIENTATIONS),
    sizes=st.tuples(*[st.floats(0.2, 8.0)] * 3),
    degrees=st.floats(0, 360),
)
def test_undo_gives_back_the_stored_array_bit_for_bit(shape, orientation, sizes, degrees):
    array, affine = turned(image_array(shape), oblique(np.diag([*sizes, 1.0]), degrees), orientation)
    way = canonical_orientation(affine, array.shape)
    there = way.apply(array)
    assert there.shape == way.new_shape
    assert world_values(there, way.affine(affine)).keys() == world_values(array, affine).keys()
    np.testing.assert_array_equal(way.undo(there), array)


@given(a=st.sampled_from(ALL_ORIENTATIONS), b=st.sampled_from(ALL_ORIENTATIONS), degrees=st.floats(0, 360))
def test_two_orders_of_storage_are_laid_onto_each_other_at_any_angle(a, b, degrees):
    """At 45 degrees as well, where the nearest world axis is a matter of the last digit."""
    first, first_affine = turned(image_array(), oblique(AFFINE, degrees), a)
    second, second_affine = turned(image_array(), oblique(AFFINE, degrees), b)
    onto = orientation_between(second_affine, second.shape, first_affine)
    assert same_grid(first_affine, first.shape, onto.affine(second_affine), onto.new_shape)
    np.testing.assert_array_equal(onto.apply(second), first)


@pytest.mark.parametrize(
    ("moved_mm", "same"), [(0.0, True), (0.119, True), (0.121, False), (-0.121, False), (1.2, False)]
)
def test_a_grid_may_be_off_by_a_tenth_of_its_smallest_voxel(moved_mm, same):
    other = AFFINE.copy()
    other[0, 3] += moved_mm
    assert same_grid(AFFINE, SHAPE, other, SHAPE) is same


def test_a_small_rotation_is_judged_at_the_far_corner_and_a_shape_by_its_numbers():
    turn = oblique(np.eye(4), 0.5)
    assert same_grid(AFFINE, (2, 2, 2), turn @ AFFINE, (2, 2, 2))
    assert not same_grid(AFFINE, (200, 200, 200), turn @ AFFINE, (200, 200, 200))
    assert not same_grid(AFFINE, SHAPE, AFFINE, (*SHAPE[:2], SHAPE[2] + 1))
    assert same_grid(AFFINE, SHAPE, AFFINE + 0.2 * np.eye(4, k=3), SHAPE, tolerance_mm=0.3)


def test_the_thickness_of_a_single_slice_counts():
    thicker = AFFINE @ np.diag([1, 1, 3, 1])
    assert not same_grid(AFFINE, (9, 9, 1), thicker, (9, 9, 1))


def broken(row, column, value):
    affine = AFFINE.copy()
    affine[row, column] = value
    return affine


BAD_AFFINES = {
    "not a number": broken(0, 3, np.nan),
    "infinite": broken(1, 1, np.inf),
    "no third axis": broken(2, 2, 0.0),
    "all zero": np.diag([0.0, 0, 0, 1]),
    "in a plane": np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "sheared by 70 degrees": AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 4.0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "a projection": broken(3, 0, 0.5),
    "voxels of 2 km": broken(0, 0, 2e6),
    "voxels of an atom": broken(0, 0, 1e-7),
    "a far origin": broken(0, 3, 1e30),
    "3 x 3": np.eye(3),
}


@pytest.mark.parametrize("affine", BAD_AFFINES.values(), ids=BAD_AFFINES.keys())
def test_useless_affines_are_refused(affine):
    assert affine_fault(affine).startswith("expected")
    with pytest.raises(UnreadableImageError, match=r"expected .*, found"):
        canonical_orientation(affine, SHAPE)


def test_gantry_tilt_is_no_fault():
    tilt = np.eye(4)
    tilt[1, 2] = np.tan(np.deg2rad(30))
    assert affine_fault(AFFINE @ tilt) == ""


def test_an_array_of_another_shape_is_not_turned():
    way = canonical_orientation(THICK_SAGITTAL, (8, 6, 4))
    with pytest.raises(GeometryMismatchError, match=r"\(8, 6, 4\)"):
        way.apply(np.zeros((8, 6, 5)))
    with pytest.raises(GeometryMismatchError, match="expected an array"):
        way.undo(np.zeros((4, 6, 8)))
