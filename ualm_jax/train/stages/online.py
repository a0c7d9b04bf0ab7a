"""The parts of a run that answers prompts and learns from what that is worth."""

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import Mesh

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.generate.jobs_items import Item, read_items
from ualm_jax.generate.parts import Parts as Answering
from ualm_jax.generate.scorers import load_scorer
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.train.config import RunConfig
from ualm_jax.train.online import OnlineStep
from ualm_jax.train.rollouts import PromptBatches, Rollouts
from ualm_jax.train.stages.model import shapes_of_model, starting_params
from ualm_jax.train.step import Frozen
from ualm_jax.train.workdir import Parts
from ualm_jax.weights.fingerprints import model_fingerprint


class Online(NamedTuple):
    """step: from the optimiser's update (`make_train_step`) to the whole step. identity: what decides answers and
    divergence, for checkpoints."""

    batches: PromptBatches
    step: Callable[[Callable[..., Any]], OnlineStep]
    identity: dict[str, Any]


def online_parts(config: RunConfig, parts: Parts, model: Frozen, mesh: Mesh) -> Online:
    """Raises UserError for prompts and scorers that are not there, and for a prompt that has no room."""
    items = _read_prompts(pathlib.Path(config.grpo.prompts))
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

    def step(update: Callable[..., Any]) -> OnlineStep:
        accumulated = config.train.grad_accum_steps
        return OnlineStep(update, config.grpo.updates, model, rollouts, reference, mesh, accumulated)

    return Online(batches, step, identity)


def _read_prompts(path: pathlib.Path) -> list[Item]:
    """Raises UserError for a file that is not there, and for prompts that are more than a text."""
    if not path.is_file():
        raise UserError(f"grpo.prompts: there is no file {path}.")
    items = read_items(path.read_text().splitlines(), str(path))
    for item in items:
        if any(value is not None for value in (item.audio, item.negative, item.modality, item.seconds, item.seed)):
            raise UserError(f"{path}: {item.id}: has more than a prompt; leave out all other fields.")
    return items
