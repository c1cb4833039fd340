"""Series that are damaged, lie, or are none: each is left or refused with a reason, and costs no memory."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_labels import image_slices
from dicom_series import SAGITTAL, found, transcoded, volume_of, write
from pydicom.uid import JPEGLSLossless

from dafne_dante.annotations.dicom.files import read_headers
from dafne_dante.annotations.dicom.image import read_series
from dafne_dante.annotations.dicom.series import group_series
from dafne_dante.errors import AnnotationError, GeometryMismatchError, UnreadableImageError


def replaced(datasets, k, **elements):
    for keyword, value in elements.items():
        setattr(datasets[k], keyword, value)
    return datasets


def moved(datasets, k, by):
    position = [float(value) for value in datasets[k].ImagePositionPatient]
    return replaced(datasets, k, ImagePositionPatient=(np.array(position) + by).tolist())


def other_pixels(datasets):
    again = image_slices(volume_of(seed=9), SAGITTAL, SeriesInstanceUID=datasets[0].SeriesInstanceUID)
    return [*datasets, again[1]]


def without_pixels(datasets, k):
    datasets[k].PixelData = datasets[k].PixelData[:20]
    return datasets


FAULTS = {
    "a slice is missing": (lambda d: d[:2] + d[3:], GeometryMismatchError, "1 missing in 1 place"),
    "two gaps": (
        lambda d: [one for k, one in enumerate(image_slices(volume_of((7, 6, 9)), SAGITTAL)) if k not in (2, 5, 6)],
        GeometryMismatchError,
        "3 missing in 2 place",
    ),
    "a slice off its height": (lambda d: moved(d, 2, [-1.2, 0, 0]), GeometryMismatchError, "mm off its place"),
    "a slice off to the side": (lambda d: moved(d, 2, [0, 3, 0]), GeometryMismatchError, "mm off its place"),
    "another slice at a place": (other_pixels, GeometryMismatchError | UnreadableImageError, "found two that differ"),
    "directions of no length": (
        lambda d: [replaced(d, k, ImageOrientationPatient=[0] * 6)[k] for k in range(5)],
        UnreadableImageError,
        "directions that are perpendicular",
    ),
    "directions that are one": (
        lambda d: [replaced(d, k, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])[k] for k in range(5)],
        UnreadableImageError,
        "directions that are perpendicular",
    ),
    "pixels of no size": (
        lambda d: [replaced(d, k, PixelSpacing=[0.0, 1.0])[k] for k in range(5)],
        GeometryMismatchError,
        "expected voxels of 0.001",
    ),
    "too few pixels": (lambda d: without_pixels(d, 3), UnreadableImageError, "found fewer"),
    "numbers of several kinds": (
        lambda d: replaced(d, 1, PixelRepresentation=1),
        UnreadableImageError,
        "several kinds of numbers",
    ),
    "a depth of 12 bits": (lambda d: replaced(d, 0, BitsAllocated=12), UnreadableImageError, "8, 16 or 32 bits"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_slices_that_do_not_fit_together_are_refused(tmp_path, name):
    spoil, error, words = FAULTS[name]
    series, left = found(write(tmp_path, list(spoil(image_slices(volume_of(), SAGITTAL)))))
    with pytest.raises(AnnotationError, match=words) as caught:
        for one in series:
            read_series(one)
        if left:
            raise UnreadableImageError(left[0].reason)
    assert isinstance(caught.value, error)
    assert str(tmp_path) not in str(caught.value)


NO_IMAGES = {
    "text": (b"what lies beside images", "found something else"),
    "nothing": (b"", "found something else"),
    "only the signature": (b"\0" * 128 + b"DICM", "expected"),
    "a length beyond the file": (
        b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 8, 0x18, b"UT", 0, 0xFFFFFFF0) + b"1.2",
        "expected",
    ),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_dicom_is_left_with_a_reason(tmp_path, name):
    content, words = NO_IMAGES[name]
    (tmp_path / "x.dcm").write_bytes(content)
    series, left = found(tmp_path)
    assert series == []
    assert words in left[0].reason
    assert left[0].reason.startswith("x.dcm: ")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"SamplesPerPixel": 3}, "found colours"),
        ({"NumberOfFrames": 5}, "a position for every frame"),
        ({"ImagePositionPatient": None}, "position, orientation and pixel spacing"),
        ({"ImagePositionPatient": [1, 2]}, "expected 3 numbers in ImagePositionPatient"),
        ({"PixelSpacing": ["1e30", "1"]}, "expected 2 numbers in PixelSpacing"),
        ({"RescaleSlope": "1e99"}, "numbers in RescaleSlope"),
    ],
)
def test_images_that_have_no_place_or_are_none_are_left(tmp_path, elements, words):
    (dataset,) = image_slices(volume_of((7, 6, 1)), SAGITTAL)
    series, left = found(write(tmp_path, replaced([dataset], 0, **elements)))
    assert series == []
    assert words in left[0].reason


def test_a_header_that_claims_too_much_costs_no_memory(tmp_path):
    datasets = image_slices(volume_of(), SAGITTAL, Rows=65_535, Columns=65_535)
    series, left = found(write(tmp_path, datasets))
    assert left == []
    with pytest.raises(UnreadableImageError, match="expected at most 268435456 voxels"):
        read_series(series[0])


def test_a_compressed_slice_of_another_size_is_not_unpacked(tmp_path):
    datasets = [transcoded(one, JPEGLSLossless) for one in image_slices(volume_of((32, 24, 2)), SAGITTAL)]
    for dataset in datasets:
        dataset.Rows = 48
    with pytest.raises(UnreadableImageError, match="32 x 48 pixels, found others"):
        read_series(found(write(tmp_path, datasets))[0][0])


def packaged_files():
    import highdicom
    import nibabel

    roots = [Path(module.__file__).parent for module in (pydicom, highdicom, nibabel)]
    return [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]


def test_files_that_packages_ship_are_read_or_left_with_a_reason():
    """Multi-frame and compressed ones among them, and much that is no image."""
    paths = packaged_files()
    files, left = read_headers(paths)
    series, more = group_series(files)
    assert len(files) + len(left) == len(paths) > 400
    assert all(one.reason for one in [*left, *more])
    read = []
    for one in series:
        try:
            read.append(read_series(one).volume)
        except AnnotationError as error:
            assert str(error).startswith(one.files[0].name)
    assert len(read) >= 25
    assert all(np.isfinite(volume).all() and volume.size for volume in read)
