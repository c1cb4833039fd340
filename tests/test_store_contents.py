"""A case as bytes and back: every bit of it, in as few bytes as is quick."""

import zlib

import numpy as np
import pytest
from stored_cases import is_same, stored_case

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.reading import pseudonym
from dafne_dante.annotations.store.contents import decode_case, decode_header, describe, encode_case
from dafne_dante.errors import StorageError


def round_trip(case, pieces_of=None):
    content = b"".join(encode_case(case, describe(case, saved_ns=7)))
    size = pieces_of or len(content)
    return decode_case(iter([content[start : start + size] for start in range(0, len(content), size)]), "case 1")


def with_image(image):
    x = stored_case()
    shape = image.shape[1:]
    return Case(x.case_id, image, np.zeros(shape, np.uint8), np.ones(shape[2], bool), x.affine, x.labels)


@pytest.mark.parametrize("options", [
    {}, {"scale": 0.37}, {"scale": 1e30}, {"channels": 3}, {"shape": (1, 1, 1)}, {"shape": (70, 130, 121)},
    {"labels": tuple(f"structure {number}" for number in range(255))}, {"labels": ("Fußknöchel (links)",)},
])  # fmt: skip
def test_every_bit_comes_back(options):
    case = stored_case(**options)
    header, back = round_trip(case)
    assert is_same(case, back)
    assert header == describe(case, saved_ns=7) == describe(back, saved_ns=7)
    assert pseudonym(back.image, b"key") == pseudonym(case.image, b"key")
    assert header.annotated_slices == int(case.annotated.sum())


def test_pieces_of_any_size_give_the_same_case():
    case = stored_case(scale=0.1, channels=2)
    for size in (1, 7, 1000):
        assert is_same(round_trip(case, size)[1], case)


@pytest.mark.parametrize(("values", "stored_as"), [
    ([0, 255], "<u1"), ([0, 256], "<i2"), ([-1, 3], "<i2"), ([-32768, 32767], "<i2"), ([0, 65535], "<u2"),
    ([-1, 40000], "<f4"), ([0, 65536], "<f4"), ([0, 0.5], "<f4"), ([0.0, -0.0], "<f4"), ([1e-45, 3e38], "<f4"),
])  # fmt: skip
def test_the_smallest_type_that_keeps_every_bit_is_taken(values, stored_as):
    case = with_image(np.array(values, np.float32).reshape(1, 1, 1, 2))
    assert describe(case, saved_ns=0).stored_as == stored_as
    assert is_same(round_trip(case)[1], case)


def test_one_odd_value_in_the_last_block_is_seen():
    image = np.zeros((1, 128, 128, 65), np.float32)
    image[..., -1] = 0.25
    case = with_image(image)
    assert describe(case, saved_ns=0).stored_as == "<f4"
    assert is_same(round_trip(case)[1], case)


def test_an_image_in_another_memory_order_is_stored_in_ours():
    case = stored_case()
    turned = Case(
        case.case_id, np.asfortranarray(case.image), np.asfortranarray(case.segmentation), case.annotated,
        case.affine, case.labels,
    )  # fmt: skip
    header, back = round_trip(turned)
    assert header.digest == describe(case, saved_ns=0).digest
    assert is_same(back, case)


def test_the_digest_sees_every_part():
    case = stored_case()
    seen = {describe(case, saved_ns=1).digest, describe(case, saved_ns=2).digest}
    assert len(seen) == 1
    parts = {name: getattr(case, name) for name in Case.__dataclass_fields__}
    changes = {
        "image": case.image + 1,
        "segmentation": case.segmentation // 2,
        "annotated": np.ones_like(case.annotated),
        "affine": case.affine + np.eye(4) * 1e-12,
        "labels": ("bone", "fat"),
    }
    for name, value in changes.items():
        seen.add(describe(Case(**{**parts, name: value}), saved_ns=1).digest)
    assert len(seen) == 1 + len(changes)


def test_what_is_masks_and_air_is_packed():
    image = np.zeros((1, 64, 64, 64), np.float32)
    image[:, 20:40, 20:40] = 100
    content = b"".join(encode_case(with_image(image), describe(with_image(image), saved_ns=0)))
    assert len(content) < image.nbytes / 100


def good():
    case = stored_case()
    header = describe(case, saved_ns=7)
    head, *packed = encode_case(case, header)
    return head, b"".join(packed)


def with_header(**changes):
    """The content with other facts in its header."""
    head, packed = good()
    text = head[4:]
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return len(text).to_bytes(4, "big") + text + packed


def longer():
    head, packed = good()
    return head + zlib.compress(zlib.decompress(packed) + b"\0")


WRONG = {
    "nothing": lambda: b"",
    "a length alone": lambda: good()[0][:4],
    "a header that is longer than a header": lambda: b"\xff\xff\xff\xff" + good()[0],
    "a header that is no JSON": lambda: b"\0\0\0\2{]" + good()[1],
    "another version": lambda: with_header(a=(b'"version": 1', b'"version": 2')),
    "a fact too many": lambda: with_header(a=(b'"channels"', b'"name": "x", "channels"')),
    "a fact too few": lambda: with_header(a=(b'"channels": 1, ', b"")),
    "another dtype": lambda: with_header(a=(b'"<u1"', b'"|O"')),
    "a shape of two axes": lambda: with_header(a=(b"[6, 5, 8]", b"[6, 40]")),
    "a negative shape": lambda: with_header(a=(b"[6, 5, 8]", b"[6, 5, -8]")),
    "a larger shape": lambda: with_header(a=(b"[6, 5, 8]", b"[6, 5, 9]")),
    "a shape beyond all memory": lambda: with_header(a=(b"[6, 5, 8]", b"[60000000, 500000, 8]")),
    "a smaller shape": lambda: with_header(a=(b"[6, 5, 8]", b"[6, 5, 7]"), b=(b'"10110110"', b'"1011011"')),
    "no voxels": lambda: good()[0],
    "half of the voxels": lambda: good()[0] + good()[1][:30],
    "no zlib": lambda: good()[0] + b"0" * 200,
    "more behind the voxels": lambda: b"".join(good()) + b"\0",
    "more voxels": longer,
    "fewer labels": lambda: with_header(a=(b'["fat", "bone"]', b'["fat"]')),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_content_is_refused_with_the_name_of_its_case(name):
    assert is_same(decode_case(iter([b"".join(good())]), "case 1")[1], stored_case())
    with pytest.raises(StorageError, match="case 1: expected"):
        decode_case(iter([WRONG[name]()]), "case 1")


def test_a_header_goes_there_and_back():
    header = describe(stored_case(), saved_ns=2**62)
    assert decode_header(header.to_bytes(), "case 1") == header
