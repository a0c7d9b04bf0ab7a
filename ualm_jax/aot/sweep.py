"""Which mesh, microbatch and remat policy: candidates by formula, the best of them compiled."""

import dataclasses
from collections.abc import Iterator

from ualm_jax.aot.compile import Report, compile_step
from ualm_jax.aot.roofline import memory_bytes, network_bytes, remat_flops, train_roofline
from ualm_jax.aot.topology import Topology
from ualm_jax.errors import UserError
from ualm_jax.models import flops
from ualm_jax.models.config import REMAT_POLICIES
from ualm_jax.parallel.hardware import peak_of
from ualm_jax.parallel.mesh import MeshConfig
from ualm_jax.train.config import RunConfig
from ualm_jax.train.stages.model import Trained, trained_part

_ROWS_PER_DEVICE = (1, 2, 4, 8)


def candidates(config: RunConfig, num_devices: int) -> Iterator[RunConfig]:
    """Every mesh, number of microbatches and remat policy that fits the sizes; the work of a step stays the same."""
    sizes = [size for size in range(1, num_devices + 1) if num_devices % size == 0]
    for tensor in sizes:
        for fsdp in (size for size in sizes if num_devices % (size * tensor) == 0):
            mesh = MeshConfig(num_devices // fsdp // tensor, fsdp, tensor)
            for rows in _ROWS_PER_DEVICE:
                accumulate, rest = divmod(config.data.batch_size, rows * mesh.data * mesh.fsdp)
                if rest or not accumulate:
                    continue
                for remat in REMAT_POLICIES:
                    candidate = dataclasses.replace(
                        config,
                        mesh=mesh,
                        execution=dataclasses.replace(config.execution, remat=remat),
                        train=dataclasses.replace(config.train, grad_accum_steps=accumulate),
                    )
                    try:
                        candidate.check_mesh(*mesh.sizes())
                    except UserError:
                        continue
                    yield candidate


def predicted_seconds(config: RunConfig, topology: Topology, trained: Trained, documents: int) -> float:
    """The serial roofline with all bytes by formula."""
    mesh = dict(zip(("data", "fsdp", "tensor"), config.mesh.sizes(), strict=True))
    work = flops.train_step(config.model, config.data.batch_size, config.data.seq_len, documents)
    return train_roofline(
        work,
        peak_of(topology.devices[0].device_kind),
        devices=len(topology.devices),
        remat_flops=remat_flops(work, config.execution.remat),
        memory_bytes=memory_bytes(config, mesh, trained),
        network_bytes=network_bytes(config, mesh, trained),
    ).serial


def state_bytes(config: RunConfig, trained: Trained) -> float:
    """Parameters, and what the optimiser keeps and the gradients of the trained ones, of one device: the least a step
    needs."""
    width = {"float32": 4, "bfloat16": 2}
    param = width[config.execution.param_dtype]
    gradient = 4 if config.train.grad_accum_steps > 1 else param  # microbatches are added up in float32
    whole = config.model.num_params() * param + trained.state_bytes + trained.params * gradient
    return whole / config.mesh.fsdp / config.mesh.tensor


def sweep(config: RunConfig, topology: Topology, keep: int, documents: int = 1) -> Iterator[Report]:
    """Compiles candidates, the one predicted fastest first, until `keep` of them fit; yields every report."""
    memory = peak_of(topology.devices[0].device_kind).memory
    trained = trained_part(config)  # whatever the mesh
    possible = [one for one in candidates(config, len(topology.devices)) if state_bytes(one, trained) < memory]
    for candidate in sorted(possible, key=lambda one: predicted_seconds(one, topology, trained, documents)):
        report = compile_step(candidate, topology, documents)
        yield report
        keep -= report.problem is None
        if not keep:
            return
