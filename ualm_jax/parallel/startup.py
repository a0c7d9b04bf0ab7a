"""What must happen before JAX touches a device."""

import logging
import os

import jax

from ualm_jax.errors import UserError
from ualm_jax.parallel import gpu_flags

log = logging.getLogger(__name__)


def start(*, distributed: str | None = None, cpu_devices: int | None = None, layer_bytes: int | None = None) -> None:
    """Joins the other processes of a run, or splits this CPU into virtual devices.

    distributed: "auto" to find the others through SLURM, Kubernetes or TPU metadata, or "HOST:PORT,COUNT,INDEX": where
        process 0 listens, how many there are, and which one this is.
    layer_bytes: weights of one layer of the model to train, for the settings of NVIDIA cards; see `gpu_flags`.
    """
    if cpu_devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", cpu_devices)
        share_threads()
    elif layer_bytes is not None and (architecture := gpu_flags.architecture()) is not None:
        log.info("XLA_FLAGS: %s", gpu_flags.apply(architecture, layer_bytes))
    if distributed == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise UserError(
                f"--distributed finds no other processes here ({error}); give it HOST:PORT,COUNT,INDEX."
            ) from error
    elif distributed is not None:
        match distributed.split(","):
            case [address, count, index] if count.isdigit() and index.isdigit() and int(index) < int(count):
                jax.distributed.initialize(address, int(count), int(index))
            case _:
                raise UserError(f"--distributed must be HOST:PORT,COUNT,INDEX with INDEX < COUNT, got {distributed}.")


def share_threads() -> None:
    """Keeps virtual CPU devices from waiting for each other's threads until XLA gives up and aborts the process.

    They share one pool of threads. A device that waits in a collective holds its thread; another's program, or the
    pieces of an operation that is spread over the pool, may then find none to run on.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    flags = "--xla_cpu_multi_thread_eigen=false --xla_cpu_collective_call_terminate_timeout_seconds=600"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()
