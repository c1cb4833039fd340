"""An improvement that was interrupted goes on to the delta that it would have made."""

from dataclasses import replace

import pytest
import torch
from sites import train_model, write_cases

from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.config import Settings
from dafne_dante.delta.decode import decode_delta
from dafne_dante.errors import TrainingError
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, Progress, improve

CHECKPOINT = "improvement.checkpoint"


class StoppedError(Exception):
    """What a test stops a run with."""


@pytest.fixture
def run(tmp_path, trained):
    """Improve into a folder of this name; the epochs that were trained, stopped after `stop` of them if asked."""
    wanted = ImprovementRequest(CaseRequest((trained / "new",)), tmp_path, trained / "base.model", epochs=2)

    def start(name, stop=None, **changes):
        seen = []

        def on_epoch(record, _total):
            seen.append(record.epoch)
            if len(seen) == stop:
                raise StoppedError

        request = replace(wanted, out=tmp_path / name, **changes)
        try:
            improve(request, Settings(folder=tmp_path / "configuration"), progress=Progress(epoch=on_epoch))
        except StoppedError:
            assert [path.name for path in request.out.iterdir()] == [CHECKPOINT]
        return seen

    return start


def sent(folder):
    """The digests of all that a delta holds."""
    delta = decode_delta((folder / "update.delta").read_bytes(), base=None, trusted_keys=None)
    return delta.manifest.tensors


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_resumed_run_sends_the_same(run, tmp_path, method):
    assert run("whole", method=method) == [1, 2]
    assert run("out", stop=1, method=method) == [1]
    torch.rand(3)
    assert run("out", method=method, resume=True) == [2]
    assert sent(tmp_path / "out") == sent(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def test_another_run_is_refused_and_keeps_the_checkpoint(run, tmp_path):
    run("out", stop=1)
    before = (tmp_path / "out" / CHECKPOINT).read_bytes()
    train_model(tmp_path / "other.model", seed=1, epochs=1)
    more = CaseRequest((write_cases(tmp_path / "more", (21, 22, 23, 25)),))
    for changes in ({"seed": 1}, {"epochs": 3}, {"base": tmp_path / "other.model"}, {"data": more}, {"method": "full"}):
        with pytest.raises(TrainingError, match="of this training"):
            run("out", resume=True, **changes)
        assert (tmp_path / "out" / CHECKPOINT).read_bytes() == before
    assert run("out", seed=1) == [1, 2], "not resumed: it begins again"
