"""Cases and keys for the tests of the case store."""

import hashlib

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.key import StoreKey

KEY = StoreKey(bytes(range(32)))
OTHER_KEY = StoreKey(bytes(range(1, 33)))
SHAPE = (6, 5, 8)


def case_id(number):
    """The pseudonym of a made-up study."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def stored_case(number=0, version=0, *, shape=SHAPE, scale=1.0, channels=1, labels=("fat", "bone")):
    """Study `number` as somebody drew it the `version`-th time; the image depends on the number alone."""
    image = np.random.default_rng(number).normal(100, 30, (channels, *shape))
    segmentation = np.random.default_rng([number, version]).integers(0, len(labels) + 1, shape).astype(np.uint8)
    annotated = np.arange(shape[2]) % 3 != 1
    segmentation[..., ~annotated] = 0
    affine = np.diag([0.7, 0.7, 3.0, 1.0])
    affine[:3, 3] = -12.3, 45.6, 1 / 3
    intensities = (np.rint(image) * scale).astype(np.float32)
    return Case(case_id(number), intensities, segmentation, annotated, affine, labels)


def is_same(one, other):
    """Whether two cases agree in every bit."""
    arrays = ("image", "segmentation", "annotated", "affine")
    return (one.case_id, one.labels) == (other.case_id, other.labels) and all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and getattr(one, name).shape == getattr(other, name).shape
        and getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in arrays
    )
