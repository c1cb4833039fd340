"""Nothing that a DICOM file says of a person leaves the file: not to the results, the store, the delta or the log."""

import gzip
import json
import re
import sqlite3
import zlib

import pytest
from dicom_sites import poison, write_segmentation, write_series, write_structure_set
from phantoms import make_case
from sites import NEW_SCANNER

from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf

CANARY = "CANARYxKRAUSE"
DATE = "19370417"
UID = "1.2.826.0.1.3680043.8.498.7777777"
WORDS = (CANARY, DATE, UID, "1937-04-17", "17.04.1937")


@pytest.fixture
def archive(tmp_path):
    """Two segmentations and two structure sets with canaries in every text, in folders that are called after them."""
    folder = tmp_path / f"PACS-{CANARY}"
    for number in range(4):
        case = make_case(60 + number, **NEW_SCANNER)
        own = folder / f"{CANARY}-{number}"
        uid = f"{UID}.{number}"
        identity = {"SeriesInstanceUID": f"{uid}.1", "StudyInstanceUID": f"{uid}.2", "FrameOfReferenceUID": f"{uid}.3"}
        slices = write_series(own / "image", case, prepare=lambda one: poison(one, CANARY, DATE), **identity)
        write_labels = write_segmentation if number % 2 else write_structure_set
        write_labels(own / "seg.dcm", slices, case, prepare=lambda one: poison(one, CANARY, DATE))
    return folder


def leaks(folder):
    """The files under a folder in whose bytes, or name, a canary is found; compressed ones are looked into."""
    found = {}
    for path in folder.rglob("*"):
        content = str(path.relative_to(folder)).encode()
        if path.is_file():
            content += b"\0" + unpacked(path.read_bytes())
        words = [word for word in WORDS if re.search(re.escape(word.encode()), content, re.IGNORECASE)]
        words += [word for word in WORDS if word.encode("utf-16-le") in content]
        if words:
            found[path.relative_to(folder).as_posix()] = words
    return found


def unpacked(content):
    if content[:2] == b"\x1f\x8b":
        return content + gzip.decompress(content)
    if content[:4] == b"PK\x03\x04":
        # Members of a zip are raw deflate streams behind their headers; try every one.
        for start in [match.end() for match in re.finditer(b"PK\x03\x04", content)]:
            size = int.from_bytes(content[start + 22 : start + 24], "little")
            extra = int.from_bytes(content[start + 24 : start + 26], "little")
            stream = zlib.decompressobj(-15)
            try:
                content += stream.decompress(content[start + 26 + size + extra :])
            except zlib.error:
                continue
    return content


def test_the_canaries_sing_where_they_were_put(archive):
    """Else the tests below could not fail."""
    found = leaks(archive)
    assert len(found) > 60
    assert {word for words in found.values() for word in words} == {CANARY, DATE, UID}


def test_no_canary_is_in_results_delta_log_or_server(command, trained, archive, tmp_path, caplog):
    caplog.set_level("DEBUG")
    shelf = Shelf(tmp_path / "server")
    shelf.add_type("Brain", {"dafne_dante": {"delta": 1}})
    shelf.publish_copy("Brain", trained / "base.model")
    key = Accounts(tmp_path / "server").add_user("site", access=["Brain"])
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    with RunningServer(tmp_path / "server") as server:
        text = f'[federation]\nserver = "{server.url}"\napi_key = "{key}"\n'
        (configuration / "settings.toml").write_text(text)
        options = ("--type", "Brain", "--server", server.url, "--upload", "--epochs", 8, "--json")
        code, out, err = command("improve", "--data", archive, "--out", tmp_path / "out", *options)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["uploaded"]
    assert len(summary["taken"]) == 4
    for folder in ("out", "configuration", "server"):
        assert len(list((tmp_path / folder).rglob("*"))) > 2
        assert leaks(tmp_path / folder) == {}, folder
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert not [word for word in WORDS if word in logged]


def test_no_canary_is_in_the_store(command, archive, tmp_path):
    code, out, err = command("cases", "add", archive, "--json")
    assert code == 0, err
    store = tmp_path / "configuration"
    stored = [path for path in store.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) > 4 * 1000
    assert leaks(store) == {}
    code, out, err = command("cases", "list", "--json")
    assert (code, err) == (0, "")
    assert not [word for word in WORDS if word in out]
    assert len(json.loads(out)["cases"]) == 4
    for path in stored:
        if path.suffix in {".sqlite", ".db"}:
            with sqlite3.connect(path) as connection:
                assert not [word for word in WORDS if word in "\n".join(connection.iterdump())]


def test_what_is_refused_says_nothing_of_the_person(command, trained, archive, tmp_path):
    """Faults in every place where a message might quote an element."""
    victims = sorted(archive.rglob("IM0003")) + sorted(archive.rglob("seg.dcm"))
    for number, path in enumerate(victims):
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = b"" if number % 2 else b"\xff" * 50
        path.write_bytes(content)
    code, out, err = command(
        "improve", "--data", archive, "--base", trained / "base.model", "--out", tmp_path / "out", "--json"
    )
    assert (code, out) == (1, "")
    told = re.sub(rf"{CANARY}-\d", "", err)  # the folder's own name may be told to its owner
    assert not [word for word in WORDS if word in told], err
