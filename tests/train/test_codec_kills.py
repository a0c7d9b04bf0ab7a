"""Ten times SIGKILL, in every phase of a codec's or enhancer's training: the same bits as an uninterrupted run."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest
from helpers.config_files import ROOT

STEPS = 60
LOAD = """
import importlib.util

spec = importlib.util.spec_from_file_location("small", {path!r})
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


def get_config():
    config = small.get_config()
    config.data.update(soundscript=24, workers=1, batch_size=4, frames=8)
    config.loss.windows = (64,)
    config.adversarial.begin = 40
    config.adversarial.discriminators.update(periods=(2,), windows=(64,), width=2)
    config.train.update(steps={steps}, log_every=1, save_interval=3)
    config.eval.every = {steps}
"""
CODEC = """
    config.codec.update(num_codebooks=2, codebook_size=8, encoder_hidden_size=2, hidden_size=7, decoder_hidden_size=8)
    config.codec.update(downsampling_ratios=(40, 8), upsampling_ratios=(8, 40))
    config.quantizer.update(begin=20, kmeans_frames=128, kmeans_rounds=2)
    return config
"""
ENHANCER = """
    config.enhancer.update(frame=16, width=8, mlp_dim=8, encoder_blocks=1, decoder_blocks=1, kernel_size=3)
    config.enhancer.update(latent_width=4, noise_bands=5)
    config.pairs.update(equaliser_share=0.5, noise_share=0.5)
    config.data.soundscript = 4
    return config
"""
KINDS = {"codec": ("codec_small", CODEC, "codec"), "enhance": ("enhance_small", ENHANCER, "enhancer")}


def start(folder: pathlib.Path, kind: str) -> subprocess.Popen:
    name, changes, _ = KINDS[kind]
    loaded = LOAD.format(path=str(ROOT / "configs" / f"{name}.py"), steps=STEPS)
    (folder / "config.py").write_text(loaded + changes.lstrip("\n"))
    command = [kind, "train", "--config", str(folder / "config.py"), "--workdir", str(folder / "run")]
    return subprocess.Popen(
        [sys.executable, "-m", "ualm_jax.cli.main", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )


def finish(folder: pathlib.Path, kind: str) -> None:
    process = start(folder, kind)
    output, _ = process.communicate()
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_ten_times_ends_as_the_uninterrupted_one(tmp_path, kind):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    finish(whole, kind)
    chance = random.Random(0)
    for number in range(10):  # one before the first step, the others on the way through all phases
        process = start(killed, kind)
        for line in process.stdout:
            if number == 0 or (line.startswith("step ") and int(line.split()[1].split("/")[0]) >= 6 * number):
                break
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
    finish(killed, kind)
    model = f"run/{KINDS[kind][2]}/model.safetensors"
    assert (killed / model).read_bytes() == (whole / model).read_bytes()
    assert rows(killed) == rows(whole)


def rows(folder: pathlib.Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]
