"""Files are whole or as they were, whatever happens while they are written."""

import errno
import stat

import pytest

from dafne_dante.durable import digest_file, make_folder, read_bounded, write_atomically, write_stream_atomically
from dafne_dante.errors import StorageError


def test_a_file_is_replaced_whole_with_its_mode(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_what_fails_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fill(stream):
        stream.write(b"half")
        raise kind

    expected = StorageError if isinstance(kind, OSError) else type(kind)
    with pytest.raises(expected) as caught:
        write_stream_atomically(path, fill)
    if isinstance(kind, OSError):
        assert "No space left" in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_missing_or_a_file_is_told_by_name(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write deep"):
        write_atomically(tmp_path / "missing" / "deep", b"")
    with pytest.raises(StorageError, match="cannot create the folder inner"):
        make_folder(tmp_path / "plain" / "inner")
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_reading_is_bounded_and_digests_are_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert read_bounded(path, max_bytes=3) == b"abc"
    assert digest_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(StorageError, match="at most 2 bytes"):
        read_bounded(path, max_bytes=2)
    for read in (lambda: read_bounded(tmp_path / "none", max_bytes=1), lambda: digest_file(tmp_path / "none")):
        with pytest.raises(StorageError, match="cannot read none"):
            read()
