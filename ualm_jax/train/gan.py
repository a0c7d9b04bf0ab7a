"""The step of a network that makes waveforms, with or without discriminators that judge them.

Two optimisers, one state. Rows are split over the mesh, parameters over `fsdp`; every device gathers the parameters,
computes its rows, and the gradients are averaged. What the generator is, a codec or an enhancer, is its own affair.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from ualm_jax.codecs.discriminators import DiscriminatorConfig, discriminate, feature_matching, verdict_loss
from ualm_jax.fields import Natural, NotNegative, Positive, check_fields
from ualm_jax.parallel.sharding import RULES, spec

AXES = RULES["batch"]


class GanState(NamedTuple):
    """step: optimiser steps taken. rest: what a generator learns without gradients. average: of the parameters, over
    the last steps. judges: parameters of the discriminators.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: optax.OptState
    rest: Any
    average: Any
    judges: Any
    judges_opt_state: optax.OptState


class Made(NamedTuple):
    """wav: what was made of a batch, wanted: what should have been. cost: what the making itself costs (commitment,
    divergence). metrics: to report. found: what `Generator.learn` learns from.
    """

    wav: Float[Array, "B N C"]
    wanted: Float[Array, "B N C"]
    cost: Float[Array, ""]
    metrics: dict[str, Array]
    found: Any


@runtime_checkable
class Generator(Protocol):
    """Pure functions, called inside `jax.shard_map` with this device's rows; means are over these rows."""

    def make(self, params: Any, rest: Any, batch: Any, key: Array) -> Made: ...

    def reconstruction(
        self, made: Float[Array, "B N C"], wanted: Float[Array, "B N C"]
    ) -> tuple[Float[Array, ""], dict[str, Array]]: ...

    def learn(self, rest: Any, found: Any) -> Any: ...

    def allowed(self, params: Any) -> Any:
        """The parameters nearest to these that may be: called after every step."""


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """begin: the step from which discriminators judge and learn; None for never.

    share: of the adversarial gradient at the waveform, relative to the reconstruction's (the weights of
    Esser et al. 2021 and EnCodec's balancer serve the same end: no loss drowns another whatever its scale).
    feature_matching: weight of the layers' distance beside the verdicts.
    """

    begin: Natural | None = None
    share: Positive = 0.3
    feature_matching: NotNegative = 2.0
    discriminators: DiscriminatorConfig = DiscriminatorConfig()

    def __post_init__(self):
        check_fields(self, "adversarial")


def make_gan_step(
    generator: Generator,
    optimizer: optax.GradientTransformation,
    adversarial: AdversarialConfig | None,
    judges_optimizer: optax.GradientTransformation,
    *,
    seed: int,
    averaging: float,
) -> Callable[[GanState, Any], tuple[GanState, dict[str, Array]]]:
    """The step (state, batch) to (state, metrics), jitted, its state donated; a mesh must be set.

    adversarial: None leaves the discriminators as they are. averaging: decay of the parameters' moving average.
    Everything random follows from (seed, step).
    """

    def local(params, rest, judges, batch, key):
        def forward(params):
            made = generator.make(params, rest, batch, key)
            return (made.wav, made.cost), made

        (wav, _), pull_back, made = jax.vjp(forward, params, has_aux=True)
        (loss, parts), pull = jax.value_and_grad(generator.reconstruction, has_aux=True)(wav, made.wanted)
        metrics = {"loss": loss + made.cost, **parts, **made.metrics}
        judges_grads = judges
        if adversarial is not None:
            against, judges_grads, judged = _judged(adversarial, judges, wav, made.wanted)
            pull = pull + adversarial.share * _norm(pull) / (_norm(against) + 1e-12) * against
            metrics |= judged
        (grads,) = pull_back((pull, jnp.float32(1.0)))
        grads, judges_grads, metrics = jax.lax.pmean((grads, judges_grads, metrics), AXES)
        return grads, judges_grads, generator.learn(rest, made.found), metrics

    def step(state: GanState, batch: Any) -> tuple[GanState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        rows = jax.tree.map(lambda leaf: spec("batch", *[None] * (leaf.ndim - 1)), batch)
        compute = jax.shard_map(
            local,
            in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(), rows, PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        whole = gathered((state.params, state.rest, state.judges))
        grads, judges_grads, rest, metrics = compute(*whole, batch, key)
        params, opt_state = _stepped(optimizer, grads, state.opt_state, state.params)
        params = generator.allowed(params)
        judges, judges_opt_state = state.judges, state.judges_opt_state
        if adversarial is not None:
            judges, judges_opt_state = _stepped(judges_optimizer, judges_grads, judges_opt_state, judges)
        average = jax.tree.map(lambda old, new: averaging * old + (1 - averaging) * new, state.average, params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        state = GanState(state.step + 1, params, opt_state, rest, average, judges, judges_opt_state)
        return state, metrics

    return jax.jit(step, donate_argnums=0)


def _judged(config: AdversarialConfig, judges: Any, wav: Array, wanted: Array) -> tuple[Array, Any, dict[str, Array]]:
    """Gradient of what the discriminators say at the waveform, their own gradients, and metrics."""

    real, pull_real = jax.vjp(lambda judges: discriminate(judges, config.discriminators, wanted), judges)
    made, pull_made = jax.vjp(lambda judges, wav: discriminate(judges, config.discriminators, wav), judges, wav)

    def fooling(made):
        verdict, matching = verdict_loss(made, True), feature_matching(made, real, AXES)
        return verdict + config.feature_matching * matching, (verdict, matching)

    def telling_apart(real, made):
        return verdict_loss(real, True) + verdict_loss(made, False)

    at_made, (verdict, matching) = jax.grad(fooling, has_aux=True)(made)
    _, against = pull_made(at_made)
    loss, (at_real, at_made) = jax.value_and_grad(telling_apart, (0, 1))(real, made)
    grads = jax.tree.map(jnp.add, *pull_real(at_real), pull_made(at_made)[0])
    return against, grads, {"adversarial": verdict, "feature_matching": matching, "discriminators": loss}


def _norm(x: Array) -> Float[Array, ""]:
    return jnp.sqrt(jax.lax.psum(jnp.sum(x**2), AXES))


def _stepped(optimizer: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    grads = jax.tree.map(lambda grad, param: jax.reshard(grad, jax.typeof(param).sharding.spec), grads, params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def gathered(tree: Any) -> Any:
    """Whole arrays on every device."""
    return jax.tree.map(lambda leaf: jax.reshard(leaf, PartitionSpec()), tree)


def scattered(tree: Any, fsdp: int) -> Any:
    """Arrays split over `fsdp` devices along their longest axis that can be; a mesh must be set."""

    def place(leaf):
        leaf = jnp.asarray(leaf)
        fitting = [axis for axis in range(leaf.ndim) if fsdp > 1 and leaf.shape[axis] % fsdp == 0]
        chosen = max(fitting, key=lambda axis: leaf.shape[axis], default=None)
        return jax.reshard(leaf, spec(*("embed" if axis == chosen else None for axis in range(leaf.ndim))))

    return jax.jit(lambda tree: jax.tree.map(place, tree))(tree)


def init_gan_state(
    params: Any,
    rest: Any,
    judges: Any,
    optimizer: optax.GradientTransformation,
    judges_optimizer: optax.GradientTransformation,
    fsdp: int,
) -> GanState:
    """A fresh state on the mesh that is set."""
    params, judges = scattered(params, fsdp), scattered(judges, fsdp)
    return GanState(
        step=jnp.int32(0),
        params=params,
        opt_state=jax.jit(optimizer.init)(params),
        rest=jax.tree.map(jnp.asarray, rest),
        average=jax.tree.map(jnp.copy, params),
        judges=judges,
        judges_opt_state=jax.jit(judges_optimizer.init)(judges),
    )
