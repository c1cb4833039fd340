"""What this site keeps for itself runs in stock Dafne."""

import numpy as np
import pytest
from test_stock_models import as_data, head, load_in_stock

from dafne_dante.config import Settings
from dafne_dante.models.file import read_model
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve
from dafne_dante.plugin.local.carrying import Newer, carry_over
from dafne_dante.plugin.local.using import local_model

pytestmark = pytest.mark.filterwarnings("ignore")


def segments(path, labels):
    stock = load_in_stock(path.read_bytes())
    shape = (24, 24, 16)[: stock.get_data_dimensionality()]
    masks = stock.apply(as_data(head(shape), with_affine=len(shape) == 3))
    assert list(masks) == list(labels)
    assert all(np.shape(mask) == shape for mask in masks.values())


def test_stock_runs_the_improved_and_the_carried_model(tmp_path, trained):
    settings = Settings(folder=tmp_path / "configuration")
    request = ImprovementRequest(
        CaseRequest((trained / "new",)), tmp_path / "out", trained / "base.model", "Brain", "lora", 6
    )
    improve(request, settings)
    base = read_model(trained / "base.model")
    segments(local_model(settings, "Brain").file, base.plan.labels)
    state = carry_over(Newer(base, str(base.timestamp + 1)), "Brain", settings, request.data)
    assert state.current.number == 2 or state.current.model == state.versions[0].model
    segments(local_model(settings, "Brain").file, base.plan.labels)
