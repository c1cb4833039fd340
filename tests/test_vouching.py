"""Which versions an operator builds on: its own, those that it signed, and those that it took over on purpose."""

import json
from dataclasses import replace

import pytest
from merging import SMALL_CASE, QuickOperator
from test_merge_watch import watch
from test_operator import HEAD, TYPE

from dafne_dante.config import write_settings
from dafne_dante.delta.signing import ensure_signing_key
from dafne_dante.errors import SettingsError, StorageError, UntrustedVersionError
from dafne_dante.federation.adopting import adopt_version
from dafne_dante.federation.ledger import Store
from dafne_dante.federation.model_signature import sign_model
from dafne_dante.federation.published_versions import hand_in, list_versions, roll_back
from dafne_dante.federation.rebuilding import rebuild_without
from dafne_dante.models.file import write_model


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


def with_key(operator):
    return ensure_signing_key(operator.settings.folder)


def shelve(operator, model):
    write_model(model, operator.root / "next.model")
    return operator.shelf.publish_copy(TYPE, operator.root / "next.model")


def moved(model, amount=0.01):
    return replace(model, weights={**model.weights, HEAD: model.weights[HEAD] + amount}, timestamp=model.timestamp + 1)


def ledger_bytes(operator):
    return (operator.settings.folder / "operator" / TYPE / "ledger.json").read_bytes()


def test_with_a_key_a_version_of_others_is_taken_only_when_it_is_adopted(operator):
    with_key(operator)
    waiting = operator.send(operator.delta(0.002))
    with pytest.raises(UntrustedVersionError, match=f"publish adopt {operator.first}"):
        operator.merge()
    assert [one.filename for one in operator.shelf.uploads(TYPE)] == [waiting]
    adopted = adopt_version(operator.depot, TYPE, operator.first, operator.settings)
    assert (adopted.version, adopted.forgotten) == (operator.first, ())
    assert operator.merge().merged == 1


def test_without_a_key_a_version_of_others_is_taken_as_clients_take_it(operator):
    operator.send(operator.delta(0.002))
    operator.merge()
    theirs = shelve(operator, moved(operator.newest()))
    operator.send(operator.delta(0.004, model=operator.newest()))
    assert operator.merge().merged == 1
    assert theirs in Store(operator.settings.folder / "operator" / TYPE).load().versions


def test_what_publish_put_there_needs_no_adopting(operator):
    with_key(operator)
    hand_in(operator.depot, TYPE, operator.model, operator.settings)
    operator.send(operator.delta(0.002))
    assert operator.merge().merged == 1


def test_a_release_by_the_operators_key_is_taken_where_the_ledger_was_lost(operator):
    key = with_key(operator)
    shelve(operator, sign_model(moved(operator.model), key, model_type=TYPE, number=4))
    operator.send(operator.delta(0.002, model=operator.newest()))
    assert operator.merge().merged == 1
    last = list_versions(operator.depot, TYPE, operator.settings)[0].version
    assert Store(operator.settings.folder / "operator" / TYPE).load().publications[last].number == 5


@pytest.mark.parametrize("change", ["type", "key", "code"])
def test_another_signature_says_nothing(operator, change):
    key = operator.keys["stranger"] if change == "key" else with_key(operator)
    with_key(operator)
    signed = sign_model(moved(operator.model), key, model_type="Leg" if change == "type" else TYPE, number=4)
    if change == "code":
        signed = replace(signed, sources={**signed.sources, "apply_model_function": "import os"})
    shelve(operator, signed)
    with pytest.raises(UntrustedVersionError, match="publish adopt"):
        operator.merge()


def test_a_publish_whose_answer_was_lost_is_found_though_others_published_since(operator):
    with_key(operator)
    hand_in(operator.depot, TYPE, operator.model, operator.settings)
    operator.send(operator.delta(0.002))

    class Lossy:
        def __init__(self, depot):
            self._depot = depot

        def __getattr__(self, name):
            return getattr(self._depot, name)

        def publish(self, model):
            self._depot.publish(model)
            raise StorageError("the power went")

    with pytest.raises(StorageError, match="power"):
        operator.merge(Lossy(operator.depot))
    ours = operator.shelf.versions(TYPE)[-1]
    theirs = shelve(operator, moved(operator.newest()))
    with pytest.raises(UntrustedVersionError, match=theirs):
        operator.merge()
    adopt_version(operator.depot, TYPE, theirs, operator.settings)
    assert operator.merge().reason == "no update waits"
    kinds = {one.version: one.kind for one in list_versions(operator.depot, TYPE, operator.settings)}
    assert (kinds[ours], kinds[theirs]) == ("merge", "unknown")
    assert operator.shelf.uploads(TYPE) == []


def test_a_newest_version_taken_away_on_purpose_can_be_adopted(operator):
    content = operator.delta(0.002)
    operator.send(content)
    gone = operator.merge().version
    operator.shelf.model_path(TYPE, gone).unlink()
    with pytest.raises(UntrustedVersionError, match=gone):
        operator.merge()
    adopted = adopt_version(operator.depot, TYPE, operator.first, operator.settings)
    assert adopted.forgotten == (gone,)
    operator.send(content)
    assert operator.merge().merged == 0, "what it held is not taken again"
    operator.send(operator.delta(0.004, site="site2"))
    assert operator.merge().merged == 1
    assert operator.moved() == pytest.approx(0.004, rel=1e-3)


def test_handing_in_a_good_model_is_the_way_out(operator):
    with_key(operator)
    hand_in(operator.depot, TYPE, operator.model, operator.settings)
    bad = operator.shelf.versions(TYPE)[-1]
    write_model(moved(operator.model, 9.0), operator.shelf.model_path(TYPE, bad))
    before = json.loads(ledger_bytes(operator))["versions"][bad]
    hand_in(operator.depot, TYPE, operator.model, operator.settings)
    assert json.loads(ledger_bytes(operator))["versions"][bad] == before
    operator.send(operator.delta(0.002))
    assert operator.merge().merged == 1
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_only_the_newest_version_is_adopted(operator):
    theirs = shelve(operator, moved(operator.model))
    with pytest.raises(SettingsError, match=theirs):
        adopt_version(operator.depot, TYPE, operator.first, operator.settings)


def test_neither_a_rollback_nor_a_rebuild_goes_on_from_a_swapped_version(operator):
    operator.send(operator.delta(0.002))
    operator.send(operator.delta(0.004, site="site2"))
    version = operator.merge().version
    one = next(iter(Store(operator.settings.folder / "operator" / TYPE).load().updates))
    write_model(moved(operator.newest()), operator.shelf.model_path(TYPE, version))
    before = ledger_bytes(operator)
    with pytest.raises(UntrustedVersionError):
        roll_back(operator.depot, TYPE, operator.first, operator.settings)
    with pytest.raises(UntrustedVersionError):
        rebuild_without(operator.depot, TYPE, [one], [SMALL_CASE], operator.settings)
    assert (ledger_bytes(operator), len(operator.shelf.versions(TYPE))) == (before, 2)


def test_a_watch_tells_it_and_goes_on_when_it_is_mended(operator):
    operator.send(operator.delta(0.002))
    version = operator.merge().version
    path = operator.shelf.model_path(TYPE, version)
    good = path.read_bytes()
    write_model(moved(operator.newest()), path)
    operator.send(operator.delta(0.004, site="site2"))

    def act(event, stop, _count):
        if event == "failed":
            path.write_bytes(good)
        if event == "waiting":
            stop.ask()

    events = watch(operator, act)
    assert [one["event"] for one in events] == ["started", "failed", "merged", "waiting", "stopped"]
    assert version in events[1]["reason"]
    assert events[2]["merged"] == 1


def test_an_old_ledger_that_knows_no_files_compares_the_weights(operator):
    operator.send(operator.delta(0.002))
    version = operator.merge().version
    store = Store(operator.settings.folder / "operator" / TYPE)
    store.save(replace(store.load(), files={}))
    assert operator.merge().reason == "no update waits"
    assert version in store.load().files
    store.save(replace(store.load(), files={}))
    write_model(moved(operator.newest()), operator.shelf.model_path(TYPE, version))
    with pytest.raises(UntrustedVersionError):
        operator.merge()


def test_the_command(operator, command):
    write_settings(replace(operator.settings, folder=operator.root / "configuration"))
    code, out, err = command(
        "publish", "adopt", operator.first, "--folder", operator.root / "server", "--type", TYPE, "--json"
    )
    told = json.loads(out)
    assert (code, told["version"], told["forgotten"], len(told["weights_sha256"])) == (0, operator.first, [], 64), err
    assert command("publish", "adopt", "7", "--folder", operator.root / "server", "--type", TYPE)[0] == 1
