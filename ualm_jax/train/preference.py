"""What a run that learns from pairs needs beside its objective."""

import logging
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from ualm_jax.data.dataset.folder import DatasetInfo
from ualm_jax.errors import UserError
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch

log = logging.getLogger(__name__)

_FALLEN = -0.05  # nats per position of the chosen answers
_USUAL_PAIR = 512  # positions


def check_kind(objective: str, info: DatasetInfo) -> None:
    """Raises UserError where the dataset does not hold what `train.objective` learns from."""
    learns_from_pairs = objective == "preference"
    if learns_from_pairs and not info.pairs:
        raise UserError(
            f"{info.directory}: holds conversations, but train.objective is 'preference', which learns from pairs; "
            "make some with `ualm prefer build`, or with `ualm data prepare --source pair`"
        )
    if info.pairs and not learns_from_pairs:
        raise UserError(
            f"{info.directory}: holds pairs, which train.objective = 'preference' learns from, not {objective!r}"
        )


def warn_of_drift(step: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Says where the chosen answers become less likely: the loss may fall all the same, the rejected ones falling
    faster, until the model says neither."""
    drift = float(metrics.get("drift", 0.0))
    if drift < _FALLEN:
        log.warning(
            "step %d: the chosen answers have become less likely than to the reference, by %.3g nats a position; raise "
            "preference.ce_weight, or lower the learning rate",
            step,
            -drift,
        )


def with_places_for_pairs(batch: Batch, mesh: Mesh | AbstractMesh) -> Batch:
    """Shapes of a batch [A, B, T, S] with about as many places for pairs as its rows have room for."""
    microbatches, rows, length, streams = batch.tokens.shape
    shape = (microbatches, rows, max(length // _USUAL_PAIR, 1), 2, streams)
    sharding = NamedSharding(mesh, spec(None, "batch", None, None, None))
    return batch._replace(reference=jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding))
