"""Which devices a process of many has."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ualm_jax.errors import UserError
from ualm_jax.parallel import startup
from ualm_jax.parallel.mesh import check_rows_of_processes
from ualm_jax.train import stop, workdir


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2),2"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_TASKS_PER_NODE": "8(x2)"}, []),
        ({"SLURM_TASKS_PER_NODE": "1(x2),1"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "JAX_LOCAL_DEVICE_IDS": "0,1"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, []),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8", "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "CUDA_VISIBLE_DEVICES": "0"}, []),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "CUDA_VISIBLE_DEVICES": "0,1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, None),
    ],
)
@pytest.mark.parametrize("distributed", ["auto", "node:1234,4,1"])
def test_a_task_that_is_alone_on_its_node_has_all_its_cards(environment, expected, distributed, monkeypatch):
    of_slurm = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    for name in (*of_slurm, "OMPI_COMM_WORLD_LOCAL_SIZE", "JAX_LOCAL_DEVICE_IDS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen, asked = {}, []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **how: seen.update(how))
    monkeypatch.setattr(startup.gpu_flags, "take_memory", lambda: asked.append("memory"))
    startup.start(distributed=distributed, keep_programs=False, preemption=True)
    assert seen == {"local_device_ids": expected, "initialization_timeout": 1800} and asked == ["memory"]


def test_processes_compare_what_xla_is_told_but_not_where_it_dumps(monkeypatch):
    compared, flags = [], "--xla_a=1 --xla_dump_to=/tmp/3 --xla_b=true"
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **how: compared.append("joined"))
    monkeypatch.setattr(startup.gpu_flags, "take_memory", lambda: None)
    monkeypatch.setattr(startup.gpu_flags, "architecture", lambda: "hopper")
    monkeypatch.setattr(startup.gpu_flags, "apply", lambda *a: flags)
    monkeypatch.setattr(startup, "check_same", lambda what, value, then: compared.append((what, value)))
    startup.start(distributed="node:1234,4,1", layer_bytes=1, keep_programs=False, preemption=True)
    assert compared == ["joined", ("XLA_FLAGS", "--xla_a=1 --xla_b=true")]


@pytest.mark.parametrize("preemption", [False, True])
def test_sigterm_is_a_notice_only_for_those_who_read_it(preemption, monkeypatch):
    """JAX's service takes SIGTERM away from a process that joins others."""
    before = jax.config.jax_enable_preemption_service
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **how: None)
    monkeypatch.setattr(startup.gpu_flags, "take_memory", lambda: None)
    try:
        startup.start(distributed="node:1234,4,1", keep_programs=False, preemption=preemption)
        assert before and jax.config.jax_enable_preemption_service == preemption
    finally:
        jax.config.update("jax_enable_preemption_service", before)


def test_processes_that_would_fill_the_same_rows_are_refused():
    def devices(*processes):
        return np.array([SimpleNamespace(process_index=process) for process in processes], object)

    check_rows_of_processes(devices(0, 0, 1, 1).reshape(2, 1, 2))
    check_rows_of_processes(devices(0, 1, 2, 3).reshape(2, 2, 1))
    with pytest.raises(UserError, match="mesh.tensor = 2 puts processes 0, 1 on the same rows"):
        check_rows_of_processes(devices(0, 1, 0, 1).reshape(1, 2, 2))


def test_a_notice_before_the_first_step_of_a_resumed_run_stops_it(monkeypatch):
    """JAX agrees on the number after the largest that it was told, which is 1 where it was told of none."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(stop.multihost_utils, "reached_preemption_sync_point", lambda number: number == 1)
    assert stop.Stop(10).requested(5000)


def test_jax_sees_all_cards_where_it_is_told_of_none(monkeypatch):
    """With what SLURM sets, JAX takes one card by itself; the empty list, which is no documented word for all, must
    leave it at all of them."""
    from jax._src import clusters

    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-4]", "SLURM_NTASKS": "4"}
    slurm |= {"SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    assert detect(None, None, None, None, None, 10)[1:] == (4, 2, [0])
    assert detect(None, None, None, [], None, 10)[1:] == (4, 2, [])


def test_a_work_folder_that_a_process_does_not_see_is_refused_by_all(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(workdir, "_SEEN_WITHIN", 0.0)
    monkeypatch.setattr(workdir, "from_all", lambda what, seen: np.array([True, bool(seen), True]))
    with pytest.raises(UserError, match="is another folder for process 1 than for process 0"):
        workdir.check_shared(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    workdir.check_shared(tmp_path)
