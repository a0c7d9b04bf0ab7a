"""What must happen before JAX touches a device."""

import jax


def start(*, distributed: bool = False, cpu_devices: int | None = None) -> None:
    """Joins the other processes of a run, or splits this CPU into virtual devices.

    distributed: find the coordinator from SLURM, Kubernetes or TPU metadata, or from JAX_COORDINATOR_ADDRESS,
        JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    if cpu_devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    if distributed:
        jax.distributed.initialize()
