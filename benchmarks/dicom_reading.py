"""How long reading a DICOM series takes, over pydicom's bare decoding of the same files, side by side in one run.

    python benchmarks/dicom_reading.py [--slices 200] [--edge 512] [--rounds 7] [--folder FOLDER]

*Bare* is `dcmread(path).pixel_array` for each file, and nothing kept in order. *Ours* is everything from the paths to
a volume with its affine: headers checked, slices grouped into series, sorted by place, gaps and duplicates looked for,
pixels decoded, stacked. *With labels* also finds and reads a segmentation of every slice, and turns both to the
canonical grid. Rounds alternate; the median of each is compared. The target is 1.5 for ours.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, MRImageStorage, RLELossless, generate_uid
from scipy import ndimage

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.dicom.files import read_headers
from dafne_dante.annotations.dicom.image import read_series
from dafne_dante.annotations.dicom.series import group_series
from dafne_dante.annotations.search import find_studies_in

SYNTAXES = {"uncompressed": ExplicitVRLittleEndian, "RLE": RLELossless, "JPEG-LS": JPEGLSLossless}


def write_series(folder: Path, slices: int, edge: int, syntax: str) -> list[pydicom.Dataset]:
    """One file a slice of smooth structures with noise, 16 bit, in a random order of names."""
    random = np.random.default_rng(0)
    smooth = ndimage.zoom(random.normal(0, 1, (slices // 8 + 2, edge // 16 + 2, edge // 16 + 2)), (8, 16, 16), order=1)
    volume = np.rint(1500 + 300 * smooth + random.normal(0, 10, smooth.shape)).astype(np.uint16)[:slices, :edge, :edge]
    shared = {key: generate_uid() for key in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")}
    written = []
    for number, place in enumerate(random.permutation(slices)):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY"]
        for key, value in shared.items():
            setattr(dataset, key, value)
        for key in ("PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(dataset, key, "")
        for key in ("PatientName", "ReferringPhysicianName", "StudyDate", "StudyTime", "Manufacturer"):
            setattr(dataset, key, "")
        dataset.PositionReferenceIndicator, dataset.SeriesNumber = "", 1
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
        dataset.ImagePositionPatient, dataset.SliceThickness = [-180, -180, 1.5 * int(place)], 1.5
        dataset.InstanceNumber = number + 1
        dataset.Rows = dataset.Columns = edge
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelData = volume[place].tobytes()
        if syntax != "uncompressed":
            dataset.compress(SYNTAXES[syntax], generate_instance_uid=False)
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
        written.append(dataset)
    return written


def write_labels(path: Path, slices: Sequence[pydicom.Dataset]) -> None:
    """A binary segmentation with one structure on every slice."""
    mask = np.zeros((len(slices), slices[0].Rows, slices[0].Columns), np.uint8)
    mask[:, slices[0].Rows // 4 : slices[0].Rows // 2, slices[0].Columns // 4 : slices[0].Columns // 2] = 1
    manual = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    described = highdicom.seg.SegmentDescription(1, "liver", codes.SCT.Organ, codes.SCT.Liver, manual)
    highdicom.seg.Segmentation(
        list(slices), mask, highdicom.seg.SegmentationTypeValues.BINARY, [described], generate_uid(), 2,
        generate_uid(), 1, "benchmark", "benchmark", "1", "1",
    ).save_as(path)  # fmt: skip


def bare(paths: Sequence[Path]) -> None:
    """Decode every file, as simply as can be."""
    for path in paths:
        _ = pydicom.dcmread(path).pixel_array


def ours(paths: Sequence[Path]) -> None:
    """From the paths to one volume and its affine."""
    files, left = read_headers(paths)
    series, more = group_series(files)
    assert len(series) == 1
    assert not left
    assert not more
    read_series(series[0])


def seconds(run: Callable[[], object]) -> float:
    """How long it takes, once."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(folder: Path, syntax: str, slices: int, edge: int, rounds: int) -> None:
    """Print one line for a transfer syntax."""
    series = folder / "series"
    series.mkdir(parents=True)
    datasets = write_series(series, slices, edge, syntax)
    paths = sorted(series.iterdir())
    contenders: dict[str, Callable[[], object]] = {"bare": lambda: bare(paths), "ours": lambda: ours(paths)}
    if syntax == "uncompressed":
        write_labels(folder / "labels.dcm", datasets)
        contenders["with labels"] = lambda: collect(find_studies_in([folder]))
    del datasets
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name, run in contenders.items():
            took = seconds(run)
            if round_number:  # the first one fills the cache of the disk
                times[name].append(took)
    median = {name: statistics.median(found) for name, found in times.items()}
    ratios = [f"{median[name] / median['bare']:.2f}" for name in contenders if name != "bare"]
    line = f"{syntax:15}{median['bare']:10.3f}{median['ours']:10.3f}{ratios[0]:>8}"
    print(line + (f"{ratios[1]:>14}" if ratios[1:] else ""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--edge", type=int, default=512, help="pixels along rows and columns")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="where files are written; a temporary folder")
    wanted = parser.parse_args()
    size = f"{wanted.slices} slices of {wanted.edge} squared"
    print(f"pydicom {pydicom.__version__}, numpy {np.__version__}, {size}, seed 0")
    print(f"{'':15}{'bare s':>10}{'ours s':>10}{'ratio':>8}{'with labels':>14}")
    for one in SYNTAXES:
        with tempfile.TemporaryDirectory(dir=wanted.folder) as temporary:
            measure(Path(temporary), one, wanted.slices, wanted.edge, wanted.rounds)
