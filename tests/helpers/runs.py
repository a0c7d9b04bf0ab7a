"""Runs of `ualm train` in processes of their own, and what they leave."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

CONFIG = pathlib.Path(__file__).with_name("run_config.py")

EIGHT = ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"]


def command(dataset, workdir, *arguments) -> list[str]:
    words = ["train", "--config", CONFIG, "--workdir", workdir, f"--config.data.directory={dataset}", *arguments]
    return [str(word) for word in words]


def start(*words) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ualm_jax.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )


def finish(*words) -> str:
    process = start(*words)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def free_address() -> str:
    """Where a process of this machine can listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def in_two_processes(*words) -> list[str]:
    """What both say of a run that they make together."""
    address = free_address()
    processes = [start(*words, f"--distributed={address},2,{i}") for i in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return outputs


def checkpoint_steps(workdir) -> list[int]:
    names = os.listdir(workdir / "checkpoints") if (workdir / "checkpoints").exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def saved(workdir, step) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by path."""
    with ocp.CheckpointManager(workdir / "checkpoints", item_names=("state",)) as manager:
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def stopped_at(step: int, whole, workdir) -> None:
    """A copy of the run `whole` as it would lie there had it been killed before it saved again after `step`."""
    shutil.copytree(whole, workdir)
    for later in checkpoint_steps(workdir):
        if later > step:
            shutil.rmtree(workdir / "checkpoints" / str(later))
    assert checkpoint_steps(workdir)[-1] == step


def losses(workdir) -> dict[int, float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows}


def kill_and_finish(words: list[str], workdir, number: int, steps: int, wait: float = 0.3) -> str:
    """A run that is killed at a moment of its own, and its continuation; returns what that says.

    Number 0 dies before its first step, the others up to `wait` seconds after a step.
    """
    chance = random.Random(number)
    process, after = start(*words, "--workdir", str(workdir)), chance.randrange(1, steps * 3 // 4) if number else None
    for line in process.stdout:
        if line.startswith(f"step {after}/") or (after is None and "parameters on" in line):
            break
    time.sleep(chance.uniform(0, wait))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return finish(*words, "--workdir", str(workdir))


def assert_same_state(workdir, other, step) -> None:
    ours, theirs = saved(workdir, step), saved(other, step)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
