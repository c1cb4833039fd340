"""DICOM-SEG: every way to store the same segments gives the same voxels; what lies elsewhere is refused."""

import copy
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from dicom_labels import image_slices, laid_over, lps_of, phantom_masks, random_affine, save, segmentation
from oriented import ALL_ORIENTATIONS, oblique, turned, world_values
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from dafne_dante.annotations.dicom.elements import DicomFault, read_object
from dafne_dante.annotations.dicom.planes import Lattice
from dafne_dante.annotations.dicom.segmentation import describe_segmentation
from dafne_dante.errors import (
    AnnotationError,
    DanteError,
    GeometryMismatchError,
    UnknownLabelError,
    UnreadableImageError,
)

SHAPE = (13, 10, 7)
AFFINE = oblique(np.array([[-1.5, 0, 0, 9], [0, -1.2, 0, 8], [0, 0, 3, -7], [0, 0, 0, 1.0]]))
KINDS = {"BINARY": {}, "FRACTIONAL": {"fractional_type": "PROBABILITY"}, "LABELMAP": {}}


def masks_for(kind):
    """A label map cannot overlap."""
    masks = phantom_masks(SHAPE)
    return {**masks, "early": masks["early"] & ~masks["late"]} if kind == "LABELMAP" else masks


def written(path, slices, masks, kind="BINARY", **options):
    number = float if kind == "FRACTIONAL" else bool
    options = {**KINDS[kind], **options}
    return save(segmentation(slices, {n: m.astype(number) for n, m in masks.items()}, kind=kind, **options), path)


def drawn(path, affine=AFFINE, shape=SHAPE, ranks=None):
    onto = np.zeros(shape, np.uint16)
    found = describe_segmentation(path, pydicom.dcmread(path, stop_before_pixels=True))
    ranks = {label: rank for rank, label in enumerate(found.labels, 1)} if ranks is None else ranks
    assert found.draw(ranks, Lattice(affine, shape), onto) == ()
    return onto


@pytest.mark.parametrize("kind", KINDS)
def test_segments_come_back_voxel_for_voxel_from_random_oblique_slices_in_any_order(tmp_path, kind):
    masks = masks_for(kind)
    for seed in range(20):
        affine = random_affine(seed)
        order = np.random.default_rng(seed).permutation(SHAPE[2])
        slices = image_slices(np.zeros(SHAPE), affine)
        mixed = {name: mask[..., order] for name, mask in masks.items()}
        path = written(tmp_path / "a.dcm", [slices[index] for index in order], mixed, kind)
        np.testing.assert_array_equal(drawn(path, affine), laid_over(masks))


def test_left_stays_left_however_the_segmentation_s_voxel_axes_run(tmp_path):
    """Frames may be sagittal where the image is axial, as long as their pixels are its voxels."""
    masks = phantom_masks(SHAPE)
    expected = world_values(laid_over(masks), AFFINE)
    for orientation in ALL_ORIENTATIONS:
        stored = {name: turned(mask, AFFINE, orientation) for name, mask in masks.items()}
        affine = stored["early"][1]
        slices = image_slices(np.zeros(stored["early"][0].shape), affine)
        path = written(tmp_path / "a.dcm", slices, {name: mask for name, (mask, _) in stored.items()})
        onto = drawn(path)
        assert world_values(onto, AFFINE) == expected
        np.testing.assert_array_equal(onto, laid_over(masks))


def test_a_segmentation_of_some_slices_with_empty_frames_left_out_is_drawn_where_it_lies(tmp_path):
    masks = phantom_masks(SHAPE)
    slices = image_slices(np.zeros(SHAPE), AFFINE)
    path = written(tmp_path / "a.dcm", slices[2:5], {name: mask[..., 2:5] for name, mask in masks.items()})
    expected = np.zeros(SHAPE, np.uint16)
    expected[..., 2:5] = laid_over(masks)[..., 2:5]
    np.testing.assert_array_equal(drawn(path), expected)
    assert pydicom.dcmread(path).NumberOfFrames < 2 * 3, "empty frames are left out"


def test_segments_of_one_label_are_one_label_and_unwanted_ones_are_not_drawn(tmp_path):
    masks = phantom_masks(SHAPE)
    both = {"kidney#1": masks["early"], "liver": masks["early"] & masks["late"], "kidney#2": masks["late"]}
    path = written(tmp_path / "a.dcm", image_slices(np.zeros(SHAPE), AFFINE), both)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    assert describe_segmentation(path, header).labels == ("kidney", "liver")
    union = masks["early"] | masks["late"]
    np.testing.assert_array_equal(drawn(path, ranks={"kidney": 5}), 5 * union)
    np.testing.assert_array_equal(drawn(path), np.where(both["liver"], 2, union), "the later label lies above")


def test_a_fractional_pixel_counts_from_half_of_the_maximum_on(tmp_path):
    shares = np.zeros(SHAPE)
    shares[2:6, 3:5, 2] = np.array([0, 99, 100, 200])[:, None] / 200
    dataset = segmentation(
        image_slices(np.zeros(SHAPE), AFFINE),
        {"a": shares},
        kind="FRACTIONAL",
        fractional_type="OCCUPANCY",
        max_fractional_value=200,
    )
    onto = drawn(save(dataset, tmp_path / "a.dcm"))
    assert onto[2:6, 3, 2].tolist() == [0, 0, 1, 1]
    assert onto.sum() == 4


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("FRACTIONAL", RLELossless),
        ("LABELMAP", RLELossless),
        ("LABELMAP", JPEGLSLossless),
        ("BINARY", ImplicitVRLittleEndian),
    ],
)
def test_other_transfer_syntaxes_without_loss_are_read(tmp_path, kind, syntax):
    masks = masks_for(kind)
    path = written(tmp_path / "a.dcm", image_slices(np.zeros(SHAPE), AFFINE), masks, kind, transfer_syntax_uid=syntax)
    np.testing.assert_array_equal(drawn(path), laid_over(masks))


def test_a_deflated_file_is_read_and_one_that_unpacks_beyond_its_limit_is_not(tmp_path):
    masks = phantom_masks(SHAPE)
    dataset = segmentation(image_slices(np.zeros(SHAPE), AFFINE), masks)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(dataset, tmp_path / "a.dcm")
    np.testing.assert_array_equal(drawn(path), laid_over(masks))
    header = pydicom.dcmread(path)
    content = path.read_bytes()
    start = 144 + header.file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    path.write_bytes(content[:start] + packer.compress(bytes(1 << 24)) + packer.flush())
    with pytest.raises(DicomFault, match="expected an object that unpacks to at most 1048576 bytes"):
        read_object(path, max_bytes=1 << 20)


def shifted(millimetres):
    affine = AFFINE.copy()
    affine[:3, 3] += millimetres * AFFINE[:3, 0] / np.linalg.norm(AFFINE[:3, 0])
    return affine


def scaled(factor, axis):
    affine = AFFINE.copy()
    affine[:3, axis] *= factor
    return affine


OTHER_GRIDS = {
    "a tenth of a voxel aside": (shifted(0.16), SHAPE, "0.16 mm off"),
    "half a slice higher": (
        AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]]),
        SHAPE,
        "1.5 mm off",
    ),
    "twice as fine": (scaled(0.5, 0), (2 * SHAPE[0], *SHAPE[1:]), "pixels of 0.75 x 1.2 mm"),
    "twice as coarse": (scaled(2.0, 1), SHAPE, "pixels of 1.5 x 2.4 mm"),
    "slices half as thick": (scaled(0.5, 2), SHAPE, "1.5 mm off"),
    "cropped": (AFFINE, (11, 10, 7), "planes of 11 x 10 pixels"),
    "turned by three degrees": (oblique(AFFINE, 3.0), SHAPE, "turned against its slices"),
    "turned a little": (oblique(AFFINE, 0.9), SHAPE, "mm off its voxels"),
    "beyond the last slice": (
        AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]),
        SHAPE,
        "2 slices beyond",
    ),
}


@pytest.mark.parametrize("name", OTHER_GRIDS)
def test_a_segmentation_on_another_grid_is_refused_with_what_differs(tmp_path, name):
    affine, shape, words = OTHER_GRIDS[name]
    mask = np.ones(shape, dtype=bool)
    path = written(tmp_path / "a.dcm", image_slices(np.zeros(shape), affine), {"a": mask})
    with pytest.raises(GeometryMismatchError, match=words) as error:
        drawn(path)
    assert str(error.value).startswith("a.dcm: expected planes on the image's grid of 13 x 10 x 7 voxels")


def test_an_offset_below_a_tenth_of_a_voxel_is_rounding(tmp_path):
    masks = phantom_masks(SHAPE)
    path = written(tmp_path / "a.dcm", image_slices(np.zeros(SHAPE), shifted(0.14)), masks)
    np.testing.assert_array_equal(drawn(path), laid_over(masks))


def group(dataset, name="PlanePositionSequence"):
    return dataset.PerFrameFunctionalGroupsSequence[0][name].value[0]


def no_position(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence


def other_segment(dataset):
    group(dataset, "SegmentIdentificationSequence").ReferencedSegmentNumber = 7


def twice(dataset):
    dataset.SegmentSequence.append(copy.deepcopy(dataset.SegmentSequence[0]))


def named(name):
    return lambda dataset: setattr(dataset.SegmentSequence[0], "SegmentLabel", name)


def element(keyword, value):
    return lambda dataset: setattr(dataset, keyword, value)


def lossy(dataset):
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51"] * int(dataset.NumberOfFrames))
    dataset["PixelData"].is_undefined_length = True


BAD_FILES = {
    "no pixels": (lambda d: delattr(d, "PixelData"), UnreadableImageError, "expected pixels"),
    "half of the pixels": (
        lambda d: setattr(d, "PixelData", d.PixelData[:40]),
        UnreadableImageError,
        "frames of pixels",
    ),
    "more frames than planes": (element("NumberOfFrames", 100), UnreadableImageError, "expected 100 frames"),
    "frames beyond number": (element("NumberOfFrames", 2**31 - 1), UnreadableImageError, "from 1 to 200000"),
    "no size": (element("Rows", 0), UnreadableImageError, "Rows from 1"),
    "colours": (element("SamplesPerPixel", 3), UnreadableImageError, "found colours"),
    "12 bits": (element("BitsAllocated", 12), UnreadableImageError, "1, 8 or 16 bits"),
    "unknown kind": (element("SegmentationType", "SURFACE"), UnreadableImageError, "BINARY, FRACTIONAL, LABELMAP"),
    "no segments": (element("SegmentSequence", []), UnreadableImageError, "at least one segment"),
    "one number twice": (twice, UnreadableImageError, "a number of its own"),
    "a label without a name": (named(" "), AnnotationError, "label names of 1 to 100"),
    "a name of control characters": (named("a\x1b[2J"), AnnotationError, "printable"),
    "no position": (no_position, UnreadableImageError, "PlanePosition in the patient"),
    "two coordinates": (lambda d: setattr(group(d), "ImagePositionPatient", [1, 2]), UnreadableImageError, "3 numbers"),
    "no numbers": (lambda d: setattr(group(d), "ImagePositionPatient", None), UnreadableImageError, "3 numbers"),
    "far away": (lambda d: setattr(group(d), "ImagePositionPatient", [0, 0, 1e300]), UnreadableImageError, "3 numbers"),
    "an undeclared segment": (other_segment, UnreadableImageError, "declared segments"),
    "compressed with loss": (lossy, UnreadableImageError, "without loss"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_words(tmp_path, name):
    change, kind, words = BAD_FILES[name]
    dataset = segmentation(image_slices(np.zeros(SHAPE), AFFINE), phantom_masks(SHAPE))
    change(dataset)
    with pytest.raises(kind, match=words) as error:
        drawn(save(dataset, tmp_path / "a.dcm"))
    assert str(error.value).startswith("a.dcm: ")
    assert "Nobody" not in str(error.value)
    assert dataset.SOPInstanceUID not in str(error.value)


def test_a_value_of_a_label_map_that_is_no_segment_is_refused(tmp_path):
    path = written(tmp_path / "a.dcm", image_slices(np.zeros(SHAPE), AFFINE), masks_for("LABELMAP"), "LABELMAP")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData.replace(b"\x02", b"\x09")
    with pytest.raises(UnknownLabelError, match=r"a\.dcm: expected pixels that are numbers of segments"):
        drawn(save(dataset, path))


def test_labels_that_are_gone_since_the_file_was_found_are_missed(tmp_path):
    slices = image_slices(np.zeros(SHAPE), AFFINE)
    path = written(tmp_path / "a.dcm", slices, phantom_masks(SHAPE))
    found = describe_segmentation(path, pydicom.dcmread(path))
    written(path, slices, {"other": phantom_masks(SHAPE)["early"]})
    with pytest.raises(UnreadableImageError, match="expected the labels early, late"):
        found.draw({"early": 1, "late": 2}, Lattice(AFFINE, SHAPE), np.zeros(SHAPE, np.uint16))


@pytest.mark.parametrize("position", [[0, 0, 0], [0, 0, 1e4]])
def test_nothing_of_the_file_is_told_or_logged_but_names_of_labels(tmp_path, caplog, capfd, position):
    """Bad identifiers make pydicom warn, and quote them."""
    dataset = segmentation(image_slices(np.zeros(SHAPE), AFFINE), phantom_masks(SHAPE))
    group(dataset).ImagePositionPatient = position
    content = save(dataset, tmp_path / "a.dcm").read_bytes()
    for uid in (dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID):
        content = content.replace(uid.encode(), b"1.CANARY" + uid.encode()[8:])
    (tmp_path / "a.dcm").write_bytes(content)
    with caplog.at_level(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(tmp_path / "a.dcm")
        caplog.clear()
        warnings.simplefilter("error")
        with pytest.raises(GeometryMismatchError) as error:
            describe_segmentation(tmp_path / "a.dcm", header).draw({}, Lattice(AFFINE, SHAPE), np.zeros(0))
    assert "CANARY" not in str(error.value) + caplog.text + "".join(capfd.readouterr())


def test_mutated_files_give_an_error_of_ours_or_segments(tmp_path):
    dataset = segmentation(image_slices(np.zeros(SHAPE), AFFINE), phantom_masks(SHAPE))
    content = save(dataset, tmp_path / "sound.dcm").read_bytes()
    outcomes = mutated_outcomes(content, tmp_path / "a.dcm", 250)
    assert outcomes["refused"] > 20
    assert outcomes["drawn"] > 20


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
            found = describe_segmentation(path, header)
            found.draw(dict.fromkeys(found.labels, 1), Lattice(AFFINE, SHAPE), np.zeros(SHAPE, np.uint16))
            outcomes["drawn"] += 1
        except DanteError:
            outcomes["refused"] += 1
    return outcomes


def test_planes_are_in_lps():
    np.testing.assert_allclose(lps_of(np.eye(4)), np.diag([-1, -1, 1, 1]))
