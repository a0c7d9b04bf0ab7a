"""Two processes train as one, and what they save one process can read."""

import socket

import pytest
from helpers.runs import checkpoint_steps, command, losses, start


@pytest.mark.slow
def test_two_processes_train_one_model(dataset, tmp_path):  # noqa: F811
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    workdir = tmp_path / "two"
    arguments = ["--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.train.steps=12"]
    processes = [start(*command(dataset, workdir, f"--distributed={address},2,{i}", *arguments)) for i in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert checkpoint_steps(workdir) == [10, 12]
    series = losses(workdir)
    assert sorted(series) == list(range(1, 13)) and series[12] < series[1]
    # The same command again finds the run finished and reads what both have written.
    processes = [start(*command(dataset, workdir, f"--distributed={address},2,{i}", *arguments)) for i in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert all("resumed from step 12" in output for output in outputs), "\n".join(outputs)
