"""The audit log: a chain that shows every change, and that a crash does not break."""

import hashlib
import json
import threading

import pytest

from dafne_dante.delta.canonical import canonical_bytes
from dafne_dante.errors import StorageError
from dafne_dante.federation.audit import AUDIT_FILE, AuditLog, Head, utc

FACTS = {"update_id": "u", "to": "https://federation.example/", "bytes": 12}


@pytest.fixture
def log(tmp_path):
    return AuditLog(tmp_path, clock=lambda: 1_800_000_000.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / AUDIT_FILE


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def fill(log, count=5):
    return [log.append("leaving", {**FACTS, "attempt": number}) for number in range(count)][-1]


def test_every_record_seals_the_one_before(log, path):
    head = fill(log, 3)
    records = [json.loads(line) for line in lines(path)]
    assert [record["number"] for record in records] == [1, 2, 3]
    assert {record["at"] for record in records} == {"2027-01-15T08:00:00Z"}
    before = "0" * 64
    for line, record in zip(lines(path), records, strict=True):
        assert record["previous"] == before
        assert canonical_bytes(record) + b"\n" == line
        before = hashlib.sha256(line.rstrip(b"\n")).hexdigest()
    assert head == Head(3, before)
    assert list(log.records()) == records
    assert path.stat().st_mode & 0o777 == 0o600
    assert (log.verify().records, log.verify(head).fault) == (3, "")


def test_an_empty_log_is_sound(log):
    assert (log.verify().records, log.verify().fault, list(log.records())) == (0, "", [])


def rewritten(path, change):
    path.write_bytes(b"".join(change(lines(path))))


def forged(found):
    """The third record changed, and the chain written anew behind it by somebody who knows how."""
    result, before = [], "0" * 64
    for number, line in enumerate(found):
        record = {**json.loads(line), "previous": before}
        if number == 2:
            record["to"] = "https://elsewhere.example/"
        result.append(canonical_bytes(record) + b"\n")
        before = hashlib.sha256(result[-1][:-1]).hexdigest()
    return result


TAMPERED = {
    "a value changed": (lambda found: [found[0], found[1].replace(b"12", b"13"), *found[2:]], 3),
    "a record left out": (lambda found: [found[0], *found[2:]], 2),
    "the first left out": (lambda found: found[1:], 1),
    "two exchanged": (lambda found: [found[1], found[0], *found[2:]], 1),
    "one twice": (lambda found: [*found[:2], found[1], *found[2:]], 3),
    "no JSON": (lambda found: [found[0], b"left: nothing\n", *found[2:]], 2),
    "a list": (lambda found: [found[0], b"[]\n", *found[2:]], 2),
    "other spaces": (lambda found: [found[0], found[1].replace(b'":', b'": '), *found[2:]], 2),
    "an empty line": (lambda found: [*found[:3], b"\n", *found[3:]], 4),
    "a long line": (lambda found: [found[0], b"x" * 10**6 + b"\n", *found[2:]], 2),
    "a number that is none": (lambda found: [found[0].replace(b'"number":1,', b'"number":true,'), *found[1:]], 1),
    "the last changed": (lambda found: [*found[:-1], found[-1].replace(b"12", b"13")], 5),
    "the last cut off": (lambda found: found[:-1], 5),
    "all cut off": (lambda found: [], 1),
    "written anew": (forged, 5),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_every_change_is_found_and_the_first_wrong_line_named(log, path, name):
    change, line = TAMPERED[name]
    head = fill(log)
    rewritten(path, change)
    found = log.verify(head)
    assert (found.line, bool(found.fault)) == (line, True)
    assert found.records == line - 1


@pytest.mark.parametrize("torn", [b"{", b"\0" * 4096, b'{"at":"2026', b"x" * 16_000])
def test_what_a_crash_tore_is_replaced_by_a_record_that_says_so(log, path, torn):
    head = fill(log, 2)
    before = path.read_bytes()
    path.write_bytes(before + torn)
    found = log.verify(head)
    assert (found.records, found.fault, found.torn_bytes) == (2, "", len(torn))
    assert len(list(log.records())) == 2
    log.append("outcome", FACTS)
    assert path.read_bytes().startswith(before)
    repaired, record = list(log.records())[2:]
    assert (repaired["event"], repaired["torn_bytes"], record["event"]) == ("repaired", len(torn), "outcome")
    found = log.verify(head)
    assert (found.records, found.fault, found.torn_bytes) == (4, "", 0)


def test_a_first_line_that_was_torn_is_replaced_as_well(log, path):
    path.write_bytes(b'{"at":"20')
    log.append("leaving", FACTS)
    assert [record["event"] for record in log.records()] == ["repaired", "leaving"]
    assert log.verify().fault == ""


@pytest.mark.parametrize("end", [b"no record\n", b"[]\n", b'{"number":"3"}\n', b"x" * 20_000, b"x" * 60_000])
def test_behind_what_is_no_record_nothing_is_written(log, path, end):
    fill(log, 2)
    before = path.read_bytes() + end
    path.write_bytes(before)
    with pytest.raises(StorageError, match="audit verify"):
        log.append("leaving", FACTS)
    assert path.read_bytes() == before
    assert log.verify().line == 3


def test_a_long_log_is_appended_to_and_read_a_line_at_a_time(log, path):
    record = {**FACTS, "words": "w" * 10_000}
    for _ in range(12):
        head = log.append("leaving", record)
    assert (head.number, log.verify(head).fault, len(lines(path))) == (12, "", 12)
    with pytest.raises(StorageError, match="at most"):
        log.append("leaving", {"words": "w" * 20_000})


def test_many_at_once_make_one_chain(tmp_path):
    def work():
        fill(AuditLog(tmp_path), 10)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (AuditLog(tmp_path).verify().records, AuditLog(tmp_path).verify().fault) == (40, "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1970-01-01T00:00:00Z"), (-5.0, "1970-01-01T00:00:00Z"), (1e300, "9999-12-31T23:59:59Z")],
)
def test_moments(seconds, text):
    assert utc(seconds) == text


def test_a_disk_that_refuses_is_told(tmp_path):
    (tmp_path / AUDIT_FILE).mkdir()
    log = AuditLog(tmp_path)
    for deed in (lambda: log.append("leaving", FACTS), lambda: list(log.records()), log.verify):
        with pytest.raises(StorageError, match=r"audit\.jsonl"):
            deed()
