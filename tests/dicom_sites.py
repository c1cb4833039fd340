"""Whole studies as an archive would hold them, written from a Case: image series, segmentations, structure sets.

A *canary* is a text that must never come out again; `poison` writes one, of at most 16 characters,
into every element that can hold text.
"""

import numpy as np
from contourpy import contour_generator
from dicom_labels import image_slices, lps_of, save, segmentation, structure_set

TEXTS = ("PN", "LT", "ST", "UT", "UC", "LO", "SH", "AE")
KEPT = {"Modality", "SegmentLabel", "ROIName", "ImageType", "PhotometricInterpretation", "BodyPartExamined"}
"""Elements whose text is a code with a meaning, or a label's name."""
MORE_TEXT = (
    "PatientName", "PatientID", "PatientComments", "PatientAddress", "OtherPatientIDs", "InstitutionName",
    "InstitutionAddress", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "StationName",
    "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "AccessionNumber", "StudyID",
    "DeviceSerialNumber", "AdmittingDiagnosesDescription", "Occupation", "AdditionalPatientHistory",
)  # fmt: skip
DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate")


def poison(dataset, canary, date):
    """Put the canary into every text element, the date into every date; a private block gets one, too."""
    for keyword in MORE_TEXT:
        setattr(dataset, keyword, canary)
    for keyword in DATES:
        setattr(dataset, keyword, date)
    block = dataset.private_block(0x0011, canary, create=True)
    block.add_new(0x01, "LO", canary)
    for element in dataset.iterall():
        if element.VR in TEXTS and element.keyword not in KEPT:
            element.value = f"{canary}^{canary}" if element.VR == "PN" else canary
    return dataset


def write_series(folder, case, *, order=None, prepare=lambda dataset: dataset, **elements):
    """The image of a case, one file a slice; returns the datasets in the order of Z."""
    slices = image_slices(np.rint(case.image[0]).astype(np.uint16), case.affine, **elements)
    for dataset in slices:
        prepare(dataset)
    for number, k in enumerate(order if order is not None else range(len(slices))):
        save(slices[k], folder / f"IM{number:04d}")
    return slices


def masks_of(case):
    """Label to mask (X, Y, Z)."""
    return {label: case.segmentation == value for value, label in enumerate(case.labels, start=1)}


def write_segmentation(path, slices, case, *, names=None, prepare=lambda dataset: dataset):
    """A DICOM-SEG of a case's labels, under other names where they are given."""
    named = {(names or {}).get(label, label): mask for label, mask in masks_of(case).items()}
    return save(prepare(segmentation(slices, named)), path)


def write_structure_set(path, slices, case, *, prepare=lambda dataset: dataset):
    """An RTSTRUCT of a case's labels: contours at half height between voxel centres."""
    regions = []
    for label, mask in masks_of(case).items():
        contours = []
        for k in range(mask.shape[2]):
            for line in contour_generator(z=np.pad(mask[..., k].astype(float), 1)).lines(0.5):
                # contourpy gives (second axis, first axis) of the padded array
                indices = np.stack([line[:, 1] - 1, line[:, 0] - 1, np.full(len(line), k), np.ones(len(line))])
                contours.append((lps_of(case.affine) @ indices)[:3].T)
        regions.append((label, contours))
    return save(prepare(structure_set(slices, regions)), path)
