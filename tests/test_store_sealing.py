"""Sealed files: no change of any bit, length, order or owner goes unseen."""

import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dafne_dante.annotations.store import sealing
from dafne_dante.annotations.store.sealing import CHUNK_BYTES, MAGIC, seal, seal_blob, unseal, unseal_blob
from dafne_dante.errors import StorageError

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
HEAD = len(MAGIC) + 32
SEALED_CHUNK = CHUNK_BYTES + 16


def sealed(content, key=KEY, context=b"here"):
    out = io.BytesIO()
    seal(key, context, content, out.write)
    return out.getvalue()


def opened(stored, key=KEY, context=b"here"):
    return b"".join(unseal(key, context, io.BytesIO(stored), "case 1"))


def content_of(length):
    return bytes(range(251)) * (length // 251) + bytes(length % 251)


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_what_goes_in_comes_out(length):
    content = content_of(length)
    stored = sealed([content])
    assert opened(stored) == content
    assert len(stored) == HEAD + length + 16 * max(1, -(-length // CHUNK_BYTES))
    # One byte is found by chance in one ciphertext of five.
    assert length < 64 or content[:64] not in stored


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=400_000), max_size=6))
def test_pieces_of_any_size_give_the_same_content(pieces):
    assert opened(sealed(pieces)) == b"".join(pieces)


def test_two_files_of_one_content_have_nothing_in_common():
    one, other = sealed([bytes(64)]), sealed([bytes(64)])
    assert one[len(MAGIC) : HEAD] != other[len(MAGIC) : HEAD]
    assert one[HEAD:] != other[HEAD:]


def test_every_bit_counts():
    stored = sealed([b"liver"])
    for position in range(8 * len(stored)):
        changed = bytearray(stored)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(StorageError, match="case 1: expected it as it was sealed"):
            opened(bytes(changed))


def chunks(stored):
    body = stored[HEAD:]
    return stored[:HEAD], [body[start : start + SEALED_CHUNK] for start in range(0, len(body), SEALED_CHUNK)]


WRONG = {
    "empty": lambda head, parts: b"",
    "the head alone": lambda head, parts: head,
    "half a head": lambda head, parts: head[:-1],
    "without its last chunk": lambda head, parts: head + parts[0] + parts[1],
    "without its first chunk": lambda head, parts: head + parts[1] + parts[2],
    "cut within a chunk": lambda head, parts: head + parts[0] + parts[1] + parts[2][:-1],
    "cut to a tag's remains": lambda head, parts: head + parts[0] + parts[1] + parts[2][:3],
    "reordered": lambda head, parts: head + parts[1] + parts[0] + parts[2],
    "with a chunk twice": lambda head, parts: head + parts[0] + parts[0] + parts[2],
    "with its last chunk twice": lambda head, parts: head + parts[0] + parts[1] + parts[2] + parts[2],
    "with more behind it": lambda head, parts: head + b"".join(parts) + b"\0",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_whole_is_refused(name):
    head, parts = chunks(sealed([content_of(2 * CHUNK_BYTES + 5)]))
    assert len(parts) == 3
    with pytest.raises(StorageError):
        opened(WRONG[name](head, parts))


def test_chunks_of_another_file_do_not_fit():
    content = content_of(CHUNK_BYTES + 5)
    (head, mine), (_, theirs) = chunks(sealed([content])), chunks(sealed([content]))
    with pytest.raises(StorageError):
        opened(head + mine[0] + theirs[1])


def test_key_and_context_must_be_the_same():
    stored = sealed([b"liver"])
    assert opened(stored) == b"liver"
    for wrong in ({"key": OTHER}, {"context": b"elsewhere"}, {"context": b""}):
        with pytest.raises(StorageError):
            opened(stored, **wrong)


def test_memory_holds_a_few_chunks_only():
    """A content of 64 chunks is sealed from a generator and is never there as a whole."""

    tracemalloc.start()
    total = []
    seal(KEY, b"", (bytes(CHUNK_BYTES // 4) for _ in range(256)), lambda piece: total.append(len(piece)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(total) > 64 * CHUNK_BYTES
    assert peak < 6 * CHUNK_BYTES


def test_blobs_hold_and_refuse_the_same_way():
    blob = seal_blob(KEY, b"row 1", b"header")
    assert unseal_blob(KEY, b"row 1", blob, "case 1") == b"header"
    assert blob != seal_blob(KEY, b"row 1", b"header")
    changed = [bytes([*blob[:i], blob[i] ^ 1, *blob[i + 1 :]]) for i in range(len(blob))]
    for wrong in (*changed, b"", blob[:5], blob[:12], blob[:20], blob + b"\0"):
        with pytest.raises(StorageError, match="case 1"):
            unseal_blob(KEY, b"row 1", wrong, "case 1")
    with pytest.raises(StorageError):
        unseal_blob(KEY, b"row 2", blob, "case 1")


def test_a_disk_that_cannot_be_read_is_told():
    class Broken(io.BytesIO):
        def read(self, length=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="cannot read case 1: Input/output error"):
        list(sealing.unseal(KEY, b"", Broken(), "case 1"))
