"""What must happen before anything is computed."""

import logging
import os
import re

import jax

from ualm_jax.errors import UserError
from ualm_jax.parallel import compilation_cache, gpu_flags
from ualm_jax.parallel.processes import LONGEST, check_same

log = logging.getLogger(__name__)


def start(
    *,
    distributed: str | None = None,
    cpu_devices: int | None = None,
    layer_bytes: int | None = None,
    keep_programs: bool = True,
    preemption: bool = False,
) -> None:
    """Joins the other processes of a run, or splits this CPU into virtual devices; keeps compiled programs.

    distributed: "auto" to find the others through SLURM, Kubernetes or TPU metadata, or "HOST:PORT,COUNT,INDEX": where
        process 0 listens, how many there are, and which one this is.
    layer_bytes: weights of one layer of the model to train, for the settings of NVIDIA cards; see `gpu_flags`.
    preemption: of many processes, SIGTERM is no end but a notice, which `train.stop.Stop` reads.
    keep_programs: and use those that were kept, see `compilation_cache`; not where compiling is to be timed.
    """
    flags = ""
    if cpu_devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", cpu_devices)
        share_threads(cpu_devices)
    else:
        gpu_flags.take_memory()
        if layer_bytes is not None and (architecture := gpu_flags.architecture()) is not None:
            flags = gpu_flags.apply(architecture, layer_bytes)
            log.info("XLA_FLAGS: %s", flags)
    if distributed is not None:
        log.info("waiting for the other processes, for half an hour at most (--distributed %s)", distributed)
        if not preemption:
            jax.config.update("jax_enable_preemption_service", False)
    how = dict(local_device_ids=_devices_of_a_task(), initialization_timeout=round(LONGEST))
    if distributed == "auto":
        try:
            jax.distributed.initialize(**how)
        except ValueError as error:
            raise UserError(
                f"--distributed finds no other processes here ({error}); give it HOST:PORT,COUNT,INDEX."
            ) from error
    elif distributed is not None:
        match distributed.split(","):
            case [address, count, index] if count.isdigit() and index.isdigit() and int(index) < int(count):
                jax.distributed.initialize(address, int(count), int(index), **how)
            case _:
                raise UserError(f"--distributed must be HOST:PORT,COUNT,INDEX with INDEX < COUNT, got {distributed}.")
    # Each has asked its own jaxlib, and from different flags XLA makes programs that wait for each other for ever.
    compiled = " ".join(word for word in flags.split() if not word.startswith("--xla_dump"))
    check_same("XLA_FLAGS", compiled, "set XLA_FLAGS to the same in all, with one version of jax")
    if keep_programs:
        compilation_cache.keep_programs()


def _devices_of_a_task() -> list[int] | None:
    """JAX gives a task of SLURM or Open MPI one card, that of its number on the node. One that is alone on its node, or
    sees one card alone, has all that it sees, for which [] stands; None leaves it to JAX, and to JAX_LOCAL_DEVICE_IDS.
    """
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    # Tasks of Open MPI inherit what SLURM says of the one that started them.
    of_mpi = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")
    of_slurm = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE")
    alone = re.fullmatch(r"1(\(x\d+\))?(,1(\(x\d+\))?)*", of_mpi or of_slurm or "") is not None
    sees_one = re.fullmatch(r"[^,]+", os.environ.get("CUDA_VISIBLE_DEVICES", "")) is not None
    return [] if alone or ((of_mpi or of_slurm) and sees_one) else None


def share_threads(devices: int) -> None:
    """Keeps virtual CPU devices from waiting for each other's threads until XLA gives up and aborts the process.

    They share one pool of as many threads as there are devices. A collective holds its thread until all devices have
    come to it; where some are in one collective and some in another that needs no order, all threads are held and none
    is left to end either. So the pool is made larger, eight threads a device, and operations do not spread over it.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    os.environ["PJRT_NPROC"] = str(8 * devices)
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=false {os.environ.get('XLA_FLAGS', '')}".strip()
