"""Studies with one spoilt file each, read in a process with little memory: `python mutants.py KIND COUNT SEED FOLDER`.

Prints one JSON object: how many mutants gave a case, how many were refused, the slowest in seconds, memory at its
height above the start in MiB, and what should never happen: whatever escaped that is no error of ours.
"""

import contextlib
import gzip
import io
import json
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from dicom_labels import as_multi_frame, contours_of, dafne_export, image_slices, save, segmentation, structure_set
from dicom_series import transcoded
from pydicom.uid import JPEGLSLossless, RLELossless
from sources import write_bids, write_bundle_file, write_plain

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.search import find_studies_in
from dafne_dante.errors import DanteError

AFFINE = np.array([[1.0, 0, 0, -8], [0, 1.5, 0, 3], [0, 0, 4, 20], [0, 0, 0, 1]])
SHAPE = (18, 16, 4)
MEMORY_MIB = 1024
PATIENCE_S = 20.0
EXTREMES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x01")


class HangError(BaseException):
    """One mutant took too long; no handler of ordinary errors catches it."""


def phantom():
    """Whole numbers (I, J, K), and two masks that overlap nowhere."""
    volume = np.random.default_rng(0).integers(0, 3000, SHAPE).astype(np.uint16)
    liver, spleen = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    liver[3:9, 4:11, 1:3] = True
    spleen[10:15, 5:12, 1:4] = True
    return volume, {"liver": liver, "spleen": spleen}


def write_dicom_image(folder, syntax=None):
    volume, masks = phantom()
    slices = image_slices(volume, AFFINE)
    save(segmentation(slices, masks), folder / "seg.dcm")
    for number, dataset in enumerate(slices):
        save(transcoded(dataset, syntax) if syntax else dataset, folder / f"{number}.dcm")
    return ["1.dcm"]


def write_frames(folder):
    volume, masks = phantom()
    image = as_multi_frame(image_slices(volume, AFFINE))
    save(segmentation([image], masks), folder / "seg.dcm")
    save(image, folder / "image.dcm")
    return ["image.dcm"]


def write_dicom_labels(folder, kind):
    volume, masks = phantom()
    slices = image_slices(volume, AFFINE)
    for number, dataset in enumerate(slices):
        save(dataset, folder / f"{number}.dcm")
    if kind == "RTSTRUCT":
        regions = [(name, contours_of(mask, AFFINE)) for name, mask in masks.items()]
        save(structure_set(slices, regions), folder / "labels.dcm")
    elif kind == "export":
        dafne_export(folder / "masks", slices, masks["liver"])
        return [path.relative_to(folder).as_posix() for path in sorted((folder / "masks").rglob("*.dcm"))[1:2]]
    else:
        save(segmentation(slices, masks, kind=kind), folder / "labels.dcm")
    return ["labels.dcm"]


KINDS = {
    "series": write_dicom_image,
    "rle": lambda folder: write_dicom_image(folder, RLELossless),
    "jpegls": lambda folder: write_dicom_image(folder, JPEGLSLossless),
    "frames": write_frames,
    "binary": lambda folder: write_dicom_labels(folder, "BINARY"),
    "fractional": lambda folder: write_dicom_labels(folder, "FRACTIONAL"),
    "structures": lambda folder: write_dicom_labels(folder, "RTSTRUCT"),
    "export": lambda folder: write_dicom_labels(folder, "export"),
    "nifti": lambda folder: write_plain(folder, *phantom(), AFFINE),
    "bids": lambda folder: write_bids(folder, *phantom(), AFFINE),
    "bundle": lambda folder: write_bundle_file(folder, *phantom(), AFFINE),
}


def mutated(content, random):
    """The content, spoilt in one to four ways; mostly near its beginning, where headers are."""
    spoilt = bytearray(content)
    for _ in range(random.integers(1, 5)):
        reach = len(spoilt) if random.random() < 0.4 else min(len(spoilt), 1500)
        at, size = int(random.integers(0, max(reach, 1))), int(random.choice([1, 1, 2, 4, 8, 40]))
        way = random.integers(0, 7)
        if way == 0:
            spoilt[at : at + size] = random.bytes(size)
        elif way == 1:
            spoilt[at : at + size] = EXTREMES[random.integers(len(EXTREMES))] * size
        elif way == 2:
            spoilt[at : at + 1] = bytes([(spoilt[at] ^ (1 << int(random.integers(8)))) if at < len(spoilt) else 0])
        elif way == 3 and random.random() < 0.3:
            del spoilt[at:]
        elif way == 4:
            del spoilt[at : at + size]
        elif way == 5:
            spoilt[at:at] = spoilt[at // 2 : at // 2 + size]
        else:
            digits = [place for place in range(at, min(at + 300, len(spoilt))) if 48 <= spoilt[place] <= 57]
            for place in digits[:size]:
                spoilt[place] = 48 + int(random.integers(10))
    return bytes(spoilt)


def mutant_of(content, random):
    """Spoil the file as it is, or what is packed in it."""
    inside = random.random() < 0.7
    if inside and content[:2] == b"\x1f\x8b":
        return gzip.compress(mutated(gzip.decompress(content), random), 1)
    if inside and content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        victim = str(random.choice(sorted(members)))
        members[victim] = mutated(members[victim], random)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        return packed.getvalue()
    return mutated(content, random)


def outcome(folder):
    """What became of the folder, in a word."""

    def too_long(signum, frame):
        raise HangError

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        return "cases" if collect(find_studies_in([folder]), skip_faulty=True).cases else "refused"
    except DanteError:
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(kind, count, seed, folder):
    original = folder / "original"
    original.mkdir(parents=True)
    victims = KINDS[kind](original)
    assert outcome(original) == "cases", "the untouched study must be good"
    site = folder / "site"
    shutil.copytree(original, site)
    random, results, escaped, slowest = np.random.default_rng(seed), Counter(), [], 0.0
    start_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit_memory()
    warnings.simplefilter("error")  # pydicom's quote what they warn of
    for number in range(count):
        victim = victims[number % len(victims)]
        content = (original / victim).read_bytes()
        (site / victim).write_bytes(mutant_of(content, random))
        begin = time.perf_counter()
        try:
            results[outcome(site)] += 1
        except BaseException:  # what escapes is what we are after
            escaped.append(f"{victim} {number}: {traceback.format_exc(limit=-8)}")
        slowest = max(slowest, time.perf_counter() - begin)
        (site / victim).write_bytes(content)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kib) / 1024
    return {**results, "escaped": escaped, "slowest_s": round(slowest, 3), "peak_mib": round(peak, 1)}


def limit_memory():
    """Whoever believes a header that claims more, is stopped."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (MEMORY_MIB << 20), resource.RLIM_INFINITY))


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    print(json.dumps(found))
