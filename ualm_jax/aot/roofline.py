"""The least time a training step can take: what compute, memory and network each need, at their peaks."""

import dataclasses
from collections.abc import Mapping

from ualm_jax.models.flops import StepFlops, layer_params
from ualm_jax.parallel.hardware import Peak
from ualm_jax.train.config import RunConfig
from ualm_jax.train.stages.model import Trained


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds per step that each resource needs at its peak, on the busiest device.

    The step can not be faster than the slowest of them (`bound`, everything overlaps), and is not slower than their
    sum (`serial`, nothing does) but for what does not reach its peak.
    """

    compute: float
    memory: float
    network: float
    useful_flops: float
    peak_flops: float

    @property
    def bound(self) -> float:
        return max(self.compute, self.memory, self.network)

    @property
    def serial(self) -> float:
        return self.compute + self.memory + self.network

    @property
    def limit(self) -> str:
        """Which resource the bound comes from."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))

    def mfu(self, seconds: float) -> float:
        """Useful operations over what the device could do in `seconds`."""
        return self.useful_flops / (seconds * self.peak_flops)


def train_roofline(
    flops: StepFlops,
    peak: Peak,
    *,
    devices: int,
    remat_flops: float,
    memory_bytes: float,
    network_bytes: float,
    host_network_bytes: float = 0.0,
) -> Roofline:
    """flops, remat_flops: of the whole step over all devices, the second what is computed twice.

    memory_bytes: read and written by one device. network_bytes: sent by one device to those of its machine or pod,
    host_network_bytes: to other machines over their own network.
    """
    network = network_bytes / peak.link_bandwidth
    if host_network_bytes:
        network += host_network_bytes / (peak.host_bandwidth or peak.link_bandwidth)
    return Roofline(
        compute=(flops.total + remat_flops) / devices / peak.flops,
        memory=memory_bytes / peak.memory_bandwidth,
        network=network,
        useful_flops=flops.total / devices,
        peak_flops=peak.flops,
    )


def remat_flops(flops: StepFlops, policy: str) -> float:
    """Operations that a remat policy computes a second time; the head's logits are, under every policy.

    What "offload" sends to the host and back is not part of a roofline: it is meant to hide behind the layers.
    """
    again = {
        "none": 0.0,
        "dots": flops.attention,
        "save_attention": flops.layers,
        "full": flops.layers + flops.attention,
        "offload": flops.layers + flops.attention,
    }
    return (again[policy] + flops.heads) / 3


def memory_bytes(config: RunConfig, mesh: Mapping[str, int], trained: Trained) -> float:
    """Bytes that one device reads and writes in a step, by formula; what a fusion keeps on the chip is not counted.

    Per microbatch: the gathered weights, read by the forward and the backward pass (three matrix products a weight,
    one more where it is recomputed) in the compute dtype, and the activations of every position: each product's input
    and output, written once and read twice. Per step: of the trained parameters, these, what the optimiser keeps and
    their float32 gradients, read and written.
    """
    model, execution, decoder = config.model, config.execution, config.model.decoder
    width = {"float32": 4, "bfloat16": 2}
    compute, param = width[execution.compute_dtype], width[execution.param_dtype]
    D, F, N, K, H = (
        decoder.width,
        decoder.mlp_dim,
        decoder.num_heads,
        decoder.num_kv_heads,
        decoder.head_dim,
    )
    head = D * (model.vocabulary.size)
    passes = 3 if execution.remat == "none" else 4
    weights = (layer_params(model) + head) / mesh["tensor"] * compute * passes
    positions = config.data.batch_size * config.data.seq_len / mesh["data"] / mesh["fsdp"]
    split = ((2 * N + 2 * K) * H + 3 * F) / mesh["tensor"]
    activations = positions * decoder.num_layers * (4 * D + split) * compute * passes
    state = 2 * (trained.params * (param + 4) + trained.state_bytes) / mesh["fsdp"] / mesh["tensor"]
    return config.train.grad_accum_steps * weights + activations + state


def network_bytes(config: RunConfig, mesh: Mapping[str, int], trained: Trained) -> float:
    """Bytes that one device sends in a step, by formula: for choosing what to compile, not instead of it.

    fsdp: every weight is gathered for the forward and the backward pass, and the gradients of the trained ones are
    reduced, per microbatch. data: these gradients are reduced in float32. tensor: two sums of activations per layer and
    pass.
    """
    model, execution, decoder = config.model, config.execution, config.model.decoder
    compute = {"float32": 4, "bfloat16": 2}[execution.compute_dtype]
    part = {axis: (size - 1) / size for axis, size in mesh.items()}
    weights = (layer_params(model) + decoder.width * model.vocabulary.size) / mesh["tensor"]
    moved = 2 * weights + min(weights, trained.params / mesh["tensor"])
    gathers = moved * compute * part["fsdp"] * config.train.grad_accum_steps
    gradients = 2 * trained.params / mesh["fsdp"] / mesh["tensor"] * 4 * part["data"]
    positions = config.data.batch_size * config.data.seq_len / mesh["data"] / mesh["fsdp"]
    sums = 4 * decoder.num_layers * positions * decoder.width * compute * 2 * part["tensor"]
    return gathers + gradients + sums
