"""What a language model's training does per second: tokens, and the share of the devices' peak."""

import logging
from collections.abc import Callable

from jax.sharding import Mesh

from ualm_jax.errors import UserError
from ualm_jax.models import flops
from ualm_jax.models.config import Architecture
from ualm_jax.parallel.hardware import peak_of
from ualm_jax.train.report import Metrics

log = logging.getLogger(__name__)


def language_model_rates(architecture: Architecture, mesh: Mesh) -> dict[str, Callable[[Metrics], float]]:
    """For a `Reporter`: what a step did, from the metrics "tokens" and "attended".

    "mfu" is of the bf16 peak of all devices; it is left out, and a line says so, where no figures of them are known.
    """
    rates = {"tokens_per_second": lambda metrics: metrics["tokens"]}
    try:
        peak = peak_of(mesh.devices.flat[0].device_kind).flops * mesh.size
    except UserError as error:
        log.info("MFU is not reported. %s", error)
        return rates

    def mfu(metrics: Metrics) -> float:
        return flops.packed_step(architecture, float(metrics["tokens"]), float(metrics["attended"])) / peak

    return rates | {"mfu": mfu}
