"""Rows of pairs for the golden model, and its log-probabilities the long way round."""

import jax
import jax.numpy as jnp
import numpy as np

from helpers import golden_model
from ualm_jax.parallel.sharding import reshard
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Batch, Message, Modality, Role

VOCABULARY = golden_model.ARCHITECTURE.vocabulary


def pair(seed: int) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Chosen and rejected: a sound against a plan with a sound, or two texts."""
    rng = np.random.default_rng(seed)

    def text(role):
        return Message(role, Modality.TEXT, rng.integers(1, 384, rng.integers(2, 9)))

    def sound():
        return Message(Role.ASSISTANT, Modality.AUDIO, rng.integers(0, 32, (rng.integers(2, 9), 8)))

    prompt = (text(Role.USER),)
    if seed % 2:
        return (*prompt, text(Role.ASSISTANT)), (*prompt, text(Role.ASSISTANT))
    return (*prompt, sound()), (*prompt, text(Role.ASSISTANT), sound())


def rows_of_pairs(rows: list[list[int]], length: int, places: int) -> Batch:
    """The pairs of these seeds, row by row; on the host."""
    shape = (len(rows), length)
    batch = Batch(
        tokens=np.zeros((*shape, 8), np.int32),
        loss_weights=np.zeros((*shape, 8), np.float32),
        segment_ids=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        reference=np.zeros((len(rows), places, 2, 8), np.float32),
    )
    for row, seeds in enumerate(rows):
        start = 0
        for segment, messages in enumerate((each for seed in seeds for each in pair(seed)), start=1):
            grid = build_grid(messages, VOCABULARY)
            stop = start + len(grid.tokens)
            batch.tokens[row, start:stop], batch.loss_weights[row, start:stop] = grid.tokens, grid.loss_weights
            batch.segment_ids[row, start:stop], batch.positions[row, start:stop] = segment, np.arange(stop - start)
            start = stop
        for place, seed in enumerate(seeds):  # some 6 nats a token, as a model says that knows nothing yet
            weights = [build_grid(messages, VOCABULARY).loss_weights[1:].sum(axis=0) for messages in pair(seed)]
            batch.reference[row, place] = weights * -np.random.default_rng(seed + 1000).uniform(5.5, 6.5, (2, 8))
    return batch


def plain_sums(model, conversations) -> tuple[jax.Array, jax.Array]:
    """[N, S] weighted sums of log-probabilities, each conversation in a row of its own and all logits at once; and
    [N, S] tokens."""
    grids = [build_grid(messages, VOCABULARY) for messages in conversations]
    length = max(len(grid.tokens) for grid in grids)

    def padded(arrays):
        return jnp.asarray(np.stack([np.pad(x, [(0, length - len(x)), (0, 0)]) for x in arrays]))

    tokens, weights = padded([grid.tokens for grid in grids]), padded([grid.loss_weights for grid in grids])
    inside = jnp.asarray(np.arange(length) < np.array([len(grid.tokens) for grid in grids])[:, None], jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length), inside.shape)
    hidden = reshard(model(Batch(tokens, weights, inside, positions)), None, None, None)[:, :-1]
    audio = reshard(model.audio_head[...], None, None, None).reshape(hidden.shape[-1], -1)
    head = jnp.concatenate([reshard(model.text_head[...], None, None), audio], axis=1)
    found = []
    for stream in range(8):
        states = hidden + (model.stream_embed[...][stream] if stream else 0)
        logits, first = (states @ audio, VOCABULARY.audio_start) if stream else (states @ head, 0)
        targets = jnp.maximum(tokens[:, 1:, stream] - first, 0)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
        found.append(jnp.sum(log_probs * weights[:, 1:, stream], axis=1))
    return jnp.stack(found, axis=1), (weights[:, 1:] > 0).sum(axis=1)
