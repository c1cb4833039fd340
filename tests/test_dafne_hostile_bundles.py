"""Bundles that lie, or that somebody built to harm, are refused in one line, within bounded memory."""

import re
import struct
import zipfile

import numpy as np
import pytest
from bundles import archive, bundle, member, refusal, sound
from oriented import AFFINE, SHAPE, image_array, label_array

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.dafne.bundle import find_bundle_studies
from dafne_dante.annotations.reading import read_case
from dafne_dante.errors import DanteError, UnknownLabelError, UnreadableImageError

ANNOTATED = np.arange(SHAPE[2]) != 6


def replaced(path, name, content, compression=zipfile.ZIP_DEFLATED):
    return archive(path, [*{**sound(), name: content}.items()], compression)


def headed(text, body=b"", version=b"\x01\x00"):
    size = 2 if version == b"\x01\x00" else 4
    return b"\x93NUMPY" + version + len(text).to_bytes(size, "little") + text + body


def lying(path, position, value):
    """The table of the zip says that data.npy has other sizes; `position` is that in its entry."""
    content = bytearray(replaced(path, "data.npy", sound()["data.npy"]).read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + position : entry + position + 4] = struct.pack("<I", value)
    path.write_bytes(content)


def flipped(path):
    content = bytearray(archive(path, sound().items(), zipfile.ZIP_STORED).read_bytes())
    content[1000] ^= 4
    path.write_bytes(content)


def cut(path, share):
    content = bundle(path).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


BOMB = headed(b"{'descr':'<f8','fortran_order':False,'shape':(100000,100000,100000)}")
NAN = np.where(label_array() == 1, np.nan, image_array())
HOSTILE = {
    "no file": (lambda p: None, "cannot read"),
    "a folder": (lambda p: p.mkdir(), "found a folder"),
    "empty": (lambda p: p.write_bytes(b""), "damaged"),
    "no zip": (lambda p: p.write_bytes(b"x" * 5000), "damaged"),
    "cut in the middle": (lambda p: cut(p, 0.5), "damaged"),
    "cut at the end": (lambda p: cut(p, 0.999), "damaged"),
    "a flipped bit": (flipped, "damaged"),
    "bomb by shape": (lambda p: replaced(p, "data.npy", BOMB), "at most 268435456 voxels"),
    "shape beyond its bytes": (
        lambda p: replaced(p, "data.npy", headed(b"{'descr':'<f8','fortran_order':False,'shape':(500,500,500)}")),
        "expected 1000000000 bytes",
    ),
    "bomb by table": (lambda p: lying(p, 24, 0xFFFFFFF0), "as its header says"),
    "bomb by many": (
        lambda p: archive(p, [*sound().items(), *[(f"mask_{n}.npy", b"") for n in range(1000)]]), "at most 1000",
    ),
    "endless table": (
        lambda p: archive(p, [*sound().items(), *[(f"mask_{n:0200}.npy", b"") for n in range(5000)]]), "without end",
    ),
    "bomb by header": (
        lambda p: replaced(p, "data.npy", headed(b" " * 9_000_000, version=b"\x02\x00")), "header of at most",
    ),
    "deep header": (lambda p: replaced(p, "data.npy", headed(b"[" * 9000)), "damaged"),
    "code as header": (lambda p: replaced(p, "data.npy", headed(b"__import__('os').abort()")), "damaged"),
    "shape of floats": (
        lambda p: replaced(p, "data.npy", headed(b"{'descr':'<f8','fortran_order':False,'shape':(1.5,)}")), "damaged",
    ),
    "negative shape": (
        lambda p: replaced(p, "data.npy", headed(b"{'descr':'<f8','fortran_order':False,'shape':(-2,-3,1)}")),
        "at most",
    ),
    "pickled": (lambda p: replaced(p, "data.npy", member(np.array([{}], dtype=object))), "real numbers"),
    "pickled mask": (lambda p: replaced(p, "mask_left.npy", member(np.array([{}], dtype=object))), "real numbers"),
    "complex": (lambda p: bundle(p, data=image_array() * 1j), "real numbers"),
    "text": (lambda p: bundle(p, data=np.full(SHAPE, "x")), "real numbers"),
    "dates": (lambda p: bundle(p, data=np.full(SHAPE, "2020", dtype="M8[D]")), "real numbers"),
    "records": (lambda p: bundle(p, data=np.zeros(SHAPE, "f4,f4")), "real numbers"),
    "no npy inside": (lambda p: replaced(p, "data.npy", b"hello"), "damaged"),
    "bytes behind": (lambda p: replaced(p, "data.npy", sound()["data.npy"] + b"more"), "another number"),
    "other compression": (lambda p: archive(p, sound().items(), zipfile.ZIP_LZMA), "plain or deflated"),
    "a name twice": (lambda p: archive(p, [*sound().items(), ("data.npy", b"")]), "one name twice"),
    "path upwards": (lambda p: archive(p, [*sound().items(), ("../data2.npy", b"")]), "leads elsewhere"),
    "absolute path": (lambda p: archive(p, [*sound().items(), ("/etc/data2.npy", b"")]), "leads elsewhere"),
    "path in a label": (lambda p: archive(p, [*sound().items(), ("mask_a/../../b.npy", b"")]), "leads elsewhere"),
    "nan": (lambda p: bundle(p, data=NAN), "NaN"),
    "infinite": (lambda p: bundle(p, data=np.full(SHAPE, np.inf)), "infinity"),
    "beyond float32": (lambda p: bundle(p, data=np.full(SHAPE, 1e200)), "3e38"),
    "nan in a mask": (lambda p: bundle(p, mask_left=NAN), "one value beside 0"),
    "infinite mask": (lambda p: bundle(p, mask_left=np.where(label_array() == 1, np.inf, 0)), "one value beside 0"),
    "negative mask": (lambda p: bundle(p, mask_left=-(label_array() == 1).astype("i1")), "one value beside 0"),
    "label map as a mask": (lambda p: bundle(p, mask_left=label_array()), "one value beside 0"),
    "mask of another shape": (lambda p: bundle(p, mask_top=label_array()[:-1]), "7 x 9 x 11 voxels, found 6 x 9 x 11"),
    "mask in other order": (lambda p: bundle(p, mask_top=label_array().T), "found 11 x 9 x 7"),
    "contrast of another shape": (lambda p: bundle(p, data2=image_array()[:-1]), "data2.*found 6 x 9 x 11"),
    "a gap in the contrasts": (lambda p: bundle(p, data3=image_array()), "without gaps"),
    "4D": (lambda p: bundle(p, data=image_array()[None]), "three axes"),
    "no voxel": (lambda p: bundle(p, data=image_array()[:0]), "at least one voxel"),
    "no image": (lambda p: bundle(p, data=None), "array data, found none"),
    "no mask": (lambda p: bundle(p, mask_left=None, mask_top=None), "found none; label it"),
    "no geometry": (lambda p: bundle(p, affine=None, resolution=None), "affine or resolution"),
    "singular affine": (lambda p: bundle(p, affine=np.diag([2, 0, 1.2, 1])), "expected voxels of"),
    "sheared affine": (lambda p: bundle(p, affine=AFFINE[[0, 0, 2, 3]]), "span a box|expected voxels"),
    "affine of nan": (lambda p: bundle(p, affine=np.full((4, 4), np.nan)), "finite"),
    "affine of (3, 3)": (lambda p: bundle(p, affine=np.eye(3)), r"affine \(4, 4\)"),
    "affine and resolution differ": (lambda p: bundle(p, affine=np.eye(4)), "2 x 1.5 x 1.2 mm as resolution"),
    "resolution of 0": (lambda p: bundle(p, affine=None, resolution=[0, 1, 1]), "expected voxels of"),
    "resolution of nan": (lambda p: bundle(p, resolution=[np.nan, 1.5, 1.2]), "one size of voxels"),
    "resolution of 4": (lambda p: bundle(p, resolution=[1, 2, 3, 4]), "resolution of 3"),
    "resolution of one": (lambda p: bundle(p, resolution=1.0), "resolution of 3"),
    "annotated too short": (lambda p: bundle(p, annotated=ANNOTATED[1:]), "11 bools"),
    "annotated of numbers": (lambda p: bundle(p, annotated=ANNOTATED.astype("u1")), "11 bools"),
    "nothing annotated": (
        lambda p: bundle(p, mask_left=np.zeros(SHAPE), mask_top=np.zeros(SHAPE)), "at least one labelled slice",
    ),
    "two spellings": (lambda p: bundle(p, mask_LEFT=label_array() == 1), "two for one"),
    "label without a name": (lambda p: bundle(p, mask_=label_array() == 1), "printable"),
    "label with an escape": (lambda p: bundle(p, **{"mask_\x1b[2J": label_array() == 1}), "printable"),
    "endless label": (lambda p: bundle(p, **{"mask_" + "x" * 101: label_array() == 1}), "printable"),
    "Dafne's 3D learning": (lambda p: bundle(p, dice=np.array(0.9), model="Leg"), "its own 3D learning"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bundles_are_refused_in_one_line(tmp_path, spoil, words):
    path = tmp_path / "a.npz"
    spoil(path)
    message = refusal(path)
    assert re.search(words, message), message
    assert "a.npz" in message
    assert str(tmp_path) not in message
    assert "\n" not in message
    assert "\x1b" not in message


def mutated(content, draw):
    changed = bytearray(content)
    for position in draw.integers(0, len(content), draw.integers(1, 4)):
        changed[position] = draw.integers(0, 256)
    return bytes(changed)


def mutants(path, draw):
    """Bundles with bytes changed at random: of the zip, and of the arrays before they were zipped with new sums."""
    shape = (3, 3, 2)
    arrays = {
        "data": image_array(shape),
        "mask_left": np.ones(shape, bool),
        "mask_top": np.zeros(shape),
        "affine": AFFINE,
    }
    members = {f"{name}.npy": member(array) for name, array in (arrays | {"annotated": np.ones(2, bool)}).items()}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = archive(path, members.items(), compression).read_bytes()
        for _ in range(100):
            path.write_bytes(mutated(content, draw))
            yield path
    for _ in range(400):
        name = draw.choice(list(members))
        yield archive(path, {**members, name: mutated(members[name], draw)}.items(), zipfile.ZIP_STORED)


def test_mutated_bundles_raise_nothing_else(tmp_path):
    outcomes = set()
    for path in mutants(tmp_path / "a.npz", np.random.default_rng(0)):
        found = find_bundle_studies([path])
        try:
            outcomes |= {type(read_case(study)[0]) for study in found.studies}
        except DanteError as error:
            outcomes.add(type(error))
    assert {Case, UnreadableImageError, UnknownLabelError} <= outcomes
