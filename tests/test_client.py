"""The client's reading of answers: every field is checked, and files go in chunks under a name of their own."""

import hashlib

import pytest

from dafne_dante.config import Settings
from dafne_dante.errors import ServerAnswerError, SettingsError, StorageError
from dafne_dante.federation.client import Capability, FederationClient, PendingUpload, connect

DIGEST, OTHER = "a" * 64, "b" * 64
INFO = {
    "latest_timestamp": "20",
    "latest_size": 3,
    "hash": OTHER,
    "hashes": {"10": DIGEST, "20": OTHER},
    "timestamps": ["10", "20"],
}


class ScriptedTransport:
    """Answers each call with the next object of its script, and keeps what it was asked."""

    def __init__(self, **script):
        self.script, self.asked, self.sent, self.fetched = script, [], [], []

    def _next(self, call):
        answers = self.script[call]
        found = answers.pop(0) if isinstance(answers, list) else answers
        if isinstance(found, Exception):
            raise found
        return found

    def ask(self, call, body):
        self.asked.append((call, dict(body)))
        return self._next(call)

    def send(self, call, fields, name, content, *, last=True):
        block = content.path.read_bytes()[content.offset :][: content.length]
        assert last == (int(fields["chunk_index"]) == int(fields["total_chunks"]) - 1)
        self.sent.append((call, dict(fields), name, block))
        return self._next(call) if last else {"message": "chunk received"}

    def download(self, call, body, destination, *, sha256, progress=None):
        self.fetched.append((call, dict(body), sha256))
        return destination


def info_of(**changes):
    return FederationClient(ScriptedTransport(info_model={**INFO, **changes})).model_info("Brain")


def test_model_info_reads_versions_digests_and_capability():
    block = {"delta": 1, "operator_key": "k", "seal_key": "s"}
    info = info_of(dafne_dante=block, categories=["a"], timestamps=[20, "10"])
    assert (info.latest_timestamp, info.timestamps) == ("20", ("10", "20"))
    assert info.hashes == {"10": DIGEST, "20": OTHER}
    assert info.capability == Capability(1, "k", "s")


def test_an_older_server_names_only_the_newest_version():
    answer = {"latest_timestamp": 20, "hash": OTHER}
    info = FederationClient(ScriptedTransport(info_model=answer)).model_info("Brain")
    assert (info.timestamps, info.hashes, info.capability) == (("20",), {"20": OTHER}, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"latest_timestamp": None}, {"latest_timestamp": ""}, {"latest_timestamp": "../20"}, {"latest_timestamp": True},
        {"latest_timestamp": -20}, {"latest_timestamp": "2" * 21}, {"latest_timestamp": "٢"}, {"latest_timestamp": 2.5},
        {"hashes": []}, {"hashes": {"20": "short"}}, {"hashes": {"20": DIGEST.upper()}}, {"hashes": {"20": None}},
        {"hashes": {"../x": DIGEST}}, {"hashes": None, "hash": None}, {"timestamps": ["x"]}, {"timestamps": [None]},
        {"timestamps": [{}]},
    ],
)  # fmt: skip
def test_malformed_information_is_refused(changes):
    with pytest.raises(ServerAnswerError):
        info_of(**changes)


@pytest.mark.parametrize(
    ("block", "capability"),
    [
        ({"delta": 1}, Capability(1)),
        ({"delta": 2.0}, Capability(2)),
        ({"delta": 1, "operator_key": 7, "seal_key": "x" * 65}, Capability(1)),
        *[({"delta": value}, None) for value in (0, -1, 1.5, True, "1", None, [], float("inf"), float("nan"), 10**400)],
        ({}, None),
        ("delta", None),
        (None, None),
    ],
)
def test_a_malformed_capability_counts_as_none(block, capability):
    assert info_of(dafne_dante=block).capability == capability


@pytest.mark.parametrize("models", [None, "Brain", [1], ["a\nb"], ["\x1b[2J"], {"Brain": 1}])
def test_a_malformed_list_of_models_is_refused(models):
    with pytest.raises(ServerAnswerError):
        FederationClient(ScriptedTransport(get_available_models={"models": models})).available_models()


def test_a_download_asks_for_the_digest_of_the_list(tmp_path):
    transport = ScriptedTransport(info_model=INFO)
    FederationClient(transport).download_model("Brain", "10", tmp_path / "x")
    assert transport.fetched == [("get_model", {"model_type": "Brain", "timestamp": "10"}, DIGEST)]
    with pytest.raises(ServerAnswerError, match="does not"):
        FederationClient(transport).download_model("Brain", "30", tmp_path / "x")
    assert len(transport.fetched) == 1


@pytest.mark.parametrize(
    ("size", "chunks"), [(0, [0]), (1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (25, [10, 10, 5])]
)
def test_a_file_goes_in_chunks_that_make_it_up(tmp_path, size, chunks):
    content = bytes(range(size))
    (tmp_path / "a.delta").write_bytes(content)
    transport = ScriptedTransport(info_model=INFO, upload_model={"message": "ok"})
    FederationClient(transport, chunk_bytes=10).upload("Brain", tmp_path / "a.delta", 0.5)
    assert [len(chunk) for _, _, _, chunk in transport.sent] == chunks
    assert b"".join(chunk for _, _, _, chunk in transport.sent) == content
    names = {fields["filename"] for _, fields, _, _ in transport.sent} | {name for _, _, name, _ in transport.sent}
    assert len(names) == 1
    for index, (call, fields, _, _) in enumerate(transport.sent):
        assert call == "upload_model"
        assert (fields["chunk_index"], fields["total_chunks"]) == (str(index), str(len(chunks)))
        assert (fields["model_type"], fields["dice"]) == ("Brain", "0.5000")
        assert fields["original_hash"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("size", "told"), [(0, [(0, 0)]), (10, [(10, 10)]), (25, [(10, 25), (20, 25), (25, 25)])])
def test_progress_is_told_after_every_chunk(tmp_path, size, told):
    (tmp_path / "a.delta").write_bytes(b"x" * size)
    seen = []
    client = FederationClient(ScriptedTransport(info_model=INFO, upload_model={"message": "ok"}), chunk_bytes=10)
    client.upload("Brain", tmp_path / "a.delta", 0.5, progress=lambda sent, total: seen.append((sent, total)))
    assert seen == told


def test_two_uploads_never_share_a_name(tmp_path):
    (tmp_path / "a.delta").write_bytes(b"x")
    transport = ScriptedTransport(info_model=INFO, upload_model={"message": "ok"})
    for _ in range(2):
        FederationClient(transport).upload("Brain", tmp_path / "a.delta", 0.5)
    assert len({name for _, _, name, _ in transport.sent}) == 2
    assert all("a.delta" not in name for _, _, name, _ in transport.sent)


def test_a_failed_chunk_ends_the_upload(tmp_path):
    (tmp_path / "a.delta").write_bytes(b"x" * 30)
    transport = ScriptedTransport(info_model=INFO, upload_model=[ServerAnswerError("500"), {"message": "ok"}])
    with pytest.raises(ServerAnswerError):
        FederationClient(transport, chunk_bytes=10).upload("Brain", tmp_path / "a.delta", 0.5)
    assert len(transport.sent) == 3


def test_a_missing_file_is_a_fault_of_the_disk(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read a\.delta"):
        FederationClient(ScriptedTransport()).upload("Brain", tmp_path / "a.delta", 0.5)


@pytest.mark.parametrize(("answered", "version"), [(20, "20"), ("21", "21")])
def test_publishing_returns_the_version(tmp_path, answered, version):
    (tmp_path / "m.model").write_bytes(b"x" * 15)
    transport = ScriptedTransport(upload_merged_model={"timestamp": answered})
    assert FederationClient(transport, chunk_bytes=10).publish_model("Brain", tmp_path / "m.model") == version
    assert {fields["sha256"] for _, fields, _, _ in transport.sent} == {hashlib.sha256(b"x" * 15).hexdigest()}


def test_publishing_needs_a_version_in_the_answer(tmp_path):
    (tmp_path / "m.model").write_bytes(b"x")
    with pytest.raises(ServerAnswerError, match="version"):
        FederationClient(ScriptedTransport(upload_merged_model={})).publish_model("Brain", tmp_path / "m.model")


def pending_of(uploads):
    return FederationClient(ScriptedTransport(get_pending_uploads={"uploads": uploads})).pending_uploads("Brain")


def test_pending_uploads_are_read():
    item = {"filename": "17_a@b.c.model", "timestamp": "17", "username": "a@b.c\x1b[2J", "size": 3}
    assert pending_of([item]) == [PendingUpload("17_a@b.c.model", "a@b.c[2J", 3)]


@pytest.mark.parametrize("uploads", [None, {}])
def test_what_is_no_list_of_uploads_is_refused(uploads):
    with pytest.raises(ServerAnswerError):
        pending_of(uploads)


@pytest.mark.parametrize(
    "row",
    [
        "17_a.model",
        {"filename": "a.model"},
        {"filename": "a.model", "size": "3"},
        {"filename": "a.model", "size": -3},
        {"filename": "a.model", "size": True},
        *[
            {"filename": name, "size": 3}
            for name in ("", "../a", "a/b", "a\\b", ".a", "a\0b", "C:a", "x" * 201, 7, "1_o'neil.model")
        ],
    ],
)
def test_a_malformed_upload_is_told_and_hides_no_other(row):
    bad, good = pending_of([row, {"filename": "2_b.model", "size": 1}])
    assert "expected" in bad.fault
    assert bad.filename.isprintable() and len(bad.filename) <= 200
    assert good == PendingUpload("2_b.model", "", 1)


def test_an_upload_that_is_gone_counts_as_deleted():
    left = {"uploads": [{"filename": "2_b.model", "size": 1}]}
    transport = ScriptedTransport(delete_upload=ServerAnswerError("404"), get_pending_uploads=left)
    FederationClient(transport).delete_upload("Brain", "1_a.model")
    with pytest.raises(ServerAnswerError, match="404"):
        FederationClient(transport).delete_upload("Brain", "2_b.model")


def test_connecting_takes_the_settings_and_needs_a_key(tmp_path):
    settings = Settings(folder=tmp_path, server="https://example.org/", api_key="secret")
    assert isinstance(connect(settings), FederationClient)
    with pytest.raises(SettingsError, match="API key"):
        connect(Settings(folder=tmp_path, server="https://example.org/"))
    with pytest.raises(SettingsError, match="address"):
        connect(Settings(folder=tmp_path, api_key="secret"))
    with pytest.raises(SettingsError, match="https"):
        connect(settings, "http://example.org/")
