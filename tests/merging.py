"""An operator with a small real network that nobody trained, whose merges take little time."""

import copy
from dataclasses import replace
from uuid import UUID

import torch
from phantoms import make_case, tiny_plan
from test_operator import TYPE, Operator

from dafne_dante.federation.operator import merge_pending
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.build import build_network
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources

__all__ = ["SMALL_CASE", "QuickOperator", "untrained_model"]

SMALL_CASE = make_case(5, shape=(16, 16, 16))


def untrained_model():
    """A U-Net with drawn weights, family 7."""
    plan = tiny_plan()
    torch.manual_seed(0)
    weights = dict(build_network(plan).state_dict())
    return GlobalModel(UUID(int=7), 1_700_000_000, plan, weights, stock_metadata(plan), stock_sources(plan))


class QuickOperator(Operator):
    """Tries on one small case, where any Dice is good enough."""

    def __init__(self, root, model=None):
        super().__init__(root, model or untrained_model())
        self.settings = replace(self.settings, dice_margin=1.0)

    def merge(self, depot=None, options=None):
        return merge_pending(depot or self.depot, TYPE, [SMALL_CASE], self.settings, options)

    def moved_to(self, root):
        """The same operator over a copy of its folder."""
        moved = copy.copy(self)
        moved.root, moved.shelf = root, Shelf(root / "server")
        moved.settings = replace(self.settings, folder=root / "operator")
        return moved
