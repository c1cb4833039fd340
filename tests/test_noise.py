"""Clipping and noise on an update before it leaves."""

import json
from dataclasses import replace

import pytest
import torch
from deltas import KEY, make_base, make_facts, make_updates

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.describe import describe_delta
from dafne_dante.delta.difference import apply_updates, update_norm
from dafne_dante.delta.encode import encode_delta
from dafne_dante.delta.envelope import read_envelope
from dafne_dante.delta.manifest import canonical_json, parse_manifest
from dafne_dante.delta.noise import Noise, clipped_and_noised
from dafne_dante.errors import DeltaFormatError, SettingsError
from dafne_dante.models.file import read_model
from dafne_dante.plugin.apply import apply_delta_file
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve

BASE = make_base()


def test_none_changes_nothing():
    updates = make_updates()
    assert clipped_and_noised(updates, BASE, None) == updates


def test_clipping_keeps_form_and_direction():
    updates = make_updates()
    long = update_norm(updates, BASE)
    short = clipped_and_noised(updates, BASE, Noise(long / 4))
    assert update_norm(short, BASE) == pytest.approx(long / 4, rel=1e-5)
    moved, moved_less = apply_updates(BASE, updates), apply_updates(BASE, short)
    for name, tensor in BASE.items():
        if tensor.is_floating_point():
            torch.testing.assert_close((moved[name] - tensor) / 4, moved_less[name] - tensor, rtol=1e-4, atol=1e-6)
    assert [type(update.value) for update in short] == [type(update.value) for update in updates]
    assert clipped_and_noised(updates, BASE, Noise(long * 2)) == updates


def test_noise_is_as_wide_as_it_is_said_to_be_and_on_every_number():
    updates, noise = make_updates(), Noise(0.5, 3.0)
    clipped = apply_updates(BASE, clipped_and_noised(updates, BASE, replace(noise, multiplier=0.0)))
    drawn = []
    for seed in range(200):
        noised = clipped_and_noised(updates, BASE, noise, seed=seed)
        moved = apply_updates(BASE, noised)
        drawn.append(torch.cat([(moved[one.weight] - clipped[one.weight]).flatten() for one in noised]))
    numbers = torch.stack(drawn)
    assert numbers.std(0).min() > 1.2, "each number has its own noise"
    assert float(numbers.std()) == pytest.approx(1.5, rel=0.02)
    assert abs(float(numbers.mean())) < 0.02


def test_two_updates_have_different_noise():
    one, other = (clipped_and_noised(make_updates(), BASE, Noise(1.0, 1.0)) for _ in range(2))
    assert not torch.equal(one[0].value, other[0].value)


def test_an_update_that_is_zero_can_be_clipped():
    zero = [replace(make_updates()[0], value=torch.zeros(6))]
    assert torch.equal(clipped_and_noised(zero, BASE, Noise(1.0))[0].value, torch.zeros(6))


@pytest.mark.parametrize(("norm", "multiplier"), [(0.0, 0.0), (-1.0, 0.0), (1.0, -1.0), (float("nan"), 0.0)])
def test_values_out_of_range(norm, multiplier):
    with pytest.raises(SettingsError):
        Noise(norm, multiplier)


def test_the_manifest_says_so():
    noise = Noise(0.5, 3.0)
    content = encode_delta(clipped_and_noised(make_updates(), BASE, noise), make_facts(noise=noise), KEY)
    assert decode_delta(content, base=BASE, trusted_keys=None).manifest.noise == {"clip_norm": 0.5, "multiplier": 3.0}
    described = describe_delta(content)
    assert described["noise"] == {"clip_norm": 0.5, "multiplier": 3.0}
    assert "noise of 3 times that" in described["statement"]
    plain = encode_delta(make_updates(), make_facts(), KEY)
    assert "noise" not in json.loads(canonical_json(read_envelope(plain).manifest))
    assert describe_delta(plain)["noise"] is None


@pytest.mark.parametrize(
    "noise", [None, {}, {"clip_norm": 1.0}, {"clip_norm": 0.0, "multiplier": 1.0}, {"clip_norm": 1, "multiplier": 1.0}]
)
def test_a_strangers_noise_is_checked(noise):
    manifest = read_envelope(encode_delta(make_updates(), make_facts(noise=Noise(1.0)), KEY)).manifest
    document = json.loads(canonical_json(manifest)) | {"noise": noise}
    content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(DeltaFormatError, match="noise"):
        parse_manifest(content)


def test_an_improvement_leaves_with_noise_and_stays_without(tmp_path, trained):
    request = ImprovementRequest(
        CaseRequest((trained / "new",)), tmp_path / "out", base=trained / "base.model", method="head", epochs=1
    )
    summary = improve(request, Settings(folder=tmp_path / "site", clip_norm=0.05, noise_multiplier=0.02))
    sent = read_envelope((tmp_path / "out" / "update.delta").read_bytes()).manifest
    assert sent.noise == {"clip_norm": 0.05, "multiplier": 0.02}
    assert sent.dice_after["mean"] == pytest.approx(summary.dice_after["mean"], abs=1e-4)
    base, improved = (
        read_model(path).weights for path in (trained / "base.model", tmp_path / "out" / "improved.model")
    )
    sent_model, _ = apply_delta_file(trained / "base.model", tmp_path / "out" / "update.delta")
    moved = [name for name, tensor in base.items() if not torch.equal(tensor, sent_model.weights[name])]
    assert moved, "the update is not nothing"
    assert any(not torch.equal(improved[name], sent_model.weights[name]) for name in moved)


def test_settings(tmp_path):
    write_settings(Settings(folder=tmp_path, clip_norm=0.5, noise_multiplier=2.0))
    found = load_settings(tmp_path)
    assert (found.clip_norm, found.noise_multiplier) == (0.5, 2.0)
    (tmp_path / "settings.toml").write_text("[federation]\nnoise_multiplier = 1.0\n")
    with pytest.raises(SettingsError, match="needs a clip_norm"):
        load_settings(tmp_path)
