"""The device mesh: axes data, fsdp and tensor always exist, so a laptop and a pod run one code path."""

import dataclasses
import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from ualm_jax.errors import UserError
from ualm_jax.fields import check_fields
from ualm_jax.parallel.sharding import MESH_AXES


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be -1 and takes what the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        check_fields(self, "mesh")
        sizes = self.sizes()
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(
                f"mesh.data, mesh.fsdp and mesh.tensor must be positive, one of them may be -1, got {sizes}."
            )

    def sizes(self) -> tuple[int, int, int]:
        return (self.data, self.fsdp, self.tensor)

    def shape(self, num_devices: int) -> tuple[int, int, int]:
        """Sizes with -1 filled in. Raises UserError where they do not make up `num_devices`."""
        known = math.prod(size for size in self.sizes() if size != -1)
        shape = tuple(num_devices // known if size == -1 else size for size in self.sizes())
        if math.prod(shape) != num_devices:
            raise UserError(
                f"mesh data={self.data} fsdp={self.fsdp} tensor={self.tensor} does not fit {num_devices} "
                f"devices; set config.mesh.data, .fsdp and .tensor so that their product is {num_devices}."
            )
        return shape


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """Explicit mesh over `devices`, all of them by default."""
    devices = jax.devices() if devices is None else devices
    shape = config.shape(len(devices))
    # An axis of the mesh may take part of an axis of the machine: 8 parts of fsdp on a TPU slice of 4x4x4.
    arranged = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(arranged, MESH_AXES, axis_types=(AxisType.Explicit,) * 3)


def check_rows_of_processes(devices: np.ndarray) -> None:
    """devices: of a mesh, [data, fsdp, tensor]. Raises UserError where two processes have devices for the same rows of
    a batch: each would put rows of its own there."""
    for row in devices.reshape(-1, devices.shape[-1]):
        processes = sorted({device.process_index for device in row})
        if len(processes) > 1:
            raise UserError(
                f"mesh.tensor = {len(row)} puts processes {', '.join(map(str, processes))} on the same rows, and each "
                "reads rows of its own; make mesh.tensor smaller, or start one process for all devices of a machine."
            )
