"""Plans by nnU-Net's published rules, worked out by hand; every plan can be built, stored and run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dafne_dante.errors import AnnotationError, TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.configure import configure_from_fingerprint
from dafne_dante.models.plan import plan_from_net_metadata, plan_to_net_metadata
from dafne_dante.models.planning.budget import MemoryBudget, give_budget
from dafne_dante.models.planning.drafts import first_patch
from dafne_dante.models.planning.fingerprint import CaseFingerprint, Fingerprint, Intensities
from dafne_dante.models.planning.spacing import choose_spacing
from dafne_dante.models.planning.topology import design_topology
from dafne_dante.models.predict import predict_segmentation

ROOMY = give_budget(1000, on_gpu=False)
SMALL = give_budget(0.4, on_gpu=False)


def one(spacing, shape, *, slices=None, contrasts=1):
    """A case's fingerprint; (Z, X, Y)."""
    intensities = (Intensities(1.0, 1.0, 0.0, 1.0, 2.0),) * contrasts
    return CaseFingerprint(("a", "b"), spacing, shape, shape, intensities, slices or shape[0], (9, 9))


def cases(spacing, shape, *, count=5, **options):
    return Fingerprint((one(spacing, shape, **options),) * count)


ISOTROPIC = cases((1.0, 1.0, 1.0), (96, 120, 120))
ANISOTROPIC = cases((5.0, 0.5, 0.5), (20, 320, 320))
TINY = cases((2.0, 2.0, 2.0), (7, 9, 6))
THIN = cases((3.0, 0.8, 0.8), (9, 1500, 1400))
ONE_SLICE = cases((4.0, 1.0, 1.0), (1, 250, 200))
CONTRASTS = cases((1.0, 1.0, 1.2), (40, 48, 50), contrasts=3)
ALL = {
    "isotropic": ISOTROPIC,
    "anisotropic": ANISOTROPIC,
    "tiny": TINY,
    "thin": THIN,
    "one slice": ONE_SLICE,
    "contrasts": CONTRASTS,
}


def test_topology_of_an_isotropic_patch():
    """nnU-Net's 128^3: 128, 64, 32, 16, 8, 4 are six stages."""
    topology = design_topology((1.0, 1.0, 1.0), (128, 128, 128))
    assert topology.kernels == ((3, 3, 3),) * 6
    assert topology.strides == ((1, 1, 1),) + ((2, 2, 2),) * 5
    assert (topology.patch, topology.divisor) == ((128, 128, 128), (32, 32, 32))


def test_topology_at_a_spacing_ratio_of_ten():
    """In plane 0.5, 1, 2, 4 mm: only then is 5 mm less than twice as long, so three stages have kernels 1 along Z.

    20 slices are then halved to 10 and 5; 320 in plane to 160, 80, 40, 20, 10, 5.
    """
    topology = design_topology((5.0, 0.5, 0.5), (20, 320, 320))
    assert topology.kernels == ((1, 3, 3),) * 3 + ((3, 3, 3),) * 4
    assert topology.strides == ((1, 1, 1),) + ((1, 2, 2),) * 3 + ((2, 2, 2),) * 2 + ((1, 2, 2),)
    assert topology.divisor == (4, 64, 64)
    assert topology.patch == (20, 320, 320)


def test_topology_of_published_plans():
    """The prostate of the Medical Segmentation Decathlon: 20 x 320 x 256 voxels of 3.6 x 0.62 x 0.62 mm."""
    topology = design_topology((3.6, 0.62, 0.62), (20, 320, 256))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


@pytest.mark.parametrize(
    ("spacing", "size", "stages", "patch"),
    [
        ((1, 1, 1), (33, 47, 65), 4, (40, 48, 72)),  # 5, 6 and 9 are left; the 9, alone, would need 12
        ((1, 1, 1), (10, 10, 10), 3, (16, 16, 10)),  # grown: MONAI builds no DynUNet of two stages
        ((1, 1, 1), (1, 40, 40), 4, (1, 40, 40)),  # an axis of one voxel keeps it
        ((1, 9, 9), (12, 4, 4), 3, (24, 4, 4)),  # one axis alone: halved from 12 on, and grown for a third stage
        ((1, 1, 1), (2000, 2000, 2000), 8, (2048, 2048, 2048)),  # never more than eight
    ],
)
def test_topology_at_the_edges(spacing, size, stages, patch):
    topology = design_topology(spacing, size)
    assert len(topology.strides) == len(topology.kernels) == stages
    assert all(length % step == 0 for length, step in zip(topology.patch, topology.divisor, strict=True))
    assert topology.patch == patch


def test_an_axis_of_one_voxel_has_kernels_of_one():
    assert {kernel[0] for kernel in design_topology((1, 1, 1), (1, 64, 64)).kernels} == {1}


def spacing_of(*found):
    target = choose_spacing(Fingerprint(found))
    return target.spacing_mm, target.coarse_axis


def test_target_spacing_is_the_median():
    found = [one((z, 1.0, x), (60, 90, 90)) for z, x in ((1.0, 0.5), (2.0, 0.6), (5.0, 1.5))]
    assert spacing_of(*found) == ((2.0, 1.0, 0.6), None)


def test_a_coarse_axis_has_the_tenth_percentile():
    """Slices of 4 to 14 mm in eleven cases: the median would be 9, the 10th percentile is 5."""
    found = [one((float(z), 1.0, 1.0), (10, 200, 200)) for z in range(4, 15)]
    assert spacing_of(*found) == ((5.0, 1.0, 1.0), 0)
    many = [one((float(z), 1.0, 1.0), (80, 200, 200)) for z in range(4, 15)]
    assert spacing_of(*many) == ((9.0, 1.0, 1.0), None), "80 slices are not under a third of 200"
    fine = [one((z, 1.0, 1.0), (10, 200, 200)) for z in (0.2, 0.2, 4.0, 4.0, 4.0)]
    assert spacing_of(*fine) == ((1.0, 1.0, 1.0), 0), "never finer than in plane"
    exact = [one((3.0, 1.0, 1.0), (10, 200, 200))]
    assert spacing_of(*exact) == ((3.0, 1.0, 1.0), None), "three times is not over three times"


def test_the_first_patch_is_cubic_in_millimetres_and_within_the_images():
    assert first_patch((1.0, 1.0, 1.0), (900, 900, 900)) == (256, 256, 256)
    # 256^3 voxels of 5 x 0.5 x 0.5 mm fill a cube of 275.8 mm: 55.2 and 551.5 voxels.
    assert first_patch((5.0, 0.5, 0.5), (900, 900, 900)) == (55, 552, 552)
    assert first_patch((5.0, 0.5, 0.5), (20, 320, 900)) == (20, 320, 552)
    assert first_patch((0.5, 1.0), (9000, 9000)) == (2048, 1448)


@pytest.mark.parametrize("architecture", ["unet2d", "unet3d", "dynunet"])
@pytest.mark.parametrize("name", ALL)
def test_every_plan_fits_and_can_be_stored(name, architecture):
    budget = ROOMY if name in ("anisotropic", "one slice") else SMALL
    made = configure_from_fingerprint(ALL[name], architecture, budget=budget)
    plan = made.plan
    assert plan.architecture == architecture
    assert made.estimated_bytes <= budget.size_bytes
    assert made.batch_size >= 2
    assert plan_from_net_metadata(plan_to_net_metadata(plan)) == plan
    assert plan.in_channels == ALL[name].contrasts
    assert made.why.keys() == {"architecture", "spacing", "patch", "depth", "channels", "batch_size", "memory"}
    assert all(any(character.isdigit() for character in sentence) for key, sentence in made.why.items()
               if key != "architecture")  # fmt: skip
    with torch.device("meta"):
        assert build_network(plan)(torch.zeros(1, plan.in_channels, *plan.patch)).shape[2:] == plan.patch


@pytest.mark.parametrize("architecture", ["unet2d", "unet3d", "dynunet"])
@pytest.mark.parametrize("shape", [(3, 40, 31), (18, 33, 20)])
def test_plans_run_on_images_of_other_sizes(architecture, shape):
    """As in a stock client: prepared, padded and predicted in windows, for images that the plan was not made for."""
    z, x, y = shape
    plan = configure_from_fingerprint(
        cases((3.0, 1.0, 1.0), (12, 36, 36), contrasts=2), architecture, budget=SMALL
    ).plan
    image = np.random.default_rng(0).uniform(1, 9, (2, x, y, z)).astype(np.float32)
    torch.manual_seed(0)
    assert predict_segmentation(build_network(plan), plan, image, (1.0, 1.1, 3.3)).shape == (x, y, z)


def test_the_dynunet_is_that_of_nnunet_where_memory_is_no_limit():
    plan = configure_from_fingerprint(ANISOTROPIC, "dynunet", budget=ROOMY).plan
    assert (plan.patch, plan.kernels[:4]) == ((20, 320, 320), ((1, 3, 3),) * 3 + ((3, 3, 3),))
    assert plan.spacing_mm == (5.0, 0.5, 0.5)


def test_less_memory_shortens_the_patch_that_is_longest_for_the_images():
    patches = [
        configure_from_fingerprint(ISOTROPIC, "dynunet", budget=give_budget(size, on_gpu=False)).plan.patch
        for size in (0.3, 0.8, 3.0)
    ]
    volumes = [int(np.prod(patch)) for patch in patches]
    assert volumes == sorted(set(volumes))
    for patch in patches[1:]:
        shares = np.array(patch) / (96, 120, 120)
        assert shares.max() / shares.min() < 1.7, f"{patch} has the shape of the images"


def test_no_network_fits_into_almost_nothing():
    with pytest.raises(TrainingError, match=r"at least 0\.\d\d GB for the smallest dynunet .* found 0\.02 GB"):
        configure_from_fingerprint(ISOTROPIC, "dynunet", budget=give_budget(0.02, on_gpu=False))


@pytest.mark.parametrize(("on_gpu", "share", "counts"), [(True, "5%", (10, 60)), (False, "1%", (50, 300))])
def test_a_batch_sees_at_most_a_small_share_of_the_voxels(on_gpu, share, counts):
    """Ten cases of 32^3: a twentieth is half a patch, so two; sixty: three. On a CPU five times as many."""
    roomy = replace(ROOMY, on_gpu=on_gpu)
    batches = [
        configure_from_fingerprint(cases((1.0, 1.0, 1.0), (32, 32, 32), count=count), "unet3d", budget=roomy)
        for count in counts
    ]
    assert [made.batch_size for made in batches] == [2, 3]
    assert f"{share} of all voxels" in batches[1].why["batch_size"]
    labelled = cases((1.0, 1.0, 1.0), (40, 64, 64), count=8, slices=10 if on_gpu else 40)
    assert configure_from_fingerprint(labelled, "unet2d", budget=roomy).batch_size == (4 if on_gpu else 3)


def test_a_found_budget_of_a_cpu_bounds_the_voxels_of_a_step():
    budget = MemoryBudget(10**12, False, "lots", {"unet3d": 2 * 32 * 64 * 64})
    made = configure_from_fingerprint(ISOTROPIC, "unet3d", budget=budget)
    assert made.batch_size * np.prod(made.plan.patch) <= 2 * 32 * 64 * 64
    assert "too long on a CPU" in made.why["patch"]


@pytest.mark.parametrize(
    ("found", "on_gpu", "chosen", "reason"),
    [
        (ISOTROPIC, False, "unet3d", "96 slices and 96 labelled ones"),
        (ANISOTROPIC, False, "unet2d", "10 times as long along Z"),
        (ANISOTROPIC, True, "dynunet", "10 times as long along Z"),
        (cases((1.0, 1.0, 6.0), (90, 90, 20)), False, "dynunet", "6 times as long along Y"),
        (ONE_SLICE, True, "unet2d", "has 1 slice,"),
        (cases((1.0, 1.0, 1.0), (96, 96, 96), slices=3), True, "unet2d", "has 3 slices with labels"),
        (TINY, False, "unet2d", "has 7 slices,"),
        (cases((1.0, 1.0, 1.0), (8, 96, 96)), False, "unet3d", "8 slices"),
    ],
)
def test_auto_follows_its_rules_and_says_so(found, on_gpu, chosen, reason):
    made = configure_from_fingerprint(found, "auto", budget=give_budget(8, on_gpu=on_gpu))
    assert made.plan.architecture == chosen
    assert reason in made.why["architecture"]


@pytest.mark.parametrize(
    "found",
    [
        cases((5000.0, 1.0, 1.0), (9, 90, 90)),
        cases((1.0, 1.0, 0.0), (9, 9, 9)),
        cases((1.0, 1.0, 1.0), (9, 9, 9), contrasts=17),
    ],
)
def test_images_that_no_model_can_take_are_refused(found):
    with pytest.raises(AnnotationError, match=r"expected (voxels|up to)"):
        configure_from_fingerprint(found, "unet3d", budget=SMALL)


@pytest.mark.parametrize("shape", [(320, 288, 352), (512, 512, 512), (5, 2000, 3), (1, 1, 1)])
def test_sizes_that_once_broke_a_planner(shape):
    """288 and 352 are multiples of 32 but not of 64; a skip connection must still meet its like."""
    plan = configure_from_fingerprint(cases((1.0, 1.0, 1.0), shape), "dynunet", budget=ROOMY).plan
    with torch.device("meta"):
        network = build_network(replace(plan, first_channels=32))
        assert network(torch.zeros(1, 1, *plan.patch)).shape[2:] == plan.patch
