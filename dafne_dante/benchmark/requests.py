"""From what a person asks for to a request: simulated domains, or folders of their own.

Terms: *quick* is a part of the default: one seed, full data and one shot, the rich pretraining. Whoever asks for more
in the same folder has that part already. It is meant for five minutes on two idle cores, the default for 40.

Invariants: the source of a request shares nobody with its targets; of the default shots those are left out that some
folder has too few people for, and the person is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dafne_dante.benchmark.benchmark import BenchmarkRequest
from dafne_dante.benchmark.dante_methods import DANTE_METHODS, dante_plan
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.folders import (
    FolderRequest,
    folder_request,
    named_folders,
    one_person_one_name,
    read_folders,
)
from dafne_dante.benchmark.pretraining import plan_for
from dafne_dante.benchmark.protocol import Effort, Grid
from dafne_dante.benchmark.simulated import TARGET_NAMES, simulated_plan, simulated_source, simulated_target
from dafne_dante.benchmark.splits import PRETRAININGS, Pretraining, most_shots, separate
from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError

__all__ = ["Wish", "make_request"]

_METHODS = ("scratch", "full", "lora", "gradual-unfreezing", "auto")
_SHOTS: tuple[int | None, ...] = (None, 1, 2, 4)
_QUICK_SHOTS: tuple[int | None, ...] = (None, 1)
_QUICK_PRETRAININGS: tuple[Pretraining, ...] = ("rich",)
_SEEDS, _QUICK_SEEDS = 3, 1
_VOXEL_MM = 6.0
# 2560 slices in all; an epoch of Dante's sees every slice, so that in its ten it sees 2520 of seven simulated subjects.
_EFFORT_2D = Effort(epochs=20, steps_per_epoch=32, pretraining_epochs=4, batch_size=4)
_SOURCE_SUBJECTS, _TARGET_SUBJECTS = 16, 13


@dataclass(frozen=True)
class Wish:
    """What a person asks for; empty and None for the defaults.

    Attributes:
        targets: names of simulated domains.
        source, folders: own folders or public sets instead; `source` as DIR or SET:DIR, `folders` with NAME= before.
        other_people: whether subjects of the same name in two folders are different people.
        seeds: how many.
        dante: the program `dante_train`, whose methods are compared too. All methods then have the network that it
            builds, a 2D U-Net, and their base.
    """

    out: Path
    quick: bool = False
    methods: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    shots: tuple[int | None, ...] = ()
    seeds: int | None = None
    epochs: int | None = None
    jobs: int = 2
    source: str | None = None
    folders: tuple[str, ...] = ()
    skip_faulty: bool = False
    other_people: bool = False
    dante: Path | None = None


def make_request(
    wish: Wish, settings: Settings, *, tell: Callable[[str], None] = lambda text: None
) -> BenchmarkRequest:
    """Make or read the cases, and decide what is compared.

    Raises:
        SettingsError: options that do not go together, or the extra `demo` is not installed.
        AnnotationError, TrustError, StorageError: see read_folders and separate.
    """
    if bool(wish.folders) != (wish.source is not None) or (wish.folders and wish.targets):
        raise SettingsError("expected --source DIR with --target NAME=DIR, or --targets alone; check the options")
    own = wish.source is not None
    tell("reading the folders" if own else "simulating individuals from the ICBM152 template")
    source, targets = _own_domains(wish, settings) if own else _simulated_domains(wish)
    plan = plan_for(source) if own else simulated_plan(_VOXEL_MM)
    effort = Effort() if wish.dante is None else _EFFORT_2D
    seeds = wish.seeds or (_QUICK_SEEDS if wish.quick else _SEEDS)
    grid = Grid(
        targets=tuple(target.name for target in targets),
        methods=wish.methods or (_METHODS if wish.dante is None else (*_METHODS, *DANTE_METHODS)),
        shots=_shots(wish, targets, tell),
        pretrainings=_QUICK_PRETRAININGS if wish.quick else PRETRAININGS,
        seeds=tuple(range(seeds)),
    )
    return BenchmarkRequest(
        out=wish.out,
        grid=grid,
        effort=replace(effort, epochs=wish.epochs or effort.epochs),
        source=source,
        targets={target.name: target for target in targets},
        plan=plan if wish.dante is None else dante_plan(plan),
        jobs=wish.jobs,
        dante=wish.dante,
    )


def _simulated_domains(wish: Wish) -> tuple[Domain, list[Domain]]:
    targets = [simulated_target(name, _TARGET_SUBJECTS, _VOXEL_MM) for name in wish.targets or TARGET_NAMES]
    return separate(simulated_source(_SOURCE_SUBJECTS, _VOXEL_MM), targets), targets


def _own_domains(wish: Wish, settings: Settings) -> tuple[Domain, list[Domain]]:
    def asked(request: FolderRequest) -> FolderRequest:
        return replace(request, skip_faulty=wish.skip_faulty, other_people=wish.other_people)

    assert wish.source is not None
    wanted = (folder_request("source", wish.source), *named_folders(wish.folders))
    source, *targets = one_person_one_name(read_folders([asked(one) for one in wanted], settings))
    return separate(source, targets), targets


def _shots(wish: Wish, targets: Sequence[Domain], tell: Callable[[str], None]) -> tuple[int | None, ...]:
    """Those that were asked for, else the default ones that every target has more people for."""
    if wish.shots:
        return wish.shots
    default = _QUICK_SHOTS if wish.quick else _SHOTS
    most = min(map(most_shots, targets))
    possible = tuple(count for count in default if count is None or count < most)
    if possible != default:
        tell(f"leaving out shots that are not fewer than all {most} subjects to train on")
    return possible
