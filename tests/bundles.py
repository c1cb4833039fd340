"""Bundles as Dafne writes them, as others might, and why one is refused."""

import io
import warnings
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy
from oriented import AFFINE, image_array, label_array

from dafne_dante.annotations.dafne.bundle import find_bundle_studies
from dafne_dante.annotations.reading import read_case
from dafne_dante.errors import DanteError


def bundle(path, **arrays):
    """A bundle as `numpy.savez_compressed` in Dafne writes it; an array of None is left out."""
    labels = label_array()
    usual = {
        "data": image_array(),
        "mask_left": (labels == 1).astype(np.uint8),
        "mask_top": (labels == 2).astype(np.float64),
        "resolution": np.array([2.0, 1.5, 1.2]),
        "affine": AFFINE,
        "comment": "anything",
    }
    kept = {name: array for name, array in {**usual, **arrays}.items() if array is not None}
    np.savez_compressed(path, **kept)
    return path


def refusal(path):
    """Why the file is refused, by the search or when it is read."""
    found = find_bundle_studies([path])
    if found.left:
        return found.left[0].reason
    with pytest.raises(DanteError) as caught:
        read_case(found.studies[0])
    return str(caught.value)


def member(array):
    stream = io.BytesIO()
    npy.write_array(stream, np.asanyarray(array), allow_pickle=True)
    return stream.getvalue()


def sound():
    return {
        "data.npy": member(image_array()),
        "mask_left.npy": member(label_array() == 1),
        "affine.npy": member(AFFINE),
    }


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that a name is there twice
        with zipfile.ZipFile(path, "w", compression) as stream:
            for name, content in members:
                stream.writestr(name, content)
    return path
