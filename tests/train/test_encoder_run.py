"""Runs that train their audio encoder: which then lies in every checkpoint as a folder like the one it began with."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.runs import losses, saved, stopped_at
from safetensors import safe_open

import ualm_jax
from ualm_jax.cli.main import run
from ualm_jax.configs import tiny
from ualm_jax.convert_weights.ours import export_ours
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.train.config import RunConfig
from ualm_jax.weights.audio_tower import load_encoder
from ualm_jax.weights.fingerprints import fingerprints, parts_of
from ualm_jax.weights.opener import open_weights

# A restored state that is laid out in another way than a fresh one could not be donated.
pytestmark = [
    pytest.mark.filterwarnings("error:Some donated buffers were not usable"),
    pytest.mark.usefixtures("as_many_devices_as_the_mesh_has"),
]

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "random_encoder.py"


def train(folder, name, *arguments) -> list[str]:
    words = (
        f"train --config {pathlib.Path(__file__).parents[1] / 'helpers' / 'run_config.py'} --workdir {folder / name} "
    )
    words += f"--config.data.directory={folder / 'data'} --config.data.audio_slots=4 --config.data.seq_len=256 "
    words += "--config.model.feature_width=16 --config.model.vocabulary.codebook_size=64 --config.train.log_every=1 "
    return [*words.split(), *arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`whole` trained an encoder for four steps, `resumed` was stopped after two and went on, both beside the adapter
    alone; `after` began with `whole` and kept its encoder as it was."""
    folder = tmp_path_factory.mktemp("encoder")
    sizes = "--layers 1 --width 16 --heads 2 --mlp-dim 32 --max-seconds 2"
    subprocess.run([sys.executable, TOOL, "--out", folder / "encoder", *sizes.split()], check=True)
    prepare = "data prepare --source soundscript --count 12 --max-seconds 1.5 --task audio_to_caption --out"
    assert run([*prepare.split(), str(folder / "data")]) == 0
    own = [f"--config.train.encoder={folder / 'encoder'}", "--config.train.trainable=('encoder', 'adapter')"]
    rate = ["--config.optimizer.warmup_steps=0", "--config.optimizer.peak_lr=0.01"]
    steps = ["--config.train.steps=4", "--config.train.save_interval=2"]
    for name in ("whole", "resumed"):
        if name == "resumed":
            stopped_at(2, folder / "whole", folder / name)
        assert run(train(folder, name, *own, *rate, *steps)) == 0
    whole = folder / "whole"
    frozen = [f"--config.train.init_from={whole}", f"--config.train.encoder={whole}", "--config.train.steps=2"]
    assert run(train(folder, "after", *frozen)) == 0
    return folder


def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(folder):
    whole, resumed = (saved(folder / name, 4) for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


def test_the_encoder_learns_and_the_rest_stays_as_it_was(folder):
    first, last = (saved(folder / "resumed", step) for step in (2, 4))
    changed = {name for name in first if name.startswith("['params']") and (first[name] != last[name]).any()}
    assert changed and all(name.startswith(("['params']['encoder']", "['params']['adapter']")) for name in changed)
    kernels = {name for name in first if name.startswith("['params']['encoder']") and "kernel" in name}
    assert kernels <= changed and any("conv1" in name for name in kernels)
    found = losses(folder / "whole")
    assert found[4] < found[1]


def test_what_was_trained_is_a_folder_of_its_own_that_everything_opens(folder):
    """The state of the run and the folder beside it are the same arrays; the encoder of the start is another."""
    arrays = saved(folder / "whole", 4)
    trained = load_encoder(folder / "whole" / "checkpoints" / "4" / "encoder")
    kernel = arrays["['params']['encoder']['layers']['up']['kernel']['value']"]
    np.testing.assert_array_equal(trained.layers.up.kernel[...], kernel)
    assert (np.asarray(load_encoder(folder / "encoder").layers.up.kernel[...]) != kernel).any()
    assert trained.front_end.max_seconds == 2.0 and trained.config.compute_dtype == "float32"
    opened = ualm_jax.load(folder / "whole")
    np.testing.assert_array_equal(opened.encoder.layers.up.kernel[...], kernel)
    assert np.isfinite(open_weights(folder / "whole").arrays().read("adapter.kernel")).all()
    answer = opened.ask(np.zeros(16000, np.float32), "What is it?", max_tokens=3, temperature=0.0)
    assert isinstance(answer, str)


def test_what_is_given_to_others_has_it_in_as_few_bits_as_the_rest(folder):
    out = folder / "given"
    export_ours(open_weights(folder / "whole"), out, dtype="bfloat16")
    assert {path.name for path in (out / "encoder").iterdir()} == {"config.json", "settings.json", "model.safetensors"}
    with safe_open(out / "encoder" / "model.safetensors", framework="numpy") as stored:
        assert {stored.get_tensor(name).dtype.name for name in stored.keys()} == {"bfloat16"}  # noqa: SIM118
    trained = load_encoder(folder / "whole" / "checkpoints" / "4" / "encoder").layers.up.kernel[...]
    np.testing.assert_array_equal(
        ualm_jax.load(out).encoder.layers.up.kernel[...], np.asarray(trained).astype(jnp.bfloat16).astype(np.float32)
    )


def test_a_later_run_keeps_it_frozen_and_takes_no_other(folder, capsys):
    kept = {"encoder": folder / "after" / "encoder"}
    assert fingerprints(kept)["encoder"] == fingerprints({"encoder": parts_of(folder / "whole")["encoder"]})["encoder"]
    assert not (folder / "after" / "checkpoints" / "2" / "encoder").exists()
    other = [f"--config.train.init_from={folder / 'whole'}", f"--config.train.encoder={folder / 'encoder'}"]
    assert run(train(folder, "other", *other)) == 1
    assert "are different encoders" in capsys.readouterr().err


def test_an_encoder_that_is_not_there_can_not_be_trained():
    config = tiny.get_config()
    config.data.directory, config.train.trainable = "data", ("*", "encoder")
    with pytest.raises(UserError, match="names an encoder, but train.encoder is None"):
        from_mapping(RunConfig, config.to_dict())
