"""Compiles a run's training step for machines that are not here, and says what it would need and how fast it can be."""

import dataclasses
import re
import time
from typing import Any

import jax

from ualm_jax.aot import hlo
from ualm_jax.aot.roofline import Roofline, memory_bytes, remat_flops, train_roofline
from ualm_jax.aot.topology import Topology
from ualm_jax.models import flops
from ualm_jax.models.config import AUTO_REMAT
from ualm_jax.parallel.hardware import peak_of
from ualm_jax.parallel.mesh import make_mesh
from ualm_jax.train.config import RunConfig
from ualm_jax.train.remat import LEAST_WORK_FIRST, peak_bytes
from ualm_jax.train.stages.model import trained_part
from ualm_jax.train.stages.run import lower_step


@dataclasses.dataclass(frozen=True)
class Report:
    """What one compilation showed. Memory in bytes per device, times in seconds per step.

    problem: the compiler's own words where the step does not fit; then what could not be known is empty.
    roofline: None, too, with products of 8 bits, of whose rates it knows nothing.
    """

    topology: str
    mesh: dict[str, int]
    rows: int
    length: int
    documents: int
    grad_accum_steps: int
    remat: str
    layer_products: str
    params: int
    compile_seconds: float
    problem: str | None
    memory: dict[str, int]
    memory_limit: int | None
    collectives: dict[str, dict[str, float]]
    flops: dict[str, float]
    roofline: Roofline | None

    def to_mapping(self) -> dict[str, Any]:
        """Ready for JSON."""
        mapping = dataclasses.asdict(self)
        if self.roofline is not None:
            mapping["roofline"] |= {
                "bound": self.roofline.bound,
                "serial": self.roofline.serial,
                "limit": self.roofline.limit,
                "mfu_at_bound": self.roofline.mfu(self.roofline.bound),
                "mfu_at_serial": self.roofline.mfu(self.roofline.serial),
            }
        return mapping


def compile_step(config: RunConfig, topology: Topology, documents: int = 1) -> Report:
    """Compiles the step for `topology`. Raises UserError where the mesh does not fit; too little memory is reported.

    documents: of one length, in each row; how many operations the step is counted for follows from that. Remat "auto":
    the first policy that fits, or else the last.
    """
    if config.execution.remat == AUTO_REMAT:
        for policy in LEAST_WORK_FIRST:
            report = compile_step(config.with_remat(policy), topology, documents)
            if report.problem is None:
                break
        return report
    mesh = make_mesh(config.mesh, topology.devices)
    virtual = topology.devices[0].platform == "cpu"  # for which only bytes can be told
    peak = None if virtual else peak_of(topology.devices[0].device_kind)
    work = flops.train_step(config.model, config.data.batch_size, config.data.seq_len, documents)
    report = Report(
        topology=topology.name,
        mesh=dict(mesh.shape),
        rows=config.data.batch_size,
        length=config.data.seq_len,
        documents=documents,
        grad_accum_steps=config.train.grad_accum_steps,
        remat=config.execution.remat,
        layer_products=config.execution.layer_products,
        params=config.model.num_params(),
        compile_seconds=0.0,
        problem=None,
        memory={},
        memory_limit=None if peak is None else int(peak.memory),
        collectives={},
        flops=dataclasses.asdict(work) | {"total": work.total},
        roofline=None,
    )
    with jax.set_mesh(mesh):
        start = time.perf_counter()
        with jax.default_device(topology.devices[0]):  # tokamax asks what its kernels will run on
            lowered = lower_step(config, mesh)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return dataclasses.replace(
                report, problem=_first_sentences(str(error)), compile_seconds=time.perf_counter() - start
            )
        seconds = time.perf_counter() - start
    memory = _memory(compiled, virtual)
    found = hlo.collectives(compiled.as_text(), mesh.size, topology.devices_per_machine)
    problem = None
    if peak is not None and memory["peak"] > peak.memory:
        problem = f"The step needs {memory['peak'] / 2**30:.2f} GiB and a device has {peak.memory / 2**30:.2f} GiB."
    return dataclasses.replace(
        report,
        compile_seconds=seconds,
        problem=problem,
        memory=memory,
        collectives=hlo.by_kind(found),
        roofline=None
        if peak is None or config.execution.layer_products == "fp8"  # of whose rates and bytes it knows nothing
        else train_roofline(
            work,
            peak,
            devices=mesh.size,
            remat_flops=remat_flops(work, config.execution.remat),
            memory_bytes=memory_bytes(config, mesh.shape, trained_part(config)),
            network_bytes=sum(one.sent for one in found if not one.across),
            host_network_bytes=sum(one.sent for one in found if one.across),
        ),
    )


def _memory(compiled: jax.stages.Compiled, virtual: bool) -> dict[str, int]:
    analysis = compiled.memory_analysis()
    return {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
        "on the host": analysis.host_temp_size_in_bytes,
        "peak": peak_bytes(compiled, virtual),
    }


def _first_sentences(message: str) -> str:
    message = " ".join(message.split())
    return re.split(r"(?<=\.) (?=Largest|That was|The largest|Program)|TPU backend error|Extra memory", message)[0][
        :500
    ]
