"""`execution.remat = "auto"`: the policy that computes least a second time, of those whose step fits the device."""

import logging
from collections.abc import Callable

import jax
import numpy as np

from ualm_jax.errors import UserError
from ualm_jax.parallel.processes import from_all

log = logging.getLogger(__name__)

LEAST_WORK_FIRST = ("none", "dots", "save_attention", "full")
"""What "auto" chooses from; "offload" depends on how fast the host is, and must be asked for."""

_USABLE = 0.95  # of a device's memory: the rest is for evaluation and for gaps between arrays
_GIB = 2**30


def policy_that_fits(lower: Callable[[str], jax.stages.Lowered]) -> str:
    """The first policy whose compiled step fits every process's devices.

    lower: the training step with a policy. Devices that do not tell their memory, such as a CPU, need none. Raises
    UserError where no policy fits.
    """
    memory = _memory()
    if memory is None:
        return LEAST_WORK_FIRST[0]
    needs = []
    for policy in LEAST_WORK_FIRST:
        need = _bytes_of(lower(policy))
        if need is not None and need <= _USABLE * memory:
            room = f"{need / _GIB:.1f} of {memory / _GIB:.1f} GiB"
            log.info("execution.remat = auto: %s (%s%s)", policy, room, "".join(f"; {other}" for other in needs))
            return policy
        needs.append(f"{policy} {'does not fit' if need is None else f'needs {need / _GIB:.1f} GiB'}")
    raise UserError(
        f"A training step needs more memory than the {memory / _GIB:.1f} GiB of a device, whatever execution.remat is "
        f"({'; '.join(needs)}): make data.batch_size smaller, train.grad_accum_steps or mesh.fsdp larger, or "
        "execution.param_dtype and optimizer.state_dtype bfloat16."
    )


def peak_bytes(compiled: jax.stages.Compiled, cpu: bool) -> int:
    """Most bytes of a device while it runs, by the compiler; that of the CPU does not count temporaries itself."""
    found = compiled.memory_analysis()
    if not cpu:
        return found.peak_memory_in_bytes
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + results + found.temp_size_in_bytes


def _bytes_of(lowered: jax.stages.Lowered) -> int | None:
    """None where the compiler itself finds that it does not fit."""
    try:
        return peak_bytes(lowered.compile(), jax.default_backend() == "cpu")
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _memory() -> int | None:
    """Bytes that JAX may use of the smallest device of the run; None where that is not known."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    least = int(np.min(from_all("compare the memory of their devices", np.int64(min(limits)))))
    return least or None
