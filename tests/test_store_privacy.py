"""Nothing of a study is in any byte of its store: no label, name, UID, date, path, size of a voxel or intensity."""

import json
import struct

import nibabel
import numpy as np
from stored_cases import KEY

from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.nifti.plain import find_plain_studies
from dafne_dante.annotations.reading import Reading
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.study import Found

CANARY = "Canary^Jane 1.2.840.99999 19631122"
SHAPE = (11, 13, 17)
SPACING = (0.7001, 0.8003, 1.9007)


def source(folder):
    """One study whose every name and text holds the canary, and whose label does, too."""
    case = folder / CANARY
    case.mkdir(parents=True)
    affine = np.diag([*SPACING, 1.0])
    for name in ("image", "mask_CanaryLabel"):
        values = np.full(SHAPE, 12345.0, np.float32) if name == "image" else np.ones(SHAPE, np.uint8)
        image = nibabel.Nifti1Image(values, affine)
        for text in ("descrip", "aux_file", "intent_name"):
            image.header[text] = CANARY.encode()[:15]
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", CANARY.encode()))
        nibabel.save(image, case / f"{name}.nii")
    return folder


def test_no_canary_is_in_any_byte_or_name_of_the_store(tmp_path):
    found = Found(tuple(find_plain_studies(source(tmp_path / "in"))))
    collection = collect(found, None, Reading(key=KEY.case_ids))
    (case,) = collection.cases
    store = CaseStore(tmp_path / "out", KEY, clock=lambda: 1_234_567_890_123_456_789)
    store.add(case)
    store.read(case.case_id)
    secrets = [
        *(word.encode() for word in (*CANARY.split(), "Canary", "CanaryLabel", "labels", "affine", str(tmp_path))),
        *(struct.pack("<d", size) for size in SPACING),
        *(str(size).encode() for size in SPACING),
        struct.pack("<4f", *[12345.0] * 4),
        struct.pack("<4h", *[12345] * 4),
        b"1234567890123456789",
        struct.pack("<q", 1_234_567_890_123_456_789),
        struct.pack(">q", 1_234_567_890_123_456_789),
        json.dumps(list(SHAPE)).encode(),
        KEY.secret,
        KEY.case_ids,
    ]
    files = sorted((tmp_path / "out").iterdir())
    assert [path.suffix for path in files] == [".case", ".sqlite"]
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content, (path.name, secret)
            assert secret not in path.name.encode()
    sealed = np.frombuffer(files[0].read_bytes()[40:], np.uint8)
    assert len(np.unique(sealed)) > 200, "sealed bytes are noise"
    assert store.cases()[0].header.labels == ("CanaryLabel",), "and yet everything is there"
