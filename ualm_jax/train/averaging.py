"""The optimiser of a run: of those parameters alone that are trained, with their moving average if one is kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ualm_jax.errors import UserError
from ualm_jax.models.paths import matches
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer
from ualm_jax.train.trainable import Trainable, partial


class Averaged(NamedTuple):
    """average: of every leaf of which something is trained, float32."""

    optimizer: optax.OptState
    average: nnx.State


def optimizer_of(config: OptimizerConfig, trainable: Trainable, params: nnx.State) -> optax.GradientTransformation:
    """params: abstract or real. Raises UserError for a multiplier that matches nothing."""
    paths = [".".join(path) for path, _ in nnx.to_flat_state(trainable.whole(params))]
    for one in config.lr_multipliers:
        if not any(matches(one.pattern, path) for path in paths):
            raise UserError(f"optimizer.lr_multipliers: {one.pattern!r} matches nothing that is trained.")
    optimizer = partial(make_optimizer(config), trainable)
    return optimizer if config.ema_decay is None else averaged(optimizer, trainable, config.ema_decay)


def averaged(
    optimizer: optax.GradientTransformation, trainable: Trainable, decay: float
) -> optax.GradientTransformation:
    """`optimizer` (`partial` of one) with an average of which `decay` stays in a step, such as 0.999.

    It begins with the initial parameters, which fade as decay ** steps.
    """

    def init(params: nnx.State) -> Averaged:
        return Averaged(optimizer.init(params), _float32(trainable.whole(params)))

    def update(grads: Any, state: Averaged, params: nnx.State) -> tuple[Any, Averaged]:
        updates, inner = optimizer.update(grads, state.optimizer, params)
        moved = jax.tree.map(jnp.add, _float32(trainable.take(params)), updates)
        new = trainable.whole(trainable.put(moved, _float32(params)))
        average = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.average, new)
        return updates, Averaged(inner, average)

    return optax.GradientTransformation(init, update)


def evaluated_params(params: nnx.State, opt_state: Any) -> nnx.State:
    """Those that a run is judged by and leaves: the average where there is one."""
    if not isinstance(opt_state, Averaged):
        return params
    leaves = dict(nnx.to_flat_state(params))
    for path, average in nnx.to_flat_state(opt_state.average):
        leaves[path] = nnx.Param(average[...].astype(leaves[path].dtype))
    return nnx.from_flat_state(leaves)


def _float32(params: nnx.State) -> nnx.State:
    # A copy, also of what is float32: the state is donated, and one buffer can not be given away twice.
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)
