"""Label objects for tests, written with highdicom and pydicom from masks in an image's stored order.

Masks are (I, J, K): columns, rows, slices, as the image's stored grid has them. `slices` are the datasets of the
image's single-frame files in the order of K, or a list with one multi-frame dataset.
"""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from contourpy import contour_generator
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
DEVICE = {
    "manufacturer": "test",
    "manufacturer_model_name": "test",
    "software_versions": "1",
    "device_serial_number": "1",
}
NAME = hd.seg.SegmentAlgorithmTypeValues.MANUAL


def lps_of(affine: np.ndarray) -> np.ndarray:
    """The affine (4, 4) of the same voxels in LPS+."""
    return np.diag([-1.0, -1, 1, 1]) @ affine


def image_slices(volume: np.ndarray, affine: np.ndarray, **elements) -> list[FileDataset]:
    """One MR dataset for each slice of a volume (I, J, K) of whole numbers."""
    world = lps_of(affine)
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    shared = {
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "Modality": "MR",
        "PatientName": "Nobody^",
        "PatientID": "0",
        "PatientBirthDate": "",
        "PatientSex": "",
        "AccessionNumber": "",
        "StudyID": "",
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "ReferringPhysicianName": "",
        "Manufacturer": "test",
        "PositionReferenceIndicator": "",
        "SeriesNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SliceThickness": float(spacing[2]),
        "PixelSpacing": [float(spacing[1]), float(spacing[0])],
        "ImageOrientationPatient": [*(world[:3, 0] / spacing[0]), *(world[:3, 1] / spacing[1])],
        "Columns": volume.shape[0],
        "Rows": volume.shape[1],
        **elements,
    }
    return [_slice(volume[..., k], world @ [0, 0, k, 1], k, shared) for k in range(volume.shape[2])]


def _slice(pixels: np.ndarray, position: np.ndarray, number: int, elements: dict) -> FileDataset:
    dataset = _object(MRImageStorage, elements)
    dataset.ImagePositionPatient = [float(value) for value in position[:3]]
    dataset.InstanceNumber = number + 1
    dataset.PixelData = np.ascontiguousarray(pixels.T).astype("<u2").tobytes()
    return dataset


def _object(sop_class: str, elements: dict) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write the dataset, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def as_multi_frame(slices: list[FileDataset]) -> FileDataset:
    """The same image as one enhanced MR dataset."""
    taken = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "InstanceNumber"}
    kept = {one.keyword: one.value for one in slices[0] if one.keyword not in taken | {"PixelData", "SOPClassUID"}}
    kept.pop("SOPInstanceUID")
    dataset = _object(EnhancedMRImageStorage, kept)
    dataset.NumberOfFrames = len(slices)
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = slices[0].PixelSpacing
    shared.PixelMeasuresSequence[0].SliceThickness = slices[0].SliceThickness
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for number, one in enumerate(slices, start=1):
        group = Dataset()
        group.FrameContentSequence = [Dataset()]
        group.FrameContentSequence[0].DimensionIndexValues = [number]
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = one.ImagePositionPatient
        dataset.PerFrameFunctionalGroupsSequence.append(group)
    organization, index = Dataset(), Dataset()
    organization.DimensionOrganizationUID = generate_uid()
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00200032, 0x00209113
    dataset.DimensionOrganizationSequence, dataset.DimensionIndexSequence = [organization], [index]
    dataset.PixelData = b"".join(one.PixelData for one in slices)
    return dataset


def segmentation(
    slices: list[Dataset], masks: dict[str, np.ndarray], *, kind: str = "BINARY", time: str = "120000", **options
) -> hd.seg.Segmentation:
    """A DICOM-SEG of masks (I, J, K): bool for a binary object or a label map, 0 to 1 for a fractional one."""
    stacked = np.stack([np.moveaxis(mask, 2, 0).transpose(0, 2, 1) for mask in masks.values()], axis=-1)
    described = [
        hd.seg.SegmentDescription(number, label.split("#")[0], codes.SCT.Organ, codes.SCT.Liver, NAME)
        for number, label in enumerate(masks, start=1)
    ]
    dataset = hd.seg.Segmentation(
        slices,
        stacked if kind == "FRACTIONAL" else stacked.astype(np.uint8),
        hd.seg.SegmentationTypeValues[kind],
        described,
        generate_uid(),
        2,
        generate_uid(),
        1,
        **DEVICE,
        **options,
    )
    dataset.ContentDate, dataset.ContentTime = "20200102", time
    return dataset


def structure_set(slices: list[Dataset], regions: list[tuple[str, list[np.ndarray]]], **elements) -> FileDataset:
    """An RTSTRUCT of regions, each with contours (N, 3) in millimetres LPS+."""
    first = slices[0]
    dataset = _object(RTSTRUCT, {"Modality": "RTSTRUCT", "StructureSetLabel": "test", "StructureSetDate": "20200102"})
    dataset.StructureSetTime = "120000"
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID"):
        setattr(dataset, keyword, first[keyword].value)
    dataset.SeriesInstanceUID = generate_uid()
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_frame(slices)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    for number, (name, contours) in enumerate(regions, start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, "MANUAL"
        roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        dataset.StructureSetROISequence.append(roi)
        item = Dataset()
        item.ReferencedROINumber = number
        item.ContourSequence = [contour(points) for points in contours]
        dataset.ROIContourSequence.append(item)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def contour(points: np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    """One contour of (N, 3) millimetres LPS+, rounded as planning systems do."""
    item = Dataset()
    item.ContourGeometricType = kind
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{value:.4f}" for value in np.asarray(points).reshape(-1)]
    return item


def _referenced_frame(slices: list[Dataset]) -> Dataset:
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    series.ContourImageSequence = []
    for one in slices:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        series.ContourImageSequence.append(reference)
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", generate_uid()
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def contours_of(mask: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    """The borders of a mask (I, J, K), halfway between voxel centres, as (N, 3) millimetres LPS+."""
    padded = np.pad(mask.astype(float), ((1, 1), (1, 1), (0, 0)))
    found = []
    for k in range(mask.shape[2]):
        for line in contour_generator(z=padded[..., k].T, name="serial").lines(0.5):
            indices = np.column_stack([line[:-1] - 1, np.full(len(line) - 1, k), np.ones(len(line) - 1)])
            found.append((indices @ lps_of(affine).T)[:, :3])
    return found


def dafne_export(folder: Path, slices: list[Dataset], mask: np.ndarray, legend: list[str] | None = None) -> Path:
    """The files that Dafne writes for a mask (I, J, K): copies of the image's files with other pixels."""
    for k, one in enumerate(slices):
        copied = pydicom.Dataset(one)
        copied.file_meta, copied.preamble = one.file_meta, b"\0" * 128
        copied.PixelData = np.ascontiguousarray(mask[..., k].T).astype("<u2").tobytes()
        save(copied, folder / f"image{k + 1:04d}.dcm")
    if legend is not None:
        lines = [f"{number},{name}" for number, name in enumerate(legend, start=1)]
        (folder / "legend.csv").write_text("\n".join(["Value,Label", *lines]) + "\n")
        (folder / "legend_itk-snap.txt").write_text("# for another program\n")
    return folder


def random_affine(seed: int) -> np.ndarray:
    """An oblique affine (4, 4) in RAS+ with three spacings of its own; odd seeds are left-handed."""
    draw = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    turn[:, 2] *= np.sign(np.linalg.det(turn)) * (-1 if seed % 2 else 1)
    affine = np.eye(4)
    affine[:3, :3] = turn * draw.uniform(0.6, 4, 3)
    affine[:3, 3] = draw.uniform(-200, 200, 3)
    return affine


def phantom_masks(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Two smooth shapes (I, J, K) bool that no flip maps onto themselves and that overlap; "late" lies above."""
    place = np.stack(np.indices(shape), axis=-1) / np.array(shape)
    early = (((place - [0.35, 0.4, 0.45]) / [0.3, 0.32, 0.4]) ** 2).sum(-1) < 1
    late = (((place - [0.6, 0.55, 0.6]) / [0.22, 0.3, 0.3]) ** 2).sum(-1) < 1
    return {"early": early, "late": late}


def laid_over(masks: dict[str, np.ndarray]) -> np.ndarray:
    """(I, J, K) uint16: 1 for the first label, 2 for the second, the later above."""
    ranks = np.zeros(next(iter(masks.values())).shape, np.uint16)
    for rank, mask in enumerate(masks.values(), start=1):
        ranks[mask] = rank
    return ranks
