"""The cache of global models: nothing is downloaded twice, and what is taken out is what was asked for."""

import hashlib
import os
import threading
import time
from dataclasses import replace

import pytest
from fake_servers import FakeServer, answer

from dafne_dante.config import Settings
from dafne_dante.errors import ServerAnswerError, StorageError
from dafne_dante.federation.client import connect
from dafne_dante.federation.downloads import ModelCache


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Source:
    """Writes the content, as a download does, and counts."""

    def __init__(self, content):
        self.content, self.count = content, 0

    def __call__(self, path):
        self.count += 1
        path.write_bytes(self.content)


def take(cache, source, destination):
    return cache.take(digest(source.content), destination, source).read_bytes()


def kept(cache):
    return {path.read_bytes() for path in cache.folder.glob("*.model")}


def age(cache, source, seconds):
    """Say that it was used that long ago."""
    when = time.time() - seconds
    os.utime(cache.folder / f"{digest(source.content)}.model", (when, when))


def test_a_kept_file_is_not_fetched_again(tmp_path):
    cache, source = ModelCache(tmp_path / "cache"), Source(b"one")
    assert take(cache, source, tmp_path / "a") == take(cache, source, tmp_path / "b") == b"one"
    assert source.count == 1
    assert [path.name for path in cache.folder.iterdir()] == [f"{digest(b'one')}.model"]


@pytest.mark.parametrize("damage", [b"", b"onf", b"one more"])
def test_a_kept_file_that_was_changed_is_dropped_and_fetched_again(tmp_path, damage):
    cache, source = ModelCache(tmp_path / "cache"), Source(b"one")
    take(cache, source, tmp_path / "a")
    (cache.folder / f"{digest(b'one')}.model").write_bytes(damage)
    (tmp_path / "b").write_bytes(b"as it was")
    assert take(cache, source, tmp_path / "b") == b"one"
    assert source.count == 2
    assert kept(cache) == {b"one"}


def test_a_changed_copy_does_not_change_what_is_kept(tmp_path):
    cache, source = ModelCache(tmp_path / "cache"), Source(b"one")
    take(cache, source, tmp_path / "a")
    take(cache, source, tmp_path / "b")
    for name in "ab":
        (tmp_path / name).write_bytes(b"edited")
    assert kept(cache) == {b"one"}


@pytest.mark.parametrize("bounds", [{"most_files": 2}, {"most_bytes": 8}])
def test_what_was_used_longest_ago_goes_first(tmp_path, bounds):
    cache = ModelCache(tmp_path / "cache", **bounds)
    one, two, three = Source(b"one."), Source(b"two."), Source(b"tri.")
    for source, seconds in ((one, 300), (two, 200)):
        take(cache, source, tmp_path / "x")
        age(cache, source, seconds)
    take(cache, one, tmp_path / "x")  # used again
    take(cache, three, tmp_path / "x")
    assert kept(cache) == {b"one.", b"tri."}


@pytest.mark.parametrize("bounds", [{"most_files": 0}, {"most_bytes": 3}, {"most_bytes": 0}])
def test_what_does_not_fit_is_handed_over_and_not_kept(tmp_path, bounds):
    cache, source = ModelCache(tmp_path / "cache", **bounds), Source(b"long")
    assert take(cache, source, tmp_path / "a") == b"long"
    assert kept(cache) == set()


def test_tighter_bounds_hold_from_the_next_fetch_on(tmp_path):
    cache = ModelCache(tmp_path / "cache")
    for number in range(4):
        take(cache, Source(b"%d" % number), tmp_path / "x")
    take(replace(cache, most_files=1), Source(b"new"), tmp_path / "x")
    assert kept(cache) == {b"new"}


def test_what_a_killed_process_left_goes_after_a_day_and_other_files_stay(tmp_path):
    cache = ModelCache(tmp_path / "cache")
    take(cache, Source(b"one"), tmp_path / "x")
    for name, days in ((".a.part", 2), (".b.part", 0), ("notes.txt", 2)):
        (cache.folder / name).write_bytes(b"x")
        when = time.time() - days * 86_400
        os.utime(cache.folder / name, (when, when))
    take(cache, Source(b"two"), tmp_path / "x")
    names = {path.name for path in cache.folder.iterdir() if path.suffix != ".model"}
    assert names == {".b.part", "notes.txt"}


def test_a_failed_fetch_leaves_nothing(tmp_path):
    cache = ModelCache(tmp_path / "cache")

    def fail(path):
        raise ServerAnswerError("other bytes")

    with pytest.raises(ServerAnswerError):
        cache.take("a" * 64, tmp_path / "x", fail)
    assert list(cache.folder.iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_a_file_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(StorageError):
        take(ModelCache(tmp_path / "cache"), Source(b"one"), tmp_path / "x")


def test_many_at_once_in_a_folder_too_small_for_them_all_get_what_they_asked_for(tmp_path):
    cache = ModelCache(tmp_path / "cache", most_files=2)
    faults = []

    def work(worker):
        for turn in range(30):
            content = b"content %d" % ((worker + turn) % 4)
            if take(cache, Source(content), tmp_path / f"out-{worker}") != content:
                faults.append((worker, turn))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert not list(cache.folder.glob(".*"))


CONTENT = b"a model" * 50_000
INFO = b'{"latest_timestamp": "7", "latest_size": 1, "hash": "%s", "timestamps": ["7"]}' % digest(CONTENT).encode()


def test_the_client_downloads_a_version_once_and_tells_how_far_it_is(tmp_path):
    told = []
    with FakeServer(answer(INFO), answer(CONTENT), answer(INFO)) as server:
        settings = Settings(folder=tmp_path / "settings", server=server.url, api_key="key")
        for name in ("a", "b"):
            got = connect(settings).download_model("Brain", "7", tmp_path / name, lambda *so_far: told.append(so_far))
            assert got.read_bytes() == CONTENT
    assert server.calls == ["info_model", "get_model", "info_model"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [so_far for so_far, _ in told] == sorted({so_far for so_far, _ in told})
    assert len(told) > 1


def test_no_length_announced_is_told_as_0(tmp_path):
    def in_chunks(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))

    told = []
    with FakeServer(answer(INFO), in_chunks) as server:
        settings = Settings(folder=tmp_path / "settings", server=server.url, api_key="key")
        connect(settings).download_model("Brain", "7", tmp_path / "a", lambda *so_far: told.append(so_far))
    assert told[-1] == (len(CONTENT), 0)
