"""Online preference learning: the step that asks the model itself for what it learns from."""

import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jaxtyping import Array, Float

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.generate.jobs_items import Item, read_items
from ualm_jax.generate.parts import Parts as Answering
from ualm_jax.generate.scorers import load_scorer
from ualm_jax.models.log_probabilities import targets
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Batch
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.config import RunConfig
from ualm_jax.train.model import Frozen, shapes_of_model, starting_params
from ualm_jax.train.objectives.policy_gradient import Experience
from ualm_jax.train.rollouts import Asked, PromptBatches, Rollout, Rollouts
from ualm_jax.train.step import TrainState
from ualm_jax.train.workdir import Parts
from ualm_jax.weights.fingerprints import model_fingerprint


def read_prompts(config: RunConfig) -> list[Item]:
    """Raises UserError for a file that is not there, and for prompts that are more than a text."""
    path = pathlib.Path(config.grpo.prompts)
    if not path.is_file():
        raise UserError(f"grpo.prompts: there is no file {path}.")
    items = read_items(path.read_text().splitlines(), str(path))
    for item in items:
        if any(value is not None for value in (item.audio, item.negative, item.modality, item.seconds, item.seed)):
            raise UserError(f"{path}: {item.id}: has more than a prompt; leave out all other fields.")
    return items


class Online(NamedTuple):
    """What a run needs that answers prompts. step: from the optimiser's update (`make_train_step`) to the whole step.
    identity: what decides answers and divergence, for checkpoints."""

    batches: PromptBatches
    step: Callable[[Callable[..., Any]], "OnlineStep"]
    identity: dict[str, Any]


def online_parts(config: RunConfig, parts: Parts, model: Frozen, mesh: Mesh) -> Online:
    """Raises UserError for prompts and scorers that are not there, and for a prompt that has no room."""
    items = read_prompts(config)
    answering = Answering(
        mesh=mesh,
        model=shapes_of_model(config),  # whose parameters are those of each step
        codec=XCodec.from_directory(parts["codec"]) if config.grpo.modality != "text" else None,
        tokenizer=load_tokenizer(parts["tokenizer"]),
    )
    scorer = load_scorer(config.grpo.scorer, answering)
    rollouts = Rollouts(config.grpo, answering, items, scorer, config.data.seq_len)
    identity: dict[str, Any] = {"prompts": hashlib.sha256("\n".join(item.key for item in items).encode()).hexdigest()}
    reference = None
    if config.grpo.kl_weight:
        reference = starting_params(config, None, mesh)
        identity["reference"] = {"weights": model_fingerprint(model.whole(reference))}
    batches = PromptBatches(items, config.grpo, config.data.batch_size, config.data.seed)
    return Online(batches, lambda update: OnlineStep(config, model, rollouts, mesh, update, reference), identity)


class OnlineStep:
    """(state, `Asked`) to (state, metrics): answers, rewards, and `updates` steps of the optimiser on them.

    reference: parameters, None where no divergence is wanted.
    """

    def __init__(
        self,
        config: RunConfig,
        model: Frozen,
        rollouts: Rollouts,
        mesh: Mesh,
        update: Callable[..., tuple[TrainState, dict[str, Array]]],
        reference: nnx.State | None,
    ):
        self._config, self._model, self._rollouts, self._mesh = config, model, rollouts, mesh
        self._update, self._reference = update, reference

    def __call__(self, state: TrainState, asked: Asked) -> tuple[TrainState, dict[str, Any]]:
        after = state.step + 1
        made = self._rollouts.make(self._model.whole(state.params), asked)
        experience = self.experience(state.params, made)
        for _ in range(self._config.grpo.updates):
            state, metrics = self._update(state, experience, self._model.constants)
        # However many updates: a step is a set of answers.
        return state._replace(step=after), metrics | {name: np.float32(value) for name, value in made.metrics.items()}

    def experience(self, params: nnx.State, made: Rollout) -> Experience:
        """Of microbatches [A, B, ...]. params: that the answers were drawn with. Every process has all answers, and
        puts its share of the rows on its devices."""
        count, index = jax.process_count(), jax.process_index()
        rows = jax.tree.map(lambda x: np.split(x, count)[index], (made.batch, made.advantages.values.reshape(-1)))
        batch, advantage = shard_batch(rows, self._mesh, self._config.train.grad_accum_steps)
        structure, constants, _ = self._model
        reference = self._reference
        if reference is not None:
            reference = _log_probabilities(structure, reference, constants, batch)
        return Experience(batch, advantage, _log_probabilities(structure, params, constants, batch), reference)


def abstract_experience(config: RunConfig, batch: Batch, mesh: Mesh | AbstractMesh) -> Experience:
    """Shapes of what is learnt from an abstract batch [A, B, ...]."""
    microbatches, rows = batch.tokens.shape[:2]
    sharding = NamedSharding(mesh, spec(None, "batch"))
    each = batch.loss_weights
    advantage = jax.ShapeDtypeStruct((microbatches, rows), np.float32, sharding=sharding)
    return Experience(batch, advantage, each, each if config.grpo.kl_weight else None)


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(
    structure: nnx.GraphDef, params: nnx.State, constants: nnx.State, batch: Batch
) -> Float[Array, "A B T S"]:
    """Of the next tokens of microbatches [A, B, ...]."""

    def one(microbatch: Batch) -> Float[Array, "B T S"]:
        return targets(nnx.merge(structure, params, constants), microbatch).log_probs

    if len(batch.tokens) == 1:  # as in the training step, so that the same numbers come out
        return jax.tree.map(lambda x: x[None], one(jax.tree.map(lambda x: x[0], batch)))
    return jax.lax.map(one, batch)
