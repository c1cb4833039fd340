"""Attacks on a merge by whoever runs the server: swapped, withdrawn and foisted versions, with the real merger.

In none is anything of theirs built upon, signed or published, or a good update lost.
"""

from dataclasses import replace

import pytest
import torch
from test_attacks import base, federation, learned
from test_operator import HEAD, TYPE

from dafne_dante.delta.signing import ensure_signing_key
from dafne_dante.errors import UntrustedVersionError
from dafne_dante.federation.model_signature import without_signature
from dafne_dante.federation.published_versions import hand_in, roll_back
from dafne_dante.models.file import write_model

__all__ = ["base", "federation", "learned"]


def write_over(federation, version, model):
    """What whoever runs the server can do."""
    write_model(model, federation.shelf.model_path(TYPE, version))


def altered(federation, model):
    draw = torch.Generator().manual_seed(3)
    noisy = model.weights[HEAD] + 0.05 * torch.randn(model.weights[HEAD].shape, generator=draw)
    return without_signature(replace(model, weights={**model.weights, HEAD: noisy}))


def swap_weights(federation, newest, first):
    write_over(federation, newest, altered(federation, federation.newest()))


def swap_code(federation, newest, first):
    """The weights are the same; stock clients run the text of the functions, and the next version would be signed."""
    model = federation.newest()
    write_over(federation, newest, replace(model, sources={**model.sources, "apply_model_function": "import os"}))


def take_the_newest_away(federation, newest, first):
    federation.shelf.model_path(TYPE, newest).unlink()


def bring_an_old_release_back(federation, newest, first):
    federation.shelf.publish_copy(TYPE, federation.shelf.model_path(TYPE, first))


def push_in_a_version(federation, newest, first):
    write_model(altered(federation, federation.newest()), federation.root / "theirs.model")
    federation.shelf.publish_copy(TYPE, federation.root / "theirs.model")


def swap_an_older_base(federation, newest, first):
    write_over(federation, first, altered(federation, federation.model))


def spoil_the_newest(federation, newest, first):
    federation.shelf.model_path(TYPE, newest).write_bytes(b"no model")


SERVERS = {
    "swaps the weights": swap_weights,
    "swaps the code": swap_code,
    "rolls back": take_the_newest_away,
    "brings an old release back as a new version": bring_an_old_release_back,
    "pushes in a version": push_in_a_version,
    "swaps an older base": swap_an_older_base,
    "spoils the newest": spoil_the_newest,
}


def kept_files(federation):
    """What the operator and the server hold, but for the lock and the digests that are kept beside the files."""
    roots = (federation.settings.folder, federation.root / "server")
    files = {path: path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}
    return {path: content for path, content in files.items() if path.name != "lock" and path.suffix != ".sha256"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_changes_what_it_holds_is_found_and_nothing_is_lost(federation, name):
    ensure_signing_key(federation.settings.folder)
    first = hand_in(federation.depot, TYPE, federation.model, federation.settings)
    federation.send(federation.honest(1))
    newest = federation.merge().version
    good = federation.send(federation.honest(2), user="late")
    colluder = altered(federation, federation.newest())
    federation.send(federation.delta(0.001, site="h9", model=colluder), user="evil")
    before = {path: path.read_bytes() for path in (federation.root / "server").rglob("*.model")}
    SERVERS[name](federation, newest, first)
    changed = kept_files(federation)
    with pytest.raises(UntrustedVersionError):
        federation.merge()
    if name == "swaps an older base":  # found when its weights are asked for: the colluder's may be gone by then
        assert not [one for one in federation.quarantined() if "late" in one]
    else:
        with pytest.raises(UntrustedVersionError):
            roll_back(federation.depot, TYPE, federation.shelf.versions(TYPE)[0], federation.settings)
        assert kept_files(federation) == changed, "nothing is published, refused or remembered"
    for path in set((federation.root / "server").rglob("*.model")) - set(before):
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    report = federation.merge()
    assert report.merged == 1
    assert good not in federation.quarantined()


def test_a_rollback_to_a_version_that_was_swapped_is_refused(federation):
    federation.send(federation.honest(1))
    federation.merge()
    write_over(federation, federation.first, altered(federation, federation.model))
    with pytest.raises(UntrustedVersionError, match=federation.first):
        roll_back(federation.depot, TYPE, federation.first, federation.settings)
    assert len(federation.shelf.versions(TYPE)) == 2
