"""Versions rise, uploads are never lost or mixed, and no name leads out of the root or shows half a file."""

import hashlib
import io
import os
import threading
import time

import pytest

from dafne_dante.errors import ServerAnswerError, SettingsError, StorageError
from dafne_dante.federation import shelf as module
from dafne_dante.federation.depot import FolderDepot
from dafne_dante.federation.shelf import Shelf

BAD_TYPES = [
    "",
    "..",
    ".",
    "a/b",
    "../Brain",
    "a\\b",
    "a_b",
    "Brain ",
    " Brain",
    "Bräin",
    "a\0",
    "a\n",
    "x" * 101,
    "a.b",
]
BAD_NAMES = [
    "",
    "..",
    "../model.json",
    "../../accounts.sqlite",
    "/etc/passwd",
    "1_a.model/..",
    "1_a.model\0",
    ".",
    "\ud800",
]


@pytest.fixture
def shelf(tmp_path):
    made = Shelf(tmp_path)
    made.add_type("Brain", {"categories": ["x"]})
    return made


def write(path, content):
    path.write_bytes(content)
    return path


def publish(shelf, tmp_path, content=b"model"):
    return shelf.publish("Brain", write(tmp_path / "incoming", content))


def test_versions_rise_strictly_within_a_second(shelf, tmp_path):
    begin = int(time.time())
    versions = [publish(shelf, tmp_path, bytes([number])) for number in range(20)]
    assert [int(one) for one in versions] == sorted({int(one) for one in versions})
    assert begin <= int(versions[0]) and int(versions[-1]) < begin + 25
    assert shelf.versions("Brain") == versions
    assert [shelf.model_path("Brain", one).read_bytes() for one in versions] == [bytes([n]) for n in range(20)]


def test_a_version_of_the_future_is_still_followed_by_a_later_one(shelf, tmp_path):
    write(tmp_path / "models" / "Brain" / "99999999999.model", b"from a clock that was wrong")
    assert publish(shelf, tmp_path) == "100000000000"


def test_processes_that_publish_at_once_never_overwrite_each_other(shelf, tmp_path):
    shelves, versions = [Shelf(tmp_path) for _ in range(4)], []

    def work(number):
        for turn in range(5):
            source = write(tmp_path / f"incoming-{number}", b"%d-%d" % (number, turn))
            versions.append(shelves[number].publish("Brain", source))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(versions)) == 20
    contents = {shelf.model_path("Brain", one).read_bytes() for one in shelf.versions("Brain")}
    assert len(contents) == 20
    for one in versions:
        assert shelf.digest("Brain", one) == hashlib.sha256(shelf.model_path("Brain", one).read_bytes()).hexdigest()


def test_a_copy_leaves_its_source(shelf, tmp_path):
    source = write(tmp_path / "mine.model", b"model")
    version = shelf.publish_copy("Brain", source)
    assert source.read_bytes() == shelf.model_path("Brain", version).read_bytes() == b"model"
    with pytest.raises(StorageError, match=r"absent\.model"):
        shelf.publish_copy("Brain", tmp_path / "absent.model")
    assert [path.name for path in (tmp_path / "models" / "Brain").glob("*.part")] == []


@pytest.mark.parametrize("damage", [b"", b"x" * 64, b"A" * 64, b"\xff" * 64, None])
def test_a_damaged_or_missing_digest_is_computed_again(shelf, tmp_path, damage):
    version = publish(shelf, tmp_path)
    sidecar = tmp_path / "models" / "Brain" / f"{version}.model.sha256"
    sidecar.unlink()
    if damage is not None:
        sidecar.write_bytes(damage)
    assert shelf.digest("Brain", version) == hashlib.sha256(b"model").hexdigest()
    assert sidecar.read_text() == hashlib.sha256(b"model").hexdigest()


def test_a_model_that_was_replaced_by_hand_gets_a_new_digest(shelf, tmp_path):
    version = publish(shelf, tmp_path)
    path = write(shelf.model_path("Brain", version), b"another")
    later = time.time() + 5
    os.utime(path, (later, later))
    assert shelf.digest("Brain", version) == hashlib.sha256(b"another").hexdigest()


def test_what_a_crash_leaves_is_never_listed(shelf, tmp_path):
    version = publish(shelf, tmp_path)
    folder = tmp_path / "models" / "Brain"
    for name in (
        ".x.part",
        "abc.part",
        "17.model.part",
        "18.model.sha256",
        "B-1.whole",
        "x.model",
        "-1.model",
        "1 .model",
    ):
        write(folder / name, b"left over")
        write(folder / "uploads" / name, b"left over")
    write(tmp_path / "models" / "file", b"no type")
    (tmp_path / "models" / "bad_name").mkdir()
    shelf.store_chunk("Brain", "B", "a.model", 0, io.BytesIO(b"part"))
    assert shelf.versions("Brain") == [version]
    assert shelf.uploads("Brain") == []
    assert shelf.types() == ["Brain"]


def test_two_uploads_of_one_second_are_both_kept_oldest_first(shelf, tmp_path):
    for content in (b"one", b"three"):
        shelf.receive("Brain", "site-B", write(tmp_path / "incoming", content))
    write(tmp_path / "models" / "Brain" / "uploads" / "17_old user@x.model", b"0123456789")
    uploads = shelf.uploads("Brain")
    assert sorted(one.size for one in uploads) == [3, 5, 10]
    assert [one.username for one in uploads] == ["old user@x", "site-B", "site-B"]
    assert uploads[0].timestamp == "17"
    for one in uploads:
        assert shelf.upload_path("Brain", one.filename).stat().st_size == one.size


@pytest.mark.parametrize("name", BAD_TYPES)
def test_a_bad_type_touches_nothing(shelf, name, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError):
        shelf.add_type(name, {})
    assert not shelf.has_type(name)
    for ask in (shelf.versions, shelf.uploads, shelf.description):
        with pytest.raises(ServerAnswerError):
            ask(name)
    with pytest.raises(ServerAnswerError):
        shelf.store_chunk(name, "B", "a", 0, io.BytesIO(b"x"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_finds_nothing(shelf, name, tmp_path):
    write(tmp_path / "models" / "Brain" / "1.model", b"x")
    assert shelf.model_path("Brain", name) is None
    assert shelf.upload_path("Brain", name) is None


@pytest.mark.parametrize("name", [*BAD_NAMES, "Brain (3D)_17.model", "x" * 1000])
def test_a_chunks_name_may_be_anything_and_stays_inside(shelf, name, tmp_path):
    folder = shelf.store_chunk("Brain", "B", name, 0, io.BytesIO(b"x"))
    assert folder.parent == tmp_path / "models" / "Brain" / "chunks"
    assert shelf.join_chunks(folder, 1).read_bytes() == b"x"


def test_users_never_share_a_folder_of_chunks(shelf):
    pairs = [("a", "b-x"), ("a-b", "x"), ("a", "x"), ("a-b", "b-x")]
    assert len({shelf.store_chunk("Brain", *pair, 0, io.BytesIO(b"x")) for pair in pairs}) == 4


def test_chunks_are_joined_in_order_and_gone(shelf, tmp_path):
    for index in (2, 0, 1, 1):
        folder = shelf.store_chunk("Brain", "B", "a", index, io.BytesIO(bytes([index]) * 3))
    assert shelf.chunk_bytes(folder) == 9
    whole = shelf.join_chunks(folder, 3)
    assert whole.read_bytes() == b"\0\0\0\1\1\1\2\2\2"
    assert sorted(path.name for path in folder.parent.iterdir()) == [whole.name]


def test_a_missing_chunk_leaves_the_others(shelf):
    folder = shelf.store_chunk("Brain", "B", "a", 1, io.BytesIO(b"x"))
    assert shelf.join_chunks(folder, 2) is None
    shelf.store_chunk("Brain", "B", "a", 0, io.BytesIO(b"y"))
    assert shelf.join_chunks(folder, 2).read_bytes() == b"yx"
    assert shelf.join_chunks(folder, 2) is None


@pytest.mark.parametrize("index", [-1, 1000, 10**12])
def test_a_chunks_number_is_bounded(shelf, index):
    with pytest.raises(ServerAnswerError, match="below 1000"):
        shelf.store_chunk("Brain", "B", "a", index, io.BytesIO(b"x"))


def test_chunks_that_nobody_finishes_go_after_a_day(shelf):
    old = shelf.store_chunk("Brain", "B", "old", 0, io.BytesIO(b"x"))
    whole = write(old.with_name("x.whole"), b"x")
    yesterday = time.time() - module._KEEP_CHUNKS_S - 60
    for path in (old, whole):
        os.utime(path, (yesterday, yesterday))
    young = shelf.store_chunk("Brain", "B", "young", 0, io.BytesIO(b"x"))
    assert list(young.parent.iterdir()) == [young]


def test_a_damaged_description_is_told(shelf, tmp_path):
    path = tmp_path / "models" / "Brain" / "model.json"
    assert shelf.description("Brain") == {"categories": ["x"]}
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ServerAnswerError, match=r"model\.json"):
            shelf.description("Brain")
    path.unlink()
    assert shelf.description("Brain") == {}


def test_a_file_where_a_folder_should_be_is_a_fault_of_the_disk(shelf, tmp_path):
    write(tmp_path / "root", b"")
    with pytest.raises(StorageError):
        Shelf(tmp_path / "root")
    write(tmp_path / "models" / "Brain" / "chunks", b"")
    with pytest.raises(StorageError):
        shelf.store_chunk("Brain", "B", "a", 0, io.BytesIO(b"x"))
    (tmp_path / "models" / "Brain" / "uploads").rmdir()
    write(tmp_path / "models" / "Brain" / "uploads", b"")
    with pytest.raises(StorageError):
        shelf.receive("Brain", "B", write(tmp_path / "incoming", b"x"))
    assert (tmp_path / "incoming").read_bytes() == b"x"


def test_a_depot_on_the_folder_sees_what_the_server_sees(shelf, tmp_path):
    upload = shelf.receive("Brain", "B", write(tmp_path / "incoming", b"upload"))
    for folder in (tmp_path, tmp_path / "models"):
        depot = FolderDepot(folder, "Brain")
        version = depot.publish(write(tmp_path / "next.model", b"model"))
        assert depot.versions()[-1] == version
        assert depot.fetch_model(version, tmp_path / "copy").read_bytes() == b"model"
        assert [(one.filename, one.username, one.size) for one in depot.pending()] == [(upload.name, "B", 6)]
        assert depot.fetch_upload(upload.name, tmp_path / "copy").read_bytes() == b"upload"
    depot.remove_upload(upload.name)
    depot.remove_upload(upload.name)
    assert depot.pending() == []
    for fetch in (depot.fetch_upload, depot.fetch_model):
        with pytest.raises(ServerAnswerError, match="none"):
            fetch("../model.json", tmp_path / "copy")


def test_a_file_of_another_name_among_the_uploads_is_told_and_hides_no_other(shelf, tmp_path):
    upload = shelf.receive("Brain", "B", write(tmp_path / "incoming", b"upload"))
    for name in ("1_o'neil.model", "notes.txt", ".half.part"):
        write(upload.parent / name, b"x")
    good, *odd = FolderDepot(tmp_path, "Brain").pending()
    assert (good.filename, good.fault) == (upload.name, "")
    assert len(odd) == 2 and all("by hand" in one.fault for one in odd)
    assert "neil" in odd[0].filename and "notes.txt" in odd[1].filename


@pytest.mark.parametrize(("place", "model_type"), [(".", "Leg"), (".", "../Brain"), ("models/Brain", "Brain")])
def test_a_depot_needs_a_servers_folder_and_a_type(shelf, tmp_path, place, model_type):
    with pytest.raises(SettingsError):
        FolderDepot(tmp_path / place, model_type)
