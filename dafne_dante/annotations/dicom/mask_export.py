"""What Dafne writes when masks are exported as DICOM, and how it is read.

Facts, from running the DICOM writer that Dafne 2.1.0a0 uses (ormir-pyvoxel 0.0.11) and reading Dafne's own source:
- "Save as DICOM" makes one folder a label, named after it (trimmed; "_" for an empty name), in the chosen folder.
  "Save as compact DICOM" makes one folder for all labels, with `legend.csv` and `legend_itk-snap.txt` in it.
- A folder holds one file a slice of the whole image, `image0001.dcm` onwards, in the order in which Dafne had loaded
  the slices; slices that nobody looked at are written, too, and are empty. So an empty slice means nothing.
- Each file is the image's own file with other pixels: patient, study, series, position, rescaling, content date and
  even the SOP Instance UID stay those of the image. Only when the image was compressed has Dafne given each slice
  a new instance UID. Sometimes `NumberOfFrames` 1 is added.
- Pixels are never compressed. They are 0 and 1 in as many bits as the image had (8 or 16), whatever BitsStored says;
  in the compact form they are the sum, over the labels, of the numbers that `legend.csv` gives them.
- Where two labels overlap the sum is another label's number or none: 1 + 2 is 3. That cannot be undone. How
  `legend.csv` is written: see `dafne.legend`.

Invariants
- Such a folder would pass for a second copy of its image, so it is told apart before series are grouped: every DICOM
  file in it has a name of that pattern, all are of one series, and either `legend.csv` is there or no stored pixel is
  above 1. An image of zeros and ones is not one.
- Slices are placed by their plane (see `planes`). Stored pixels count; rescaling, which is the image's, does not.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dafne_dante.annotations.dafne.legend import MAX_VALUE, read_legend
from dafne_dante.annotations.dicom.elements import DicomFault, read_object, text, told_of, understood, whole_number
from dafne_dante.annotations.dicom.files import DicomFile
from dafne_dante.annotations.dicom.planes import Lattice, place_plane, read_plane
from dafne_dante.annotations.dicom.referenced import References
from dafne_dante.annotations.nifti.files import checked_label
from dafne_dante.annotations.study import EmptySlices, Left
from dafne_dante.errors import AnnotationError, DanteError, UnknownLabelError
from dafne_dante.types import Volume

__all__ = ["LEGEND_FILE", "SIDE_FILES", "MaskExport", "split_mask_exports"]

LEGEND_FILE = "legend.csv"
SIDE_FILES = (LEGEND_FILE, "legend_itk-snap.txt")
"""Names of what Dafne writes beside the slices of a compact export."""

_SLICE_NAME = re.compile(r"image\d{4,}\.dcm")
_MAX_SLICE_BYTES = 256 << 20
_MAX_EDGE = 65_535


@dataclass(frozen=True)
class MaskExport:
    """One folder of Dafne's; a LabelObject (see `referenced`).

    `values[i]` stands for `labels[i]`; values of None mean one label, which is wherever there is no 0.
    """

    folder: Path
    slices: tuple[Path, ...]
    labels: tuple[str, ...]
    values: tuple[int, ...] | None
    references: References
    content_time: str = ""
    empty_slices: EmptySlices = "unknown"

    @property
    def name(self) -> str:
        """Base name of the folder."""
        return self.folder.name

    @property
    def files(self) -> tuple[Path, ...]:
        """One file a slice."""
        return self.slices

    def draw(self, ranks: Mapping[str, int], lattice: Lattice, onto: Volume) -> tuple[str, ...]:
        """As `LabelObject.draw`."""
        table = self._ranks_of_values(ranks)
        for path in self.slices:
            with told_of(f"{self.name}/{path.name}"):
                dataset = read_object(path, pixels=bool(ranks), max_bytes=_MAX_SLICE_BYTES)
                shape = _frame_shape(dataset)
                place = place_plane(lattice, read_plane(dataset, dataset, dataset, shape))
                if ranks:
                    drawn = table[_stored(dataset, shape)]
                    _check_known(drawn)
                    target = place.slice_of(onto)
                    np.maximum(target, place.oriented(drawn), out=target)
        if self.values and len(self.values) > 2:
            return (f"{self.name}: where labels overlap, a compact export does not tell which they are",)
        return ()

    def _ranks_of_values(self, ranks: Mapping[str, int]) -> Volume:
        """(65536,) uint16: the rank of each stored value, 65535 for one that stands for nothing."""
        if self.values is None:
            table = np.full(MAX_VALUE + 2, ranks.get(self.labels[0], 0), dtype=np.uint16)
        else:
            table = np.full(MAX_VALUE + 2, MAX_VALUE + 1, dtype=np.uint16)
            for label, value in zip(self.labels, self.values, strict=True):
                table[value] = ranks.get(label, 0)
        table[0] = 0
        return table


def split_mask_exports(files: Sequence[DicomFile]) -> tuple[list[MaskExport], list[DicomFile], list[Left]]:
    """Dafne's exports among the files, by folder; the other files; and exports that cannot be used."""
    exports: list[MaskExport] = []
    others: list[DicomFile] = []
    left: list[Left] = []
    folders: dict[Path, list[DicomFile]] = {}
    for file in files:
        folders.setdefault(file.path.parent, []).append(file)
    for folder, inside in sorted(folders.items()):
        try:
            export = _export_of(folder, inside)
        except DanteError as error:
            left.append(Left(folder.name, str(error)))
            continue
        if export is None:
            others.extend(inside)
        else:
            exports.append(export)
    return exports, others, left


def _export_of(folder: Path, files: Sequence[DicomFile]) -> MaskExport | None:
    """The export that the folder is; None when it is none.

    Raises:
        AnnotationError: it is one, and its label or its legend is none.
        StorageError: a file cannot be read.
    """
    if not all(_SLICE_NAME.fullmatch(file.path.name) for file in files) or len({file.series_uid for file in files}) > 1:
        return None
    slices = tuple(sorted(file.path for file in files))
    legend = folder / LEGEND_FILE
    if legend.is_file():
        values = read_legend(legend)
    elif _are_masks(slices):
        values = {checked_label(folder.name, folder.name): 0}
    else:
        return None
    with told_of(folder.name):
        references = References(
            frozenset(file.sop_instance_uid for file in files),
            frozenset({files[0].series_uid}),
            text(files[0].header, "FrameOfReferenceUID"),
        )
    return MaskExport(folder, slices, tuple(values), tuple(values.values()) if legend.is_file() else None, references)


def _are_masks(paths: Sequence[Path]) -> bool:
    """Whether every stored pixel is 0 or 1; of an image, hardly more than the first file is opened."""
    try:
        with told_of("the folder"):
            return all(int(values.max(initial=0)) <= 1 for values in _stored_slices(paths))
    except AnnotationError:
        return False


def _stored_slices(paths: Sequence[Path]) -> Iterator[Volume]:
    for path in paths:
        dataset = read_object(path, max_bytes=_MAX_SLICE_BYTES)
        yield _stored(dataset, _frame_shape(dataset))


def _frame_shape(dataset: Dataset) -> tuple[int, int]:
    return whole_number(dataset, "Rows", 1, _MAX_EDGE), whole_number(dataset, "Columns", 1, _MAX_EDGE)


def _stored(dataset: Dataset, shape: tuple[int, int]) -> Volume:
    """(rows, columns) of the pixels as stored, without sign."""
    bits = whole_number(dataset, "BitsAllocated", 8, 16)
    syntax = UID(text(dataset.file_meta, "TransferSyntaxUID")) if hasattr(dataset, "file_meta") else ""
    content = understood("pixels", dataset.get, "PixelData")
    needed = shape[0] * shape[1] * (bits // 8)
    plain = syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, "") and isinstance(content, bytes)
    if not plain or bits % 8 or len(content) < needed or whole_number(dataset, "SamplesPerPixel", 1, 4) != 1:
        raise DicomFault("expected plain pixels of one whole number, found others; export it again")
    stored: Volume = np.frombuffer(content, dtype=f"<u{bits // 8}", count=shape[0] * shape[1]).reshape(shape)
    return stored


def _check_known(drawn: Volume) -> None:
    if drawn.max(initial=0) > MAX_VALUE:
        raise DicomFault(
            f"expected values that {LEGEND_FILE} names, found another: labels overlap; export one folder a label",
            UnknownLabelError,
        )
