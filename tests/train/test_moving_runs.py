"""A run that is saved on some processes goes on on others: real processes, one device each, one mesh."""

import json
import socket

import pytest
from helpers.runs import command, finish, losses, start

HALF, WHOLE = 6, 12


def train(dataset, workdir, steps: int, processes: int) -> list[str]:  # noqa: F811
    """What each process printed."""
    arguments = [f"--config.train.steps={steps}", f"--config.train.save_interval={HALF}"]
    if processes == 1:
        return [finish(*command(dataset, workdir, *arguments))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments += ["--config.mesh.data=1", f"--config.mesh.fsdp={processes}"]
    running = [
        start(*command(dataset, workdir, f"--distributed={address},{processes},{index}", *arguments))
        for index in range(processes)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0] * processes, "\n".join(outputs)
    return outputs


def data_state(workdir, step: int) -> dict:
    """Where the data stood: every source's position, and which conversations wait in which row."""
    return json.loads((workdir / "checkpoints" / str(step) / "data" / "metadata").read_text())


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):  # noqa: F811
    workdir = tmp_path_factory.mktemp("uninterrupted")
    train(dataset, workdir, WHOLE, processes=1)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_the_data_goes_on_without_a_record_lost_or_repeated(before, after, dataset, uninterrupted, tmp_path):  # noqa: F811
    """The bound is zero: position and open rows are those of the run that never moved, at the move and at the end."""
    train(dataset, tmp_path, HALF, before)
    outputs = train(dataset, tmp_path, WHOLE, after)
    assert all(f"resumed from step {HALF}" in output for output in outputs), "\n".join(outputs)
    for step in (HALF, WHOLE):
        assert data_state(tmp_path, step) == data_state(uninterrupted, step)
    # Every step saw the same records with the same weights: two devices only add up in another order.
    ours, theirs = losses(tmp_path), losses(uninterrupted)
    assert sorted(ours) == sorted(theirs) == list(range(1, WHOLE + 1))
    for step, loss in theirs.items():
        assert ours[step] == pytest.approx(loss, rel=1e-4)
