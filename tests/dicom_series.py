"""Image series for tests: random volumes and places, written as an archive would hold them, and read back."""

import numpy as np
from dicom_labels import save
from pydicom.uid import ExplicitVRBigEndian, JPEGLSLossless, RLELossless

from dafne_dante.annotations.dicom.files import read_headers
from dafne_dante.annotations.dicom.image import read_series
from dafne_dante.annotations.dicom.series import group_series

SHAPE = (7, 6, 5)
SAGITTAL = np.array([[0.0, 0, 5, 20], [-1, 0, 0, 9], [0, -1, 0, 8], [0, 0, 0, 1]])


def volume_of(shape=SHAPE, seed=0):
    """Whole numbers of which every mirror image is another."""
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def affine_of(seed):
    """A random rotation of either handedness, voxels of 0.5 to 3 mm, an origin anywhere within 100 mm."""
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * random.uniform(0.5, 3.0, 3)
    affine[:3, 3] = random.uniform(-100, 100, 3)
    return affine


def write(folder, datasets, order=None):
    for number, k in enumerate(order if order is not None else range(len(datasets))):
        save(datasets[k], folder / f"{number:03d}.dcm")
    return folder


def found(folder):
    files, left = read_headers(sorted(folder.rglob("*.dcm")))
    series, more = group_series(files)
    return series, [*left, *more]


def read_only(folder):
    series, left = found(folder)
    assert (len(series), left) == (1, [])
    return read_series(series[0])


def transcoded(dataset, syntax):
    if syntax in (RLELossless, JPEGLSLossless):
        dataset.compress(syntax, generate_instance_uid=False)
        return dataset
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    return dataset
