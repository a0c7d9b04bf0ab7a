"""Which devices a process of many has."""

import jax
import pytest

from ualm_jax.parallel import startup


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
    ],
)
@pytest.mark.parametrize("distributed", ["auto", "node:1234,4,1"])
def test_a_task_that_is_alone_on_its_node_has_all_its_cards(environment, expected, distributed, monkeypatch):
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, local_device_ids: seen.update(ids=local_device_ids))
    startup.start(distributed=distributed, keep_programs=False)
    assert seen == {"ids": expected}


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
