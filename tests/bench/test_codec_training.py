"""`ualm bench codec --training`: both sides take the same steps before they are timed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.waveform_runs import tiny_codec

from ualm_jax.bench import codec_training, reference_torch_codec
from ualm_jax.bench.codec_training import Ours, measure, repeatable
from ualm_jax.cli import bench as cli
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.mark.parametrize(
    "linear_ends, ratios, judged",
    [
        (True, (20, 16), True),
        pytest.param(False, (64, 5), False, marks=pytest.mark.slow),
    ],
)
def test_both_sides_take_the_same_steps(linear_ends, ratios, judged):
    """Both forms of the ends, both steps, both discriminators, an odd stride, two windows; close."""
    config = tiny_codec()
    discriminators = dataclasses.replace(config.adversarial.discriminators, windows=(64,))
    shape = dict(linear_ends=linear_ends, downsampling_ratios=ratios, upsampling_ratios=ratios[::-1])
    config = repeatable(
        dataclasses.replace(
            config,
            codec=dataclasses.replace(config.codec, **shape),
            loss=dataclasses.replace(config.loss, windows=(128, 32)),
            adversarial=dataclasses.replace(config.adversarial, discriminators=discriminators),
        )
    )
    wav = np.random.default_rng(1).normal(0, 0.1, (3, 1600)).astype(np.float32)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        ours = Ours(config, wav, judged=judged)
        theirs = reference_torch_codec.Training(config, ours.parameters(), wav, judged=judged)
        for _ in range(4):
            np.testing.assert_allclose(ours.step(), theirs.step(), rtol=2e-4)


@pytest.mark.slow  # one form of the ends is stepped beside torch above
def test_every_step_has_its_row_and_a_ratio():
    result = measure(tiny_codec(), rows=2, frames=4, repeats=1, torch=True)
    assert [(row["step"], row["side"]) for row in result.rows] == [
        (step, side) for step in ("with codes", "with discriminators") for side in ("ours", "torch")
    ]
    for ours, theirs in (result.rows[:2], result.rows[2:]):
        assert theirs["ratio"] == pytest.approx(theirs["seconds"]["median"] / ours["seconds"]["median"])
        assert ours["audio_per_second"] * ours["seconds"]["median"] == pytest.approx(2 * 4 * 320 / 16000)
    assert "2 crops of 4 frames (0.08 s)" in result.title


def test_steps_that_differ_are_not_timed(monkeypatch):
    monkeypatch.setattr(reference_torch_codec, "SMALLEST_ALPHA", 1.0)  # theirs are moved after the first step
    with pytest.raises(ValueError, match="do not do the same work"):
        measure(tiny_codec(), rows=2, frames=4, repeats=1, torch=True)


def test_the_config_is_named_and_kept_beside_the_figures(tmp_path, monkeypatch):
    asked = []

    def measured(config, rows, frames, repeats, *, torch):
        asked.append((config, rows, frames, repeats, torch))
        return codec_training.BenchResult("title", (), [])

    monkeypatch.setattr(codec_training, "measure", measured)
    report = tmp_path / "figures.json"
    assert cli.main(["codec", "--training", "--against", "torch", "--seconds", "0.5", "--json", str(report)]) == 0
    assert cli.main(["codec", "--training", "configs/codec_16k.py", "--batch", "3", "--repeats", "2"]) == 0
    (small, *first), (large, *second) = asked
    assert first == [32, 25, 5, True] and small.codec.codebook_size == 128
    assert second == [3, 20, 2, False] and large.codec.codebook_size == 1024
    assert json.loads(report.read_text())["arguments"]["training"]["codec"]["codebook_size"] == 128
    with pytest.raises(UserError, match="one batch at a time"):
        cli.main(["codec", "--training", "--batch", "1", "8"])


def test_what_torch_does_not_compute_is_not_compared():
    config = tiny_codec()
    config = dataclasses.replace(config, codec=dataclasses.replace(config.codec, codebook_dim=3))
    with pytest.raises(UserError, match="--against torch has no factorised codes"):
        measure(config, 2, 8, 1, torch=True)
