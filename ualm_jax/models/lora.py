"""Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021).

A kernel W of a layer becomes W + alpha / rank x A B. W stays as it is, in 8 bits if wanted; A [inputs, rank] and
B [rank, outputs] are trained. A begins with uniform numbers as a linear layer of PyTorch does, B with zeros, so that
nothing has changed before the first step. The sum is made where a layer uses the kernel: it never exists for more than
one layer.
"""

import dataclasses
import functools
import gc
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from ualm_jax.errors import UserError
from ualm_jax.fields import Natural, Positive, check_fields
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.int8 import INPUTS, int8_kernel
from ualm_jax.models.linear import Int8Kernel
from ualm_jax.models.paths import matches
from ualm_jax.models.ualm import UALM, abstract_model

TRAINED = ("*.lora_a", "*.lora_b")
"""Patterns of what a run with adapters usually trains."""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """rank: 0 for none. targets: patterns of the layers' kernels, of "attention.q_kernel", k_, v_ and o_kernel,
    "mlp.gate", up and down. int8_base: keep those kernels in 8 bits.
    """

    rank: Natural = 0
    alpha: Positive = 16.0
    targets: tuple[str, ...] = ("attention", "mlp")
    int8_base: bool = False

    def __post_init__(self):
        check_fields(self, "lora")
        for target in self.targets:
            if not any(matches(target, f"{part}.{name}") for part, kernels in INPUTS.items() for name in kernels):
                known = ", ".join(f"{part}.{name}" for part, kernels in INPUTS.items() for name in kernels)
                raise UserError(f"lora.targets: {target!r} matches no kernel of a layer; there are {known}.")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def kernels(self) -> list[tuple[str, str, int]]:
        """(part, name, number of axes that its products sum over) of every kernel that has an adapter."""
        return [
            (part, name, len(inputs))
            for part, kernels in INPUTS.items()
            for name, inputs in kernels.items()
            if any(matches(target, f"{part}.{name}") for target in self.targets)
        ]


class LoraKernel(nnx.Module):
    """Stands where a kernel stood, stacked over layers [L, inputs..., outputs...] or of one layer."""

    def __init__(self, base: nnx.Param | Int8Kernel, inputs: int, config: LoraConfig, rngs: nnx.Rngs):
        leaf = (base.values if isinstance(base, Int8Kernel) else base)[...]
        spec, shape = tuple(jax.typeof(leaf).sharding.spec), leaf.shape
        fan_in = math.prod(shape[1 : 1 + inputs])
        into, out = (*shape[: 1 + inputs], config.rank), (shape[0], config.rank, *shape[1 + inputs :])
        dtype = jnp.float32 if isinstance(base, Int8Kernel) else leaf.dtype
        uniform = jax.random.uniform(
            rngs.params(), into, jnp.float32, -1, 1, out_sharding=PartitionSpec(*spec[: 1 + inputs], None)
        )
        self.scale, self.inputs = config.scale, inputs
        self.base = base
        self.lora_a = nnx.Param((uniform / math.sqrt(fan_in)).astype(dtype))
        self.lora_b = nnx.Param(jnp.zeros(out, dtype, out_sharding=PartitionSpec(spec[0], None, *spec[1 + inputs :])))

    def astype(self, dtype) -> Array:
        """The kernel with its adapter; the sum is float32."""
        return self.merged().astype(dtype)

    def merged(self) -> Float[Array, "..."]:
        """The kernel with its adapter, in float32."""
        base = self.base.astype(jnp.float32)
        a, b = self.lora_a[...].astype(jnp.float32), self.lora_b[...].astype(jnp.float32)
        layers = "l" * (a.ndim - 1 - self.inputs)  # no letter inside a scan over layers
        inputs, outputs = "abc"[: self.inputs], "xyz"[: b.ndim - 1 - len(layers)]
        product = jnp.einsum(
            f"{layers}{inputs}r,{layers}r{outputs}->{layers}{inputs}{outputs}",
            a,
            b,
            out_sharding=jax.typeof(base).sharding.spec,
        )
        return base + self.scale * product


def with_lora(model: UALM, config: LoraConfig, rngs: nnx.Rngs) -> UALM:
    """`model` with adapters on the kernels of its layers that the configuration names."""
    layers = model.decoder.layers
    for part, name, inputs in config.kernels():
        module = getattr(layers, part)
        base = getattr(module, name)
        if config.int8_base:
            base = int8_kernel(base[...], INPUTS[part][name])
        setattr(module, name, LoraKernel(base, inputs, config, rngs))
    return model


def adapted_params(
    read: Callable[[], nnx.State], architecture: Architecture, execution: Execution, config: LoraConfig, seed: int
) -> nnx.State:
    """Parameters of a model with fresh adapters, from the parameters of one without; what is not adapted is shared.

    read: returns the latter. If nobody else holds them, no more than one kernel is in memory twice at any time.
    """
    structure, _ = abstract_model(architecture, execution)
    model = nnx.merge(structure, read())
    gc.collect()  # cycles within nnx hold what was read, too
    return nnx.state(with_lora(model, config, nnx.Rngs(seed)), nnx.Param)


def merged_params(
    read: Callable[[nnx.State], nnx.State], architecture: Architecture, execution: Execution, config: LoraConfig
) -> nnx.State:
    """Parameters of a model without adapters, from the parameters of one with them.

    read: returns the latter, given their shapes, dtypes and shardings.
    """

    def make() -> UALM:
        return with_lora(UALM(architecture, execution, nnx.Rngs(0)), config, nnx.Rngs(0))

    structure, abstract = nnx.split(jax.eval_shape(make))
    model = nnx.merge(structure, read(abstract))
    gc.collect()  # cycles within nnx hold what was read, too
    return nnx.state(without_lora(model), nnx.Param)


def without_lora(model: UALM) -> UALM:
    """Changes `model`: its adapters are merged into ordinary kernels, in the dtype of its embedding. No more than one
    kernel is in memory twice at any time. Returns it."""
    dtype = model.embed[...].dtype
    for part, kernels in INPUTS.items():
        module = getattr(model.decoder.layers, part)
        for name in kernels:
            if isinstance(getattr(module, name), LoraKernel):
                setattr(module, name, nnx.Param(_merged(getattr(module, name), dtype)))
    return model


@functools.partial(jax.jit, static_argnames="dtype")
def _merged(kernel: LoraKernel, dtype) -> Float[Array, "L ..."]:
    """Layer by layer: in float32 all of them would take twice what they take then."""
    return jax.lax.map(lambda layer: layer.astype(dtype), kernel)
