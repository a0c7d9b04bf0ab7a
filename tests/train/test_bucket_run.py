"""A run whose work folder is in a bucket is the run that it is on this machine, for whoever trains and reads."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import run_config
from helpers.runs import assert_same_state, command, finish, in_two_processes, kill_and_finish

import ualm_jax
from ualm_jax.buckets import objects, open_folder
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.train.config import RunConfig
from ualm_jax.train.metrics import read_metrics
from ualm_jax.train.stages.run import train
from ualm_jax.weights.fingerprints import fingerprints, model_fingerprint, parts_of
from ualm_jax.weights.opener import open_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fused_programs", "as_many_devices_as_the_mesh_has")]


def config_of(dataset, steps: int = 6) -> RunConfig:
    values = run_config.get_config()
    values.data.directory = str(dataset)
    values.train.update(steps=steps, save_interval=2, max_to_keep=2)
    return from_mapping(RunConfig, values.to_dict())


@pytest.fixture(scope="module")
def both(bucket, dataset, tmp_path_factory):
    """The same run here, and in a bucket, where it was stopped at step 3 and went on."""
    here, there = tmp_path_factory.mktemp("runs") / "run", bucket / "runs" / "one"
    train(config_of(dataset), here)
    train(config_of(dataset, 3), there)
    train(config_of(dataset), there)
    return here, there


def test_it_has_the_same_state_the_same_files_and_the_same_metrics(both):
    here, there = both
    files = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    shown = {name for name in files if not name.startswith(("checkpoints", "lock", "tensorboard"))}
    assert shown < set(objects(there)) and "lock" not in objects(there)
    assert {name.split("/")[1] for name in objects(there) if name.startswith("checkpoints")} == {"4", "6"}
    assert_same_state(here, there, 6)
    series = {"loss", "grad_norm", "learning_rate", "fill"}
    ours, theirs = ([{key: row[key] for key in series} for row in read_metrics(run / "metrics.jsonl")] for run in both)
    assert ours == theirs and len(ours) == 6
    assert sum(name.startswith("tensorboard") for name in objects(there)) > 1


def test_it_loads_as_the_run_here_does(both, tmp_path):
    ours, theirs = (ualm_jax.load(run) for run in both)
    assert theirs.step == 6 and model_fingerprint(theirs.model) == model_fingerprint(ours.model)
    assert fingerprints(parts_of(both[1])) == fingerprints(parts_of(both[0]))
    assert theirs.tokenizer.size == ours.tokenizer.size and theirs.codec is not None
    finish("convert", "export", "ours", str(both[1]), "--out", str(tmp_path / "slim"), "--step", "4")
    stored = open_weights(tmp_path / "slim").arrays()
    assert np.array_equal(stored.read("embed"), open_weights(both[0], step=4).arrays().read("embed"))


def test_another_run_begins_with_it(both, dataset, tmp_path):
    config = config_of(dataset, 1)
    begun = [dataclasses.replace(config, train=dataclasses.replace(config.train, init_from=str(run))) for run in both]
    for one, name in zip(begun, ("here", "there"), strict=True):
        train(one, tmp_path / name)
    assert_same_state(tmp_path / "here", tmp_path / "there", 1)


def test_damage_is_found_and_the_step_before_is_named(bucket, dataset):
    there = bucket / "runs" / "damaged"
    train(config_of(dataset), there)
    sizes = {
        name: len((there / name).read_bytes()) for name in objects(there) if name.startswith("checkpoints/6/state")
    }
    largest = there / max(sizes, key=sizes.get)
    largest.write_bytes(largest.read_bytes()[:-16] + b"0123456789abcdef")
    for read in (lambda: ualm_jax.load(there), lambda: train(config_of(dataset, 8), there)):
        with pytest.raises(UserError, match="checkpoints/6 is damaged, state/.*MD5.*; the newest whole one is 4"):
            read()
    assert "lock" not in objects(there) and json.loads((there / "config.json").read_text())["train"]["steps"] == 6


def test_two_processes_write_one_run(bucket, dataset, tmp_path):
    for folder in (tmp_path / "two", bucket / "runs" / "two"):
        for steps in (4, 6):  # and go on with it
            words = [f"--config.train.steps={steps}", "--config.train.save_interval=4", "--config.mesh.fsdp=2"]
            outputs = in_two_processes(*command(dataset, folder, *words))
        assert all("resumed from step 4" in output for output in outputs), "\n".join(outputs)
    # Read array by array: as one state it could only be restored on two devices again.
    ours, theirs = (open_weights(run).arrays() for run in (tmp_path / "two", bucket / "runs" / "two"))
    for name in ("embed", "decoder.norm", "decoder.layers.mlp.down", "audio_head"):
        np.testing.assert_array_equal(ours.read(name), theirs.read(name))
    rows = [read_metrics(run / "metrics.jsonl") for run in (tmp_path / "two", bucket / "runs" / "two")]
    assert [row["step"] for row in rows[1]] == list(range(1, 7))
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


def test_a_run_that_is_killed_goes_on_bit_for_bit(both, dataset, tmp_path):
    words = command(dataset, "gs://bucket/runs/killed", "--config.train.steps=6", "--config.train.save_interval=2")
    del words[words.index("--workdir") : words.index("--workdir") + 2]
    output = kill_and_finish([*words, "--config.train.max_to_keep=2"], "gs://bucket/runs/killed", 1, 6)
    assert "watching it for 60 s" in output
    rows = read_metrics(open_folder("gs://bucket/runs/killed") / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 7))
    finish(*words, "--config.train.max_to_keep=2", "--workdir", str(tmp_path / "whole"))
    assert_same_state(tmp_path / "whole", open_folder("gs://bucket/runs/killed"), 6)
