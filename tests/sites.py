"""A site on disk for tests: labelled cases as NIfTI, a tiny global model, a configuration folder."""

import json

import nibabel
import numpy as np
import torch
from phantoms import LABELS, make_case, tiny_plan

from dafne_dante.adaptation.baselines import FullFineTuning
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.models.build import build_network
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.training.loop import Recipe, fit
from dafne_dante.training.prepared import prepare_cases

NEW_SCANNER = {"bright": (150.0, 260.0)}
"""The two structures with other intensities: a shift that fine-tuning can learn."""


def save(path, volume, affine):
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)


def write_cases(folder, seeds, **options):
    """Write phantoms in nnU-Net's layout."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        case = make_case(seed, **options)
        save(folder / "imagesTr" / f"c{seed}_0000.nii.gz", case.image[0], case.affine)
        save(folder / "labelsTr" / f"c{seed}.nii.gz", case.segmentation, case.affine)
    labels = {"background": 0, **{label: 1 + index for index, label in enumerate(LABELS)}}
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def train_model(path, *, seed=0, epochs=5, model_id=None):
    """Train a tiny global model on phantoms, write it and return it."""
    from uuid import UUID

    plan = tiny_plan()
    torch.manual_seed(seed)
    network = build_network(plan)
    cases = prepare_cases([make_case(number) for number in (1, 2, 3)], plan)
    recipe = Recipe(epochs=epochs, steps_per_epoch=12, learning_rate=1e-2, warmup_share=0.2, seed=seed)
    fit(network, plan, FullFineTuning(), cases[:2], cases[2:], recipe=recipe)
    model = GlobalModel(
        model_id=model_id or UUID(int=7),
        timestamp=1_700_000_000,
        plan=plan,
        weights=plain_weights(network),
        metadata=stock_metadata(plan),
        sources=stock_sources(plan),
    )
    write_model(model, path)
    return model


def snapshot(folder):
    """Every file under a folder with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_voxels(path):
    """Cut a file in half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def four_volumes(path):
    """Replace an image by one with four volumes."""
    image = nibabel.load(path)
    volume = np.asarray(image.dataobj, dtype=np.float32)
    save(path, np.stack([volume] * 4, axis=-1), image.affine)
