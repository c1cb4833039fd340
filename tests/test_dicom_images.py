"""Image series: every order of slices gives the volume that was written; what does not fit together is told."""

import subprocess
import warnings

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_labels import as_multi_frame, image_slices, lps_of, save
from dicom_series import SAGITTAL, SHAPE, affine_of, found, read_only, transcoded, volume_of, write
from oriented import world_values
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dafne_dante.annotations.dicom.image import geometry_of, read_series
from dafne_dante.annotations.grid import put_on_grid


def places(volume, affine):
    """World coordinates to value, to a tenth of a millimetre: headers hold 16 characters a number."""
    return {tuple(np.round(place, 1) + 0.0): value for place, value in world_values(volume, affine).items()}


@pytest.mark.parametrize("seed", range(20))
def test_random_oblique_slices_in_any_order_come_back_voxel_for_voxel(tmp_path, seed):
    volume, affine = volume_of(seed=seed), affine_of(seed)
    order = np.random.default_rng(seed).permutation(SHAPE[2])
    series, left = found(write(tmp_path, image_slices(volume, affine), order))
    assert left == []
    read = read_series(series[0])
    geometry = geometry_of(series[0])
    assert geometry.shape == read.volume.shape == SHAPE
    np.testing.assert_array_equal(geometry.affine, read.affine)
    assert places(read.volume, read.affine) == places(volume, affine)
    # Slices run along the normal here; a left-handed volume comes back from its other end.
    mine, nifti = (
        put_on_grid("x", read.volume, read.affine, slice_axis=2),
        put_on_grid("x", volume.astype(np.int32), affine, slice_axis=2),
    )
    np.testing.assert_array_equal(mine.image, nifti.image)
    np.testing.assert_allclose(mine.affine, nifti.affine, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_affine_is_that_of_an_independent_reader(tmp_path, seed):
    """nibabel's own DICOM reader has rows first, and LPS+."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of itself that it is experimental
        from nibabel.nicom import dicomwrappers
    folder = write(tmp_path, image_slices(volume_of(), affine_of(seed)))
    (first, *_, last) = sorted(
        (dicomwrappers.wrapper_from_file(path) for path in folder.iterdir()), key=lambda one: -one.slice_indicator
    )
    theirs = np.diag([-1.0, -1, 1, 1]) @ first.affine[:, [1, 0, 2, 3]]
    step = (last.image_position - first.image_position) / (SHAPE[2] - 1)
    theirs[:3, 2] = np.diag([-1, -1, 1]) @ step
    np.testing.assert_allclose(read_only(folder).affine, theirs, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_voxels_lie_where_dcm2niix_puts_them(tmp_path, seed):
    dcm2niix = pytest.importorskip("dcm2niix")
    volume, affine = volume_of(seed=seed), affine_of(seed)
    folder = write(tmp_path / "series", image_slices(volume, affine, Manufacturer="GE MEDICAL SYSTEMS"))
    subprocess.run([dcm2niix.bin, "-o", tmp_path, "-f", "x", "-b", "n", folder], check=True, capture_output=True)
    theirs = nibabel.load(tmp_path / "x.nii")
    read = read_only(folder)
    assert places(read.volume, read.affine) == places(np.asanyarray(theirs.dataobj), theirs.affine)


def test_spacing_comes_from_positions_and_not_from_what_the_header_claims(tmp_path):
    datasets = image_slices(volume_of(), SAGITTAL)
    for number, dataset in enumerate(datasets):
        dataset.SliceThickness, dataset.SpacingBetweenSlices = 3.0, 77.0
        dataset.InstanceNumber = 100 - number
    read = read_only(write(tmp_path, datasets))
    assert np.linalg.norm(read.affine[:3, 2]) == pytest.approx(5.0)


@pytest.mark.parametrize("scaled", ["alike", "each its own"])
def test_values_are_slope_times_stored_plus_intercept(tmp_path, scaled):
    volume = volume_of()
    datasets = image_slices(volume, SAGITTAL)
    slopes = [2.5] * 5 if scaled == "alike" else [1.0, 2.0, 0.5, 3.25, 1.5]
    for dataset, slope in zip(datasets, slopes, strict=True):
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, -10.5
    read = read_only(write(tmp_path, datasets))
    expected = volume * np.array(slopes, np.float32) - np.float32(10.5)
    assert read.volume.dtype == np.float32
    np.testing.assert_allclose(read.volume, expected if read.affine[0, 2] > 0 else expected[..., ::-1], rtol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_are_not_stored_do_not_count(tmp_path, signed):
    volume = volume_of() % 4096
    datasets = image_slices(volume | 0xF000, SAGITTAL, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    read = read_only(write(tmp_path, datasets)).volume
    expected = np.where(signed & (volume > 2047), volume.astype(int) - 4096, volume)
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless]
)
def test_every_transfer_syntax_gives_the_same_numbers(tmp_path, syntax):
    volume = volume_of((32, 24, 3))
    datasets = [transcoded(dataset, syntax) for dataset in image_slices(volume, SAGITTAL)]
    for number, dataset in enumerate(datasets):
        big = {"force_encoding": True, "little_endian": False, "implicit_vr": False}
        form = big if syntax == ExplicitVRBigEndian else {"enforce_file_format": True}
        pydicom.dcmwrite(tmp_path / f"{number}.dcm", dataset, **form)
    assert pydicom.dcmread(tmp_path / "0.dcm").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_only(tmp_path).volume, volume)


def test_a_file_of_an_old_program_has_no_header_of_its_own(tmp_path):
    for number, dataset in enumerate(image_slices(volume_of(), SAGITTAL)):
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(tmp_path / f"{number}.dcm", implicit_vr=True, little_endian=True)
    assert (tmp_path / "0.dcm").read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_only(tmp_path).volume, volume_of())


def test_an_enhanced_image_is_one_file_with_a_place_for_every_frame(tmp_path):
    volume, affine = volume_of(), affine_of(3)
    datasets = image_slices(volume, affine)
    save(as_multi_frame([datasets[k] for k in (3, 0, 4, 1, 2)]), tmp_path / "enhanced.dcm")
    read = read_only(tmp_path)
    assert places(read.volume, read.affine) == places(volume, affine)
    assert len(set(read.sop_instance_uids)) == 1
    assert sorted(read.frame_numbers) == [1, 2, 3, 4, 5]


def with_frame_scale(dataset):
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = pydicom.Dataset()
        item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1.0 + number, 2.0, "US"
        group.PixelValueTransformationSequence = [item]
    return dataset


def test_frames_of_an_enhanced_image_have_scales_of_their_own(tmp_path):
    volume = volume_of()
    save(with_frame_scale(as_multi_frame(image_slices(volume, SAGITTAL))), tmp_path / "enhanced.dcm")
    expected = volume * np.arange(1, 6, dtype=np.float32) + 2
    np.testing.assert_allclose(read_only(tmp_path).volume, expected, rtol=1e-6)


def test_two_echoes_of_one_series_are_two_volumes(tmp_path):
    first = image_slices(volume_of(seed=1), SAGITTAL, EchoTime=10.0)
    series = {name: first[0][name].value for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    second = image_slices(volume_of(seed=2), SAGITTAL, EchoTime=80.0, **series)
    write(tmp_path, [one for pair in zip(first, second, strict=True) for one in pair])
    parts, left = found(tmp_path)
    assert left == []
    assert [(part.part, part.parts) for part in parts] == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(read_series(parts[0]).volume, volume_of(seed=1))
    np.testing.assert_array_equal(read_series(parts[1]).volume, volume_of(seed=2))


def test_a_localizer_is_told_apart_by_its_orientations(tmp_path):
    identity = {"SeriesInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    axial, sagittal = (
        image_slices(volume_of(), np.diag([1.0, 1, 4, 1]), **identity),
        image_slices(volume_of(seed=5), SAGITTAL, **identity),
    )
    parts, left = found(write(tmp_path, axial + sagittal))
    assert left == []
    assert [read_series(part).volume.shape for part in parts] == [SHAPE, SHAPE]


def test_a_single_slice_is_a_volume(tmp_path):
    read = read_only(write(tmp_path, image_slices(volume_of((7, 6, 1)), SAGITTAL)))
    assert read.volume.shape == (7, 6, 1)
    assert np.linalg.norm(read.affine[:3, 2]) == pytest.approx(5.0)
    assert "single slice" in read.notes[0]


def test_a_slice_that_is_there_twice_counts_once(tmp_path):
    datasets = image_slices(volume_of(), SAGITTAL)
    again = image_slices(volume_of(), SAGITTAL, SeriesInstanceUID=datasets[0].SeriesInstanceUID)[2]
    read = read_only(write(tmp_path, [*datasets, again]))
    assert read.volume.shape == SHAPE
    assert read.notes == ("1 slice(s) were there twice, with the same pixels",)


def tilted(datasets, millimetres):
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + millimetres * k]
    return datasets


def test_a_tilted_gantry_is_in_the_affine(tmp_path):
    volume = volume_of()
    read = read_only(write(tmp_path, tilted(image_slices(volume, SAGITTAL), 1.5)))
    np.testing.assert_allclose(read.affine[:3, 2], [5, 0, 1.5])
    np.testing.assert_array_equal(read.volume, volume)


def test_positions_are_in_lps():
    """Of the writer that the tests above rely on: patient left is positive (PS3.3, C.7.6.2.1.1)."""
    np.testing.assert_array_equal(lps_of(np.eye(4))[:3, :3], np.diag([-1, -1, 1]))
    first = image_slices(volume_of(), SAGITTAL)[0]
    assert list(first.ImagePositionPatient) == [-20, -9, 8]
