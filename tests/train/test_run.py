"""Whole runs of `ualm train`: killed, interrupted, resumed, moved to another mesh, and refused."""

import json
import logging
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from helpers.runs import EIGHT, checkpoint_steps, command, finish, losses, saved, start

from ualm_jax.audio.io import read_audio
from ualm_jax.cli.main import run
from ualm_jax.parallel.mesh import MeshConfig, make_mesh


@pytest.fixture(scope="module")
def killed(dataset, tmp_path_factory):
    """A run killed by SIGKILL some time after a checkpoint, then continued 10 steps past the newest one."""
    workdir = tmp_path_factory.mktemp("killed")
    process = start(*command(dataset, workdir, "--config.train.steps=100000"))
    try:
        deadline = time.monotonic() + 240
        while not checkpoint_steps(workdir):
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
    finally:
        process.kill()
    process.communicate()
    newest = checkpoint_steps(workdir)[-1]
    output = finish(*command(dataset, workdir, f"--config.train.steps={newest + 10}"))
    assert f"resumed from step {newest}" in output
    return workdir, newest + 10


@pytest.fixture(scope="module")
def uninterrupted(dataset, killed, tmp_path_factory):
    """The same steps in one go."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    finish(*command(dataset, workdir, f"--config.train.steps={killed[1]}"))
    return workdir


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(killed, uninterrupted):
    workdir, step = killed
    ours, theirs = saved(workdir, step), saved(uninterrupted, step)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_resumed_run_reads_the_same_data_in_the_same_order(killed, uninterrupted):
    workdir, step = killed
    assert losses(workdir) == losses(uninterrupted)
    first, second = (
        json.loads((path / "checkpoints" / str(step) / "data" / "metadata").read_text())
        for path in (workdir, uninterrupted)
    )
    assert first["sources"] and first == second


def test_only_the_newest_checkpoints_stay(killed):
    assert len(checkpoint_steps(killed[0])) <= 3


def test_a_checkpoint_goes_on_on_another_mesh(dataset, killed, uninterrupted, tmp_path, caplog):
    """To rounding: eight devices add up in another order."""
    workdir, step = killed
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved)
    shutil.rmtree(moved / "checkpoints" / str(step))
    with caplog.at_level(logging.INFO):
        assert run(command(dataset, moved, f"--config.train.steps={step}", *EIGHT)) == 0
    assert f"resumed from step {step - 10}" in caplog.text
    for name, loss in losses(moved).items():
        assert loss == pytest.approx(losses(uninterrupted)[name], rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_saves_and_leaves_cleanly(number, dataset, tmp_path):
    process = start(*command(dataset, tmp_path, "--config.train.steps=100000", "--config.train.save_interval=90000"))
    for line in process.stdout:
        if line.startswith("step 5/"):
            process.send_signal(number)
            break
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 75, output
    assert "saved; the same command goes on from there" in output
    (step,) = checkpoint_steps(tmp_path)
    assert step >= 5
    counts = {int(value) for name, value in saved(tmp_path, step).items() if "count" in name or name == ".step"}
    assert counts == {step}


@pytest.mark.slow  # tests/generate has that for a folder, test_listening_run.py opens a run
def test_the_same_seed_writes_the_same_wav(killed, tmp_path):
    def generate(name, seed):
        arguments = ["--prompt", "sound 3", "--out", tmp_path / name, "--seconds", "0.5", "--seed", seed]
        assert run([str(word) for word in ("generate", "--workdir", killed[0], *arguments)]) == 0
        return (tmp_path / name).read_bytes()

    first = generate("first.wav", 0)
    assert generate("again.wav", 0) == first
    assert generate("other.wav", 1) != first
    assert len(read_audio(tmp_path / "first.wav", sample_rate=16000)) == 8000


def refusal(capsys, *words) -> str:
    """The one sentence of a refused command; no traceback. This process has eight devices."""
    assert run([str(word) for word in words]) == 1
    message = capsys.readouterr().err.strip()
    assert message and "\n" not in message and "Traceback" not in message
    return message


def test_a_metric_that_is_not_finite_stops_with_step_and_records(dataset, tmp_path, capsys, monkeypatch):
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    monkeypatch.setattr("ualm_jax.train.stages.run.make_mesh", lambda config: one)
    message = refusal(capsys, *command(dataset, tmp_path, "--config.optimizer.peak_lr=1e38"))
    assert "update_norm is inf" in message and "fake/clip-" in message and message.startswith("ualm train: Step ")
    assert not checkpoint_steps(tmp_path) or max(checkpoint_steps(tmp_path)) < int(message.split()[3].rstrip(":"))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--config.train.stepz=5"], "stepz"),
        (["--config.train.steps=many"], "steps"),
        (["--config.mesh.data=3"], "does not fit 8 devices"),
        (["--config.execution.remat=some"], "execution.remat must be one of"),
        (["--config.data.directory=nowhere"], "nowhere: no dataset here"),
        (["--config.data.seq_len=16"], "raise data.seq_len"),
        (["--config.model.vocabulary.codebook_size=64"], "codebook_size"),
        (["--config.data.batch_size=6"], "can not be split over mesh"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_sentence(arguments, sentence, dataset, tmp_path, capsys):
    assert sentence in refusal(capsys, *command(dataset, tmp_path / "run", *EIGHT, *arguments))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_checkpoint_of_another_configuration_is_refused(dataset, killed, capsys):
    message = refusal(capsys, *command(dataset, killed[0], "--config.model.decoder.width=64", *EIGHT))
    assert "config.model.decoder.width = 32, but this run has 64" in message


def test_a_config_file_that_is_not_there_names_those_that_are(dataset, tmp_path, capsys):
    message = refusal(capsys, "train", "--config", "configs/none.py", "--workdir", tmp_path)
    assert "configs/tiny.py" in message


def test_generating_without_a_checkpoint_is_one_sentence(tmp_path, capsys):
    message = refusal(capsys, "generate", "--workdir", tmp_path, "--prompt", "x", "--out", tmp_path / "x.wav")
    assert "expected the --workdir of a run" in message


def test_nothing_compiles_after_the_first_evaluation_and_checkpoint(dataset, tmp_path, caplog):
    evaluation = [f"--config.eval.directory={dataset}", "--config.eval.prompts=('Two clicks.',)"]
    evaluation += ["--config.eval.every=4", "--config.eval.seconds=0.2", "--config.eval.batches=2"]
    options = ["--config.train.steps=12", "--config.train.save_interval=4", *EIGHT]
    with caplog.at_level(logging.INFO), jax.log_compiles():
        assert run(command(dataset, tmp_path / "run", *evaluation, *options)) == 0
    messages = [record.getMessage() for record in caplog.records]
    compiled = [message.split(" with ")[0] for message in messages if message.startswith("Compiling ")]
    for name in ("step", "decode"):
        assert sum(f"jit({name})" in message for message in compiled) >= 1, compiled
    second = next(i for i, message in enumerate(messages) if message.startswith("step 5/12"))
    assert not [message for message in messages[second:] if message.startswith("Compiling ")]
    training = [message for message in messages if message.startswith("Compiling jit(step)")]
    assert len(training) == 2, "one program for training and one for evaluation"
