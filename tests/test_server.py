"""The embedded server on this machine, with the real client and with callers that mean harm."""

import hashlib

import pytest
import requests
from federations import Federation

from dafne_dante.errors import AccessDeniedError
from dafne_dante.federation.client import Capability
from dafne_dante.federation.depot import HttpDepot


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    made = Federation(tmp_path_factory.mktemp("server"))
    with made.server:
        yield made


@pytest.fixture(autouse=True)
def no_uploads(federation):
    federation.empty()


def test_the_whole_round_trip(federation, tmp_path):
    site, operator = federation.client(chunk_bytes=1000), federation.client("operator", chunk_bytes=1000)
    model, update = bytes(range(256)) * 20, b"update" * 500
    (tmp_path / "m.model").write_bytes(model)
    (tmp_path / "u.delta").write_bytes(update)
    version = operator.publish_model(federation.model_type, tmp_path / "m.model")
    later = operator.publish_model(federation.model_type, tmp_path / "u.delta")
    assert int(later) > int(version)
    assert site.available_models() == [federation.model_type]
    info = site.model_info(federation.model_type)
    assert (info.latest_timestamp, info.timestamps[-2:]) == (later, (version, later))
    assert info.hashes[version] == hashlib.sha256(model).hexdigest()
    assert info.capability == Capability(1, "k")
    got = site.download_model(federation.model_type, version, tmp_path / "got.model")
    assert got.read_bytes() == model
    site.upload(federation.model_type, tmp_path / "u.delta", 0.5)
    depot = HttpDepot(operator, federation.model_type)
    assert depot.versions()[-2:] == (version, later)
    (upload,) = depot.pending()
    assert (upload.username, upload.size) == ("site", len(update))
    assert depot.fetch_upload(upload.filename, tmp_path / "fetched").read_bytes() == update
    depot.remove_upload(upload.filename)
    depot.remove_upload(upload.filename)
    assert depot.pending() == []
    assert list((federation.root / "models" / federation.model_type / "chunks").iterdir()) == []


def test_model_json_is_passed_through_but_names_no_version(federation, tmp_path):
    (tmp_path / "m.model").write_bytes(b"model")
    version = federation.shelf.publish_copy(federation.model_type, tmp_path / "m.model")
    answer = federation.post("info_model", model_type=federation.model_type).json()
    assert answer["categories"] == ["a"]
    assert (answer["latest_timestamp"], answer["latest_size"]) == (version, 5)
    assert answer["hash"] == answer["hashes"][version] == hashlib.sha256(b"model").hexdigest()


def test_a_model_comes_with_its_digest(federation, tmp_path):
    (tmp_path / "m.model").write_bytes(b"model")
    version = federation.shelf.publish_copy(federation.model_type, tmp_path / "m.model")
    answer = federation.post("get_model", model_type=federation.model_type, timestamp=version)
    assert answer.content == b"model"
    assert answer.headers["X-SHA256-Checksum"] == hashlib.sha256(b"model").hexdigest()
    assert answer.headers["Content-Type"] == "application/octet-stream"


JSON_CALLS = ["get_available_models", "info_model", "get_model", "log"]
MERGE_CALLS = ["get_pending_uploads", "download_upload", "delete_upload"]


@pytest.mark.parametrize("call", [*JSON_CALLS, *MERGE_CALLS])
@pytest.mark.parametrize("key", ["", "wrong", "00000000." + "A" * 32, None, 7, [], "\ud800"])
def test_a_wrong_key_is_401(federation, call, key):
    answer = requests.post(
        federation.url + call, json={"api_key": key, "model_type": federation.model_type, "timestamp": "1"}, timeout=20
    )
    assert (answer.status_code, answer.json()) == (401, {"message": "invalid access code"})


@pytest.mark.parametrize("call", ["upload_model", "upload_merged_model", "upload_data"])
def test_a_wrong_key_on_an_upload_is_401(federation, call):
    answer = federation.form(call, user="wrong", field="data_binary" if call == "upload_data" else "model_binary")
    assert answer.status_code == 401
    assert federation.uploads() == []


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"[" * 100_000, b'"x"', b"\xff"])
def test_a_body_that_is_no_object_is_401(federation, content):
    assert requests.post(federation.url + "info_model", data=content, timeout=60).status_code == 401


def test_a_key_in_the_address_is_not_taken(federation):
    for call, status in (("get_available_models", 401), ("info_model", 405)):
        query = {"api_key": federation.keys["site"], "model_type": federation.model_type}
        assert requests.get(federation.url + call, params=query, timeout=60).status_code == status


def test_the_client_tells_a_wrong_key(federation, tmp_path):
    (tmp_path / "u.delta").write_bytes(b"x")
    for call in (
        lambda client: client.available_models(),
        lambda client: client.model_info(federation.model_type),
        lambda client: client.upload(federation.model_type, tmp_path / "u.delta", 0.5),
        lambda client: client.publish_model(federation.model_type, tmp_path / "u.delta"),
    ):
        with pytest.raises(AccessDeniedError, match="401"):
            call(federation.client("wrong"))


@pytest.mark.parametrize("call", ["info_model", "get_model"])
def test_no_permission_is_403(federation, call):
    answer = federation.post(call, user="stranger", model_type=federation.model_type, timestamp="1")
    assert answer.status_code == 403
    assert federation.post(call, model_type="Leg", timestamp="1").status_code == 403


def test_a_stranger_sees_nothing_and_uploads_nothing(federation):
    assert federation.client("stranger").available_models() == []
    assert federation.form("upload_model", user="stranger").status_code == 403
    assert federation.uploads() == []


@pytest.mark.parametrize("user", ["site", "stranger"])
@pytest.mark.parametrize("call", MERGE_CALLS)
def test_merging_without_the_right_is_401(federation, call, user):
    assert federation.post(call, user=user, model_type=federation.model_type, filename="1_a.model").status_code == 401
    sent = federation.form("upload_merged_model", user=user, sha256=hashlib.sha256(b"x").hexdigest())
    assert sent.status_code == 401


BAD_TYPES = ["", "a_b", "../Brain", "..", "a/b", "a.b", "x" * 101, "a\0b", "\ud800", None, 7, ["Brain"], {"a": 1}]


@pytest.mark.parametrize("model_type", BAD_TYPES)
@pytest.mark.parametrize("call", ["info_model", "get_model", *MERGE_CALLS])
def test_a_malformed_type_is_400(federation, call, model_type):
    assert federation.post(call, "operator", model_type=model_type, timestamp="1").status_code == 400


@pytest.mark.parametrize("model_type", ["", "a_b", "../Brain", "a/b"])
@pytest.mark.parametrize("call", ["upload_model", "upload_merged_model"])
def test_a_malformed_type_on_an_upload_is_400(federation, call, model_type):
    assert federation.form(call, "operator", model_type=model_type).status_code == 400


def test_an_unknown_type_is_404_and_500_on_upload(federation):
    key = federation.accounts.add_user("ghost", merge=["Ghost"])
    assert federation.post("info_model", key, model_type="Ghost").status_code == 404
    assert federation.post("get_model", key, model_type="Ghost", timestamp="1").status_code == 404
    assert federation.post("get_pending_uploads", key, model_type="Ghost").status_code == 404
    assert federation.form("upload_model", key, model_type="Ghost").status_code == 500
    assert federation.client(key).available_models() == []


@pytest.mark.parametrize("timestamp", ["1", 1, "0", "9" * 20])
def test_an_unknown_timestamp_is_500(federation, timestamp):
    assert federation.post("get_model", model_type=federation.model_type, timestamp=timestamp).status_code == 500


@pytest.mark.parametrize(
    "timestamp", ["", "../model", "../../../accounts", "1/../1", "x", "-1", "1\0", "9" * 21, None, True, [1], "٣"]
)
def test_a_malformed_timestamp_is_400(federation, timestamp):
    assert federation.post("get_model", model_type=federation.model_type, timestamp=timestamp).status_code == 400


@pytest.mark.parametrize(
    ("filename", "status"),
    [
        ("1_a.model", 404),
        *[(name, 400) for name in ("", "../model.json", "../../../accounts.sqlite", "/etc/passwd", ["x"], None)],
        *[
            (name, 400)
            for name in ("1_a.model/../x", "1_a/../../model.json", "1_a\\b.model", "1_a\0.model", "1_a.json")
        ],
    ],
)
@pytest.mark.parametrize("call", ["download_upload", "delete_upload"])
def test_an_unknown_upload_is_404_a_malformed_name_400_and_neither_touches_anything(federation, call, filename, status):
    answer = federation.post(call, "operator", model_type=federation.model_type, filename=filename)
    assert answer.status_code == status
    assert (federation.root / "accounts.sqlite").is_file()
    assert (federation.root / "models" / federation.model_type / "model.json").is_file()


@pytest.mark.parametrize("field", ["original_hash", "hash"])
def test_other_bytes_than_announced_are_500_and_gone(federation, field):
    assert federation.form("upload_model", **{field: "a" * 64}).status_code == 500
    assert federation.uploads() == []
    assert federation.form("upload_model", **{field: hashlib.sha256(b"x").hexdigest()}).status_code == 200
    assert len(federation.uploads()) == 1


@pytest.mark.parametrize(("digest", "status"), [("", 400), ("a" * 63, 400), ("g" * 64, 400), ("a" * 64, 422)])
def test_a_merged_model_needs_its_digest(federation, digest, status):
    before = federation.shelf.versions(federation.model_type)
    assert federation.form("upload_merged_model", "operator", sha256=digest).status_code == status
    assert federation.shelf.versions(federation.model_type) == before


def test_any_bytes_are_kept_unchanged(federation):
    content = bytes(range(256)) * 3 + b"\r\n--boundary\r\n"
    assert federation.form("upload_model", content=content).json() == {"message": "upload successful"}
    (upload,) = federation.uploads()
    assert federation.shelf.upload_path(federation.model_type, upload.filename).read_bytes() == content


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "Brain (3D)_17.model", "x" * 300, "\0"])
def test_a_files_name_leads_nowhere(federation, name):
    for index, content in enumerate((b"ab", b"cd")):
        fields = {"chunk_index": str(index), "total_chunks": "2", "filename": name}
        assert federation.form("upload_model", content=content, **fields).status_code == 200
    (upload,) = federation.uploads()
    assert federation.shelf.upload_path(federation.model_type, upload.filename).read_bytes() == b"abcd"
    assert sorted(path.name for path in federation.root.iterdir()) == ["accounts.sqlite", "log", "models"]


@pytest.mark.parametrize(
    ("index", "total"),
    [("-1", "2"), ("2", "2"), ("0", "-1"), ("x", "2"), ("0", "x"), ("1000", "1001"), ("0.5", "2"), ("1" * 5000, "2")],
)
def test_malformed_chunk_numbers_are_400(federation, index, total):
    assert federation.form("upload_model", chunk_index=index, total_chunks=total, filename="a").status_code == 400
    assert federation.uploads() == []


def test_a_missing_chunk_is_500_and_the_upload_can_be_finished(federation):
    numbers = {"total_chunks": "2", "filename": "late"}
    assert federation.form("upload_model", content=b"b", chunk_index="1", **numbers).status_code == 500
    assert federation.form("upload_model", content=b"a", chunk_index="0", **numbers).json() == {
        "message": "chunk received"
    }
    assert federation.form("upload_model", content=b"b", chunk_index="1", **numbers).status_code == 200
    assert [one.size for one in federation.uploads()] == [2]


def test_images_are_not_taken(federation):
    answer = federation.form("upload_data", field="data_binary")
    assert (answer.status_code, answer.json()) == (403, {"message": "this server takes no data, only models"})


def test_a_clients_line_is_logged_without_its_key(federation):
    key = federation.keys["site"]
    assert federation.post("log", message=f"hello from {key}").json() == {"message": "ok"}
    assert federation.accounts.logged()[-1][1:] == ("site", "log", "hello from (key)")
