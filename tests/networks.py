"""Small networks of the kinds that Dafne uses, wrapped as Dafne wraps them, with an input that each can run."""

from collections.abc import Callable

import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

CLASSES = 3


class WrappedUnet(nn.Module):
    """MONAI's U-Net under `unet_model`: levels 8, 16, 32, 64 channels."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.unet_model = UNet(
            dimensions, 1, CLASSES, channels=(8, 16, 32, 64), strides=(1, 2, 2), num_res_units=2, norm="INSTANCE"
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.unet_model(image)


class WrappedDynUnet(nn.Module):
    """MONAI's DynUNet under `dyn_unet`, with residual blocks, affine norms and one kernel of 1 along the first axis."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        thin, full = [1] + [3] * (dimensions - 1), [3] * dimensions
        strides = [[1] * dimensions, [1] + [2] * (dimensions - 1), [2] * dimensions]
        self.dyn_unet = DynUNet(
            dimensions, 1, CLASSES, kernel_size=[thin, full, full], strides=strides, upsample_kernel_size=strides[1:],
            filters=[8, 16, 32], norm_name=("INSTANCE", {"affine": True}), res_block=True,
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        return self.dyn_unet(image)


class Normalised(nn.Module):
    """Three convolutions with batch norms, one of them without affine parameters; no U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.last = nn.Conv2d(4, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.second(self.first(image)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet 2D": lambda: WrappedUnet(2),
    "unet 3D": lambda: WrappedUnet(3),
    "dynunet 2D": lambda: WrappedDynUnet(2),
    "dynunet 3D": lambda: WrappedDynUnet(3),
}


def build(kind: str) -> tuple[nn.Module, Tensor]:
    """The network of that kind, seeded, in training mode, and a batch of two images for it."""
    torch.manual_seed(7)
    network = NETWORKS[kind]()
    size = (2, 1) + (16,) * 2 if kind.endswith("2D") else (2, 1) + (8,) * 3
    return network, torch.randn(size)


def take_steps(network: nn.Module, image: Tensor, steps: int = 3) -> None:
    """A few steps of AdamW, with decay, on everything that may move."""
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    target = torch.randint(CLASSES, (image.shape[0], *network(image).shape[2:]))
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(image), target).backward()
        optimiser.step()
