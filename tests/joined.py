"""Two processes that share a training, started as torchrun starts them, but from one that has imported everything."""

import json
import multiprocessing
import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from limbs import EVERY_FIFTH, limb_plan, make_limb, partly

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.cli.main import main
from dafne_dante.models.build import build_network
from dafne_dante.models.configure import configure_cases
from dafne_dante.models.global_model import digest_weights
from dafne_dante.models.planning.budget import give_budget
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.averaging import named_tensors
from dafne_dante.training.evaluate import measure_cases
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.processes import ALONE, join_processes

COUNT = 2
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["joined", "dafne_dante.plugin.training"])


def quiet_variables():
    """No process reaches beyond this machine, nor takes more than one core."""
    return {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "400",
        **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    }


def start_jointly(work, *arguments, told):
    """Two processes that run `work`; what the one of rank N prints is in `told`/N.out and `told`/N.err."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told.mkdir(exist_ok=True)
    processes = [_CONTEXT.Process(target=_run, args=(rank, port, told, work, arguments)) for rank in range(COUNT)]
    for process in processes:
        process.start()
    return processes


def wait_for(processes, seconds=120):
    """Exit codes; a process that is still there after these seconds is killed and counts as None."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def _run(rank, port, told, work, arguments):
    os.environ.update(quiet_variables())
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(COUNT))
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(COUNT))
    for number, name in ((1, "out"), (2, "err")):
        with (told / f"{rank}.{name}").open("wb") as stream:
            os.dup2(stream.fileno(), number)
    torch.set_num_threads(1)
    work(*arguments)


def run_command(configuration, *arguments):
    """The command line."""
    os.environ["DAFNE_DANTE_CONFIG"] = str(configuration)
    sys.argv = ["dafne-dante", *map(str, arguments)]
    main()


def run_as_ranked(configuration, each):
    """The command line, with arguments of its own for each rank."""
    run_command(configuration, *each[int(os.environ["RANK"])])


def _cases():
    return [partly(make_limb(1), EVERY_FIFTH), make_limb(2), partly(make_limb(3), EVERY_FIFTH)]


def begin_training(architecture):
    """A plan and weights that a few steps alone have led to, where no voxel stands between two labels any more."""
    cases = _cases()
    budget = give_budget(0.15, on_gpu=False)
    plan = limb_plan(2) if architecture == "unet2d" else configure_cases(cases, architecture, budget=budget).plan
    torch.manual_seed(5)
    network = build_network(plan)
    recipe = Recipe(epochs=1, steps_per_epoch=40 if plan.dimensions == 2 else 8, learning_rate=5e-3)
    fit(network, plan, FullFineTuning(), prepare_cases(cases[:2], plan), prepare_cases(cases[2:], plan), recipe=recipe)
    return plan, named_tensors(network)


def train_jointly(plan, weights, processes=ALONE):
    """Rows of the epochs, scores on the cases, and the weights; batches of three do not divide by two."""
    cases = _cases()
    network = build_network(plan)
    network.load_state_dict(weights, strict=False)
    recipe = Recipe(
        epochs=2,
        steps_per_epoch=2,
        batch_size=3,
        learning_rate=3e-4,
        augmentation=Strengths(1.0, 0.5, 0.5, mirror=True),
        average_decay=0.9,
        deep_supervision=plan.architecture == "dynunet",
    )
    training, held_out = prepare_cases(cases[:2], plan), prepare_cases(cases[2:], plan)
    result = fit(network, plan, FullFineTuning(), training, held_out, recipe=recipe, processes=processes)
    rows = [[record.train_loss, record.val_loss, *record.dice.values()] for record in result.history]
    scores = asdict(measure_cases(network, plan, cases, processes=processes))
    return {"rows": rows, "dice": scores["dice"], "best": result.best_epoch}, named_tensors(network)


def train_and_tell(folder, beginnings):
    """Write what this process came to from each beginning."""
    with join_processes() as processes:
        for plan, weights in beginnings:
            told, learnt = train_jointly(plan, weights, processes)
            path = Path(folder) / f"{plan.architecture}-{processes.rank}"
            path.with_suffix(".json").write_text(json.dumps({**told, "digest": digest_weights(learnt)}))
            torch.save(learnt, path.with_suffix(".pt"))
