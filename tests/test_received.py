"""From the queue to an admitted update: the file is written once, and the ledger knows it by the queue's bytes."""

import hashlib

import pytest
from merging import QuickOperator
from test_operator import TYPE

from dafne_dante.delta.sealing import create_seal_key, load_seal_key, seal, seal_key_text
from dafne_dante.errors import DeltaSignatureError
from dafne_dante.federation.client import PendingUpload
from dafne_dante.federation.intake import Intake
from dafne_dante.federation.known_versions import KnownVersions
from dafne_dante.federation.ledger import Ledger
from dafne_dante.federation.received import Received
from dafne_dante.models.file import serialise_model


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


@pytest.fixture
def intake(operator, tmp_path):
    create_seal_key(operator.settings.folder)
    versions = KnownVersions(operator.depot, tmp_path)
    versions.look_up(Ledger())
    (tmp_path / "scratch").mkdir()
    return Intake(versions, operator.settings, tmp_path / "scratch")


def received(tmp_path, content):
    path = tmp_path / "scratch" / "one.upload"
    path.write_bytes(content)
    return Received(PendingUpload("1_a.model", "a", len(content)), path, content)


def files(tmp_path):
    return {path.name for path in (tmp_path / "scratch").iterdir()}


def test_a_delta_stays_the_file_that_was_fetched(operator, intake, tmp_path):
    content = operator.delta(0.002)
    admitted = intake.admit(intake.open(received(tmp_path, content)), ())
    assert admitted.content == tmp_path / "scratch" / "one.upload"
    assert admitted.entry.content_sha256 == hashlib.sha256(content).hexdigest()
    assert files(tmp_path) == {"one.upload"}
    assert list(admitted.contribution.updates), "its numbers are read from there"


def test_a_sealed_delta_is_kept_opened_and_known_by_what_was_sealed(operator, intake, tmp_path):
    content = operator.delta(0.002)
    sealed = seal(content, seal_key_text(load_seal_key(operator.settings.folder)))
    opened = intake.open(received(tmp_path, sealed))
    assert opened.was_sealed
    admitted = intake.admit(opened, ())
    assert admitted.content.read_bytes() == content
    assert admitted.entry.content_sha256 == hashlib.sha256(sealed).hexdigest()
    assert files(tmp_path) == {admitted.content.name}, "the sealed file has gone"


def test_a_full_model_has_no_name_and_stays_where_it_is(operator, intake, tmp_path):
    weights = {name: tensor + 0.001 for name, tensor in operator.model.weights.items()}
    content = serialise_model(type(operator.model)(**{**vars(operator.model), "weights": weights}))
    opened = intake.open(received(tmp_path, content))
    assert (opened.envelope, opened.name) == (None, ("", ""))
    assert intake.admit(opened, ()).content == tmp_path / "scratch" / "one.upload"


def test_what_a_stranger_signed_is_not_opened(operator, intake, tmp_path):
    with pytest.raises(DeltaSignatureError):
        intake.open(received(tmp_path, operator.delta(0.002, site="stranger")))


def test_nothing_but_what_was_admitted_lies_in_the_scratch_when_it_is_merged(operator):
    for number in range(3):
        operator.send(b"garbage %d" % number, user="bad")
    operator.send(operator.delta(0.002))
    seen = []

    class Looking:
        def __init__(self, depot):
            self._depot = depot

        def __getattr__(self, name):
            return getattr(self._depot, name)

        def publish(self, model):
            seen.extend(path.suffix for path in model.parent.iterdir())
            return self._depot.publish(model)

    assert operator.merge(Looking(operator.depot)).merged == 1
    assert seen.count(".upload") == 1
    assert (operator.settings.folder / "operator" / TYPE / "scratch").exists() is False
