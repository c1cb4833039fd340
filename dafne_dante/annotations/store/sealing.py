"""Sealed files and blobs: nobody reads, changes, cuts, reorders or swaps them without the key.

Terms
- A *sealed file* is MAGIC, 32 random bytes of salt, then chunks. Each chunk is 1 MiB of content and a tag of 16
  bytes, the last one may be shorter, and may be empty.
- Its own key is HKDF-SHA256(key, salt), so that a nonce can be the number of the chunk and a flag for the last one
  (the STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015).
- The *context* is what the content belongs to (its case, its file name); it is authenticated with every chunk.

Invariants: AES-256-GCM; what `unseal` yields was written by the owner of the key, in this order, for this context;
that it is complete is known when the iterator ends; memory holds two chunks, whatever the size.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dafne_dante.errors import StorageError

__all__ = ["CHUNK_BYTES", "MAGIC", "seal", "seal_blob", "sealed_bytes", "unseal", "unseal_blob"]

MAGIC = b"dd-case1"
CHUNK_BYTES = 1 << 20
_SALT_BYTES, _TAG_BYTES, _NONCE_BYTES = 32, 16, 12


def seal(key: bytes, context: bytes, content: Iterable[bytes], write: Callable[[bytes], object]) -> None:
    """Write the content, in pieces of any size, as a sealed file."""
    salt = secrets.token_bytes(_SALT_BYTES)
    cipher = _cipher(key, salt)
    write(MAGIC + salt)
    number, waiting = 0, b""
    for chunk in _chunks(content):
        if number:
            write(cipher.encrypt(_nonce(number, last=False), waiting, MAGIC + context))
        number, waiting = number + 1, chunk
    write(cipher.encrypt(_nonce(max(number, 1), last=True), waiting, MAGIC + context))


def sealed_bytes(length: int) -> int:
    """How long the sealed file of a content of `length` bytes is."""
    return len(MAGIC) + _SALT_BYTES + length + _TAG_BYTES * max(1, -(-length // CHUNK_BYTES))


def unseal(key: bytes, context: bytes, stream: IO[bytes], name: str) -> Iterator[bytes]:
    """The content of a sealed file, a chunk at a time; `name` is what messages call it.

    Raises:
        StorageError: damaged, cut short, made with another key or for another context; or it cannot be read.
    """
    head = _read(stream, len(MAGIC) + _SALT_BYTES, name)
    if len(head) != len(MAGIC) + _SALT_BYTES or not head.startswith(MAGIC):
        raise _damaged(name)
    cipher = _cipher(key, head[len(MAGIC) :])
    number, sealed = 1, _read(stream, CHUNK_BYTES + _TAG_BYTES, name)
    while True:
        following = _read(stream, CHUNK_BYTES + _TAG_BYTES, name)
        yield _opened(cipher, _nonce(number, last=not following), sealed, MAGIC + context, name)
        if not following:
            return
        number, sealed = number + 1, following


def seal_blob(key: bytes, context: bytes, content: bytes) -> bytes:
    """A small content, sealed: a random nonce of 96 bits, then the content and its tag."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, context)


def unseal_blob(key: bytes, context: bytes, blob: bytes, name: str) -> bytes:
    """The content of a sealed blob; StorageError as for `unseal`."""
    return _opened(AESGCM(key), blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], context, name)


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=salt, info=b"dafne-dante sealed file 1").derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE_BYTES - 1, "big") + (b"\x01" if last else b"\x00")


def _chunks(content: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of exactly CHUNK_BYTES; only the last one is shorter, and never empty."""
    waiting = bytearray()
    for piece in content:
        waiting += piece
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)


def _opened(cipher: AESGCM, nonce: bytes, sealed: bytes, context: bytes, name: str) -> bytes:
    if len(nonce) != _NONCE_BYTES or len(sealed) < _TAG_BYTES:
        raise _damaged(name)
    try:
        return cipher.decrypt(nonce, sealed, context)
    except InvalidTag:
        raise _damaged(name) from None


def _read(stream: IO[bytes], length: int, name: str) -> bytes:
    try:
        return stream.read(length)
    except OSError as error:
        raise StorageError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error


def _damaged(name: str) -> StorageError:
    return StorageError(
        f"{name}: expected it as it was sealed, found it damaged, cut short or exchanged; restore it from a copy, or "
        "remove it and add the study again"
    )
