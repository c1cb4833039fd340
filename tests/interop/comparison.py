"""Masks of the stock client beside ours, and images to compare them on."""

import io

import numpy as np

from dafne_dante.models.build import build_network
from dafne_dante.models.predict import predict_segmentation


def load_in_stock(content):
    """The model as dafne-dl's generic loader makes it."""
    from dafne_dl.model_loaders import generic_load_model

    return generic_load_model(io.BytesIO(content), install_deps=False)


def smooth_image(shape, seed, margin=0):
    """A smooth positive image (X, Y, Z) float32; with `margin`, nothing but air for so many voxels at its borders."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(0, 3, size) for size in shape], indexing="ij")
    image = sum(np.sin((1 + i) * axis + random.uniform(0, 3)) for i, axis in enumerate(axes)) + 4
    image = (image * 50 + random.normal(0, 3, shape)).astype(np.float32)
    if margin:
        inner = np.zeros(shape, bool)
        inner[margin:-margin, margin + 1 : -margin, 1:-1] = True
        image[~inner] = 0
    return image


def stock_masks(model, image, spacing_mm):
    """What stock clients ask: a volume with its affine, a slice at a time where the network is 2D. Masks (X, Y, Z)."""
    if model.get_data_dimensionality() == 3:
        return model.apply({"image": image, "affine": np.diag([*spacing_mm, 1.0])})
    slices = [
        model.apply({"image": image[..., index], "resolution": np.array(spacing_mm[:2])})
        for index in range(image.shape[-1])
    ]
    return {label: np.stack([masks[label] for masks in slices], axis=-1) for label in slices[0]}


def our_masks(model, image, spacing_mm):
    """The masks that we predict with the weights and the plan of a model, (X, Y, Z) each."""
    found = predict_segmentation(build_network(model.plan, model.weights), model.plan, image[None], spacing_mm)
    return {label: found == index for index, label in enumerate(model.plan.labels, start=1)}


def worst_dice(ours, stock):
    """The lowest Dice of a label; the labels are the same, in the same order, and one of them is there at least."""
    assert list(ours) == list(stock)
    assert any(mask.any() for mask in ours.values())
    return min(_dice(ours[label], stock[label] > 0) for label in ours)


def _dice(first, second):
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0
