"""What passes the gate is what this site uses at once; it is carried over to a newer global model, or dropped."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from crashing_local import FIRST, add, contents, shelf, summed

from dafne_dante.config import Settings
from dafne_dante.delta.difference import take_difference
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.signing import load_signing_key
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve
from dafne_dante.plugin.local.carrying import Newer, carry_over
from dafne_dante.plugin.local.refreshing import refresh_local
from dafne_dante.plugin.local.shelf import KEEP, local_folder, local_shelf, local_types
from dafne_dante.plugin.local.using import keep_improvement, local_model
from dafne_dante.plugin.local.versions import LocalState, parse_state, serialise_state

TYPE = "Brain"


@pytest.fixture(scope="module")
def improved(tmp_path_factory, trained):
    """A site that improved its model once; read only."""
    root = tmp_path_factory.mktemp("improved")
    settings = Settings(folder=root / "configuration")
    data = CaseRequest((trained / "new",))
    request = ImprovementRequest(data, root / "out", trained / "base.model", TYPE, "lora", 6)
    assert improve(request, settings).gate == "passed"
    return settings, request


@pytest.fixture
def site(tmp_path, improved):
    """A copy of that site to change."""
    import shutil

    settings, request = improved
    shutil.copytree(settings.folder, tmp_path / "configuration")
    return replace(settings, folder=tmp_path / "configuration"), request


def moved(model, scale, *, timestamp):
    """Another global model: random steps of the weights."""
    random = torch.Generator().manual_seed(3)

    def shifted(tensor):
        return tensor + scale * tensor.std() * torch.randn(tensor.shape, generator=random)

    weights = {
        name: shifted(tensor) if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in model.weights.items()
    }
    return replace(model, weights=weights, timestamp=timestamp)


def test_what_passes_the_gate_is_used_at_once(site):
    settings, request = site
    used = local_model(settings, TYPE)
    assert used.file.read_bytes() == (request.out / "improved.model").read_bytes()
    assert used.number == 1
    assert "improved here" in used.words
    assert local_types(settings) == [TYPE]
    assert local_model(settings, "Thigh").file is None
    keep_improvement(settings, request.out / "improved.model", request.out / "update.delta")
    assert summed(local_shelf(settings, TYPE).state()) == [1, [1]], "kept once"


def test_what_fails_the_gate_is_not_used(tmp_path, trained):
    settings = Settings(folder=tmp_path / "configuration", clip_norm=1.0, noise_multiplier=100.0)
    data = CaseRequest((trained / "own",))
    summary = improve(ImprovementRequest(data, tmp_path / "out", trained / "base.model", TYPE, "lora", 1), settings)
    assert summary.gate == "failed"
    assert local_model(settings, TYPE).file is None
    assert not local_folder(settings).exists()


def test_an_improvement_of_an_improved_model_is_carried_whole(tmp_path, trained):
    """The first one is short, so that there is something left to learn."""
    settings = Settings(folder=tmp_path / "configuration", dice_margin=0.5)
    data = CaseRequest((trained / "new",))
    request = ImprovementRequest(data, tmp_path / "out", trained / "base.model", TYPE, "lora", 1)
    assert improve(request, settings).gate == "passed"
    base = local_model(settings, TYPE).file
    improve(replace(request, base=base, out=tmp_path / "again", method="full", epochs=8, seed=1), settings)
    state = local_shelf(settings, TYPE).state()
    if state.newest == 1:
        pytest.fail("the second improvement did not pass its gate")
    first, second = state.versions
    assert second.deltas[:1] == first.deltas
    assert len(second.deltas) == 2
    assert second.base == first.base


def test_a_newer_global_model_gets_what_was_learned_here(site):
    settings, request = site
    base = read_model(request.base)
    newer = Newer(moved(base, 0.01, timestamp=base.timestamp + 5), str(base.timestamp + 5))
    said = []
    state = carry_over(newer, TYPE, settings, request.data, say=said.append)
    assert state.status.startswith("carried over: on global version")
    assert state.current.number == 2
    assert state.current.after > state.current.before + 0.05
    carried = read_model(local_model(settings, TYPE).file)
    assert carried.timestamp == base.timestamp + 5
    name = next(name for name, tensor in carried.weights.items() if not torch.equal(tensor, newer.model.weights[name]))
    learned = read_model(request.out / "improved.model").weights[name] - base.weights[name]
    step = state.current.deltas[0][1]
    assert torch.allclose(carried.weights[name], newer.model.weights[name] + step * learned, atol=1e-5)
    assert carry_over(newer, TYPE, settings, request.data) == state, "once for each version"


def test_a_newer_global_model_that_is_better_alone_is_used(site, tmp_path):
    settings, request = site
    base, good = read_model(request.base), read_model(request.out / "improved.model")
    harm = moved(base, 3.0, timestamp=base.timestamp)
    write_model(harm, tmp_path / "harm.model")
    dice = dict.fromkeys(("mean", *base.plan.labels), 0.5)
    facts = DeltaFacts(
        TYPE, base.model_id, str(base.timestamp), digest_weights(base.weights), "full", 1, base.plan.labels,
        dice, dice,
    )  # fmt: skip
    updates = take_difference(base.weights, harm.weights, {})
    (tmp_path / "harm.delta").write_bytes(encode_delta(updates, facts, load_signing_key(settings.folder)))
    assert keep_improvement(settings, tmp_path / "harm.model", tmp_path / "harm.delta").chosen == 2
    newer = Newer(replace(good, timestamp=base.timestamp + 5), str(base.timestamp + 5))
    state = carry_over(newer, TYPE, settings, request.data)
    assert state.status.startswith("dropped: on global version")
    assert (state.current, state.seen) == (None, newer.version)
    assert local_model(settings, TYPE).file is None
    assert [one.number for one in state.versions] == [1, 2], "to go back to"


def test_another_family_drops_it(site):
    settings, request = site
    base = read_model(request.base)
    from uuid import UUID

    newer = Newer(replace(base, model_id=UUID(int=99)), str(base.timestamp + 5))
    assert "another network" in carry_over(newer, TYPE, settings, request.data).status


def test_the_server_is_asked_and_the_new_version_is_judged(site, tmp_path, command):
    settings, request = site
    served = Shelf(tmp_path / "server")
    served.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    key = Accounts(tmp_path / "server").add_user("site", access=[TYPE])
    base = read_model(request.base)
    write_model(moved(base, 0.01, timestamp=base.timestamp), tmp_path / "new.model")
    version = served.publish_copy(TYPE, tmp_path / "new.model")
    with RunningServer(tmp_path / "server") as server:
        there = replace(settings, server=server.url, api_key=key)
        state = refresh_local(connect(there), TYPE, there, request.data)
    assert (state.seen, state.current.base) == (version, version)
    code, out, _ = command("local", "list", "--json")
    (told,) = json.loads(out)["types"]
    assert (code, told["type"], told["uses"], len(told["versions"])) == (0, TYPE, 2, 2)
    assert told["status"].startswith("carried over")


def test_back_and_forth_on_the_command_line(site, command, tmp_path):
    settings, request = site
    image = next((request.data.paths[0] / "imagesTr").glob("*.nii.gz"))
    segment = ("predict", "--local", TYPE, "--image", image, "--out", tmp_path / "masks.nii.gz", "--json")
    code, out, err = command(*segment)
    assert (code, "improved model 1" in err) == (0, True)
    voxels = json.loads(out)["voxels"]
    code, out, err = command(
        "predict", "--model", request.base, "--image", image, "--out", tmp_path / "b.nii.gz", "--json"
    )
    assert voxels != json.loads(out)["voxels"], "another model"
    assert command("local", "global", TYPE)[0] == 0
    assert local_model(settings, TYPE).file is None
    code, _, err = command(*segment)
    assert code == 1
    assert "went back to the global model" in err
    assert command("local", "use", "9")[0] == 1
    code, out, _ = command("local", "use", "1")
    assert code == 0
    assert "* 1" in out
    assert local_model(settings, TYPE).number == 1
    assert command("local", "forget", TYPE)[0] == 0
    assert "no improved model" in command("local", "list")[1]


def test_only_so_many_are_kept(tmp_path):
    for number in range(1, KEEP + 4):
        add(tmp_path, number)
    assert summed(shelf(tmp_path).state()) == [KEEP + 3, list(range(3, KEEP + 4))]
    kept = [path.name for path in (tmp_path / "shelf").iterdir() if path.suffix == ".model"]
    assert len(kept) == KEEP + 1
    with pytest.raises(SettingsError, match="expected one of the versions 3, 4"):
        shelf(tmp_path).choose(1, "x")


def test_a_file_that_was_changed_is_not_used(site):
    settings, _ = site
    file = local_model(settings, TYPE).file
    file.write_bytes(file.read_bytes()[:-1])
    used = local_model(settings, TYPE)
    assert used.file is None
    assert "the global model is used: expected the improved model 1 as it was kept" in used.words


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": 5}, {"newest": 0}, {"versions": [1]}, {"versions": "x"}, {"status": 7}, {"seen": "-1"},
        {"chosen": True}, {"status": "x" * 3000},
    ],
)  # fmt: skip
def test_a_damaged_list_is_refused_and_dafne_goes_on(site, change):
    settings, _ = site
    (path,) = local_folder(settings).glob("*/state.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StorageError, match="forget"):
        local_shelf(settings, TYPE).state()
    assert "the global model is used" in local_model(settings, TYPE).words
    assert local_shelf(settings, TYPE).forget()
    assert local_model(settings, TYPE).file is None


def test_the_list_comes_back():
    digests = [hashlib.sha256(content).hexdigest() for content in contents(1)]
    version = replace(FIRST, model=digests[0], deltas=((digests[1], 0.5),))
    state = LocalState(TYPE, 1, 1, "7", "made", (version,))
    assert parse_state(serialise_state(state)) == state
    for wrong in (b"[]", b"{", b"[" * 100_000, b"null", b"\xff"):
        with pytest.raises(StorageError):
            parse_state(wrong)
