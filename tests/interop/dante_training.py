"""Dante's own trainer, as its command line runs it, on cases small enough for a test.

Terms: Dante cuts patches of fixed sizes, (32, 96, 96) for a 3D U-Net and (32, 128, 128) for a DynUNet on a CPU, four an
image. `SMALL_PATCH` takes their place, in what it cuts and in what it writes; nothing else of Dante is changed.
"""

import sys

import numpy as np
import pytest

SMALL_PATCH = (16, 32, 32)


def write_archives(folder, cases):
    """The cases as Dante reads them: one `.npz` a case, with data, resolution and a mask for each label."""
    folder.mkdir()
    for case in cases:
        masks = {f"mask_{name}": case.segmentation == 1 + index for index, name in enumerate(case.labels)}
        resolution = np.linalg.norm(case.affine[:3, :3], axis=0)
        np.savez(folder / f"{case.case_id}.npz", data=case.image[0], resolution=resolution, affine=case.affine, **masks)
    return folder


def train_with_dante(data, name, *options):
    """Run `dante_train`; the `.model` file that it wrote."""
    from dante.bin import train_cli
    from dante.core.transform import transforms_builder as transforms

    folder = data.parent
    arguments = ["--data", data, "--output", folder / f"{name}.model", "--epochs", "1", "--batch-size", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "SpatialPadd", _in_small(transforms.SpatialPadd))
        patch.setattr(transforms, "RandCropByPosNegLabeld", _in_small(transforms.RandCropByPosNegLabeld))
        patch.setattr(transforms, "get_optimal_hyperparameters", lambda *_, **__: (list(SMALL_PATCH), 1))
        static = transforms.TransformBuilderTraining.get_transforms_static_model
        patch.setattr(transforms.TransformBuilderTraining, "get_transforms_static_model", _with_small_patch(static))
        patch.setattr(sys, "argv", ["dante_train", *map(str, arguments), *options])
        train_cli.main()
    return folder / name / f"{name}.model"


def _in_small(transform):
    def make(*arguments, spatial_size, **options):
        return transform(*arguments, spatial_size=SMALL_PATCH, **options)

    return make


def _with_small_patch(method):
    def build(self):
        made = method(self)
        if self.model_config.spatial_dims == 3:
            self.model_config.patch_size = SMALL_PATCH
        return made

    return build
