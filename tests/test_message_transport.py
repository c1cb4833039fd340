"""A model that came in a message: pulled, pinned and judged as one from a server, and one update handed back."""

from dataclasses import replace

import pytest
from merging import untrained_model

from dafne_dante.config import Settings
from dafne_dante.delta.signing import ensure_signing_key, public_key_text
from dafne_dante.errors import DanteError, ServerAnswerError, TrustError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.message_transport import MAX_MESSAGE_FILE_BYTES, MessageTransport
from dafne_dante.federation.model_signature import sign_model
from dafne_dante.federation.pulling import pull_newest
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import digest_weights

SERVER = "https://federation.example/"


class Operator:
    """Signs releases of one type with a key of its own, as the bytes of `.model` files."""

    def __init__(self, folder):
        self.folder, self.key = folder, ensure_signing_key(folder)
        self.public_key = public_key_text(self.key)

    def release(self, number, *, model_type="Leg", scale=1.0, signed=True):
        model = untrained_model()
        weights = {
            name: tensor * scale if tensor.is_floating_point() else tensor for name, tensor in model.weights.items()
        }
        model = replace(model, weights=weights, timestamp=1_700_000_000 + number)
        if signed:
            model = sign_model(
                model, self.key, model_type=model_type, number=number,
                previous_sha256=digest_weights(untrained_model().weights), rollback_to=0,
            )  # fmt: skip
        write_model(model, self.folder / "release.model")
        return (self.folder / "release.model").read_bytes()


@pytest.fixture
def operator(tmp_path):
    return Operator(tmp_path / "operator")


def pull(content, tmp_path, version="1700000001", **settings):
    client = FederationClient(MessageTransport("Leg", version, content), chunk_bytes=MAX_MESSAGE_FILE_BYTES)
    own = Settings(tmp_path / "site", **settings)
    return pull_newest(client, "Leg", tmp_path / "got.model", settings=own, server=SERVER)


def test_a_signed_release_is_taken_and_the_next_one_too(operator, tmp_path):
    for number in (1, 2):
        content = operator.release(number)
        pulled = pull(content, tmp_path, operator_key=operator.public_key)
        assert f"release {number}" in pulled.words
        assert (tmp_path / "got.model").read_bytes() == content
        assert pulled.info.latest_timestamp == "1700000001"


def test_a_key_is_pinned_when_it_is_first_seen(operator, tmp_path):
    assert "pinned from now on" in pull(operator.release(1), tmp_path).words
    with pytest.raises(TrustError, match="found a signature by"):
        pull(Operator(tmp_path / "other").release(2), tmp_path)


def test_a_federation_that_signs_nothing_is_told(operator, tmp_path):
    assert "unsigned" in pull(operator.release(0, signed=False), tmp_path).words


HOSTILE = {
    "another's model": lambda operator, other: other.release(2),
    "an unsigned model": lambda operator, other: operator.release(2, signed=False),
    "an older release": lambda operator, other: operator.release(1),
    "another release of the same number": lambda operator, other: operator.release(2, scale=1.5),
    "another type's model": lambda operator, other: operator.release(3, model_type="Arm"),
    "no model": lambda operator, other: b"import os",
    "half a model": lambda operator, other: operator.release(3)[:5000],
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_model_that_was_swapped_or_rolled_back_is_refused(operator, tmp_path, hostile):
    pull(operator.release(2), tmp_path, operator_key=operator.public_key)
    content = HOSTILE[hostile](operator, Operator(tmp_path / "other"))
    with pytest.raises(DanteError):
        pull(content, tmp_path, operator_key=operator.public_key)


@pytest.mark.parametrize(("version", "file"), [(None, b""), (1, b""), ("1", None), ("1", "text"), ([], {})])
def test_a_message_of_another_form_is_told(version, file):
    with pytest.raises(ServerAnswerError, match="message"):
        MessageTransport("Leg", version, file)


@pytest.mark.parametrize("version", ["", "../1", "1" * 40, "-1"])
def test_a_version_that_is_no_number_is_told(operator, tmp_path, version):
    with pytest.raises(ServerAnswerError):
        pull(operator.release(1), tmp_path, version)


def test_an_update_goes_back_once_and_whole(tmp_path):
    transport = MessageTransport("Leg", "1", b"model")
    client = FederationClient(transport, chunk_bytes=MAX_MESSAGE_FILE_BYTES)
    (tmp_path / "u.delta").write_bytes(b"an update" * 1000)
    client.upload("Leg", tmp_path / "u.delta", 0.5)
    assert transport.sent == b"an update" * 1000
    assert client.available_models() == ["Leg"]
    with pytest.raises(ServerAnswerError):
        FederationClient(transport, chunk_bytes=10).upload("Leg", tmp_path / "u.delta", 0.5)
    for other in (lambda: client.upload("Arm", tmp_path / "u.delta", 0.5), lambda: client.pending_uploads("Leg")):
        with pytest.raises(ServerAnswerError):
            other()
