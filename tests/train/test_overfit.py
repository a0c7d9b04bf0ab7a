"""A tiny model learns four clips by heart and gives their codes back."""

import jax
import numpy as np
from flax import nnx

from ualm_jax.generate import SamplingParams, generate
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.models.ualm import UALM, abstract_model
from ualm_jax.tokens.layout import build_grid, build_prompt
from ualm_jax.tokens.types import Batch, Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.batches import shard_batch
from ualm_jax.train.objectives.next_token import next_token
from ualm_jax.train.optimizer import OptimizerConfig, make_optimizer
from ualm_jax.train.step import init_state, make_train_step

VOCABULARY = Vocabulary(text_size=256, codebook_size=32)
ARCHITECTURE = Architecture(
    DecoderConfig(num_layers=2, width=64, num_heads=4, num_kv_heads=2, mlp_dim=192),
    VOCABULARY,
)
EXECUTION = Execution(compute_dtype="float32")
CAPTIONS = ["a dog", "two clicks", "rain on tin", "brass, then drums"]


def test_four_clips_are_learnt_and_given_back():
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 32, (length, 8)).astype(np.int32) for length in (18, 20, 23, 25)]
    asks = [Message(Role.USER, Modality.TEXT, np.frombuffer(text.encode(), np.uint8).astype(int)) for text in CAPTIONS]
    answers = [Message(Role.ASSISTANT, Modality.AUDIO, codes) for codes in clips]
    grids = [build_grid(pair, VOCABULARY) for pair in zip(asks, answers, strict=True)]
    T = max(len(grid.tokens) for grid in grids)
    pad = [((0, T - len(grid.tokens)), (0, 0)) for grid in grids]
    batch = Batch(
        tokens=np.stack([np.pad(grid.tokens, p) for grid, p in zip(grids, pad, strict=True)]),
        loss_weights=np.stack([np.pad(grid.loss_weights, p) for grid, p in zip(grids, pad, strict=True)]),
        segment_ids=np.stack([(np.arange(T) < len(grid.tokens)).astype(np.int32) for grid in grids]),
        positions=np.broadcast_to(np.arange(T, dtype=np.int32), (4, T)),
    )
    optimizer = make_optimizer(OptimizerConfig(peak_lr=1e-2, warmup_steps=20, decay_steps=400))
    structure = abstract_model(ARCHITECTURE, EXECUTION)[0]
    state = init_state(lambda: UALM(ARCHITECTURE, EXECUTION, nnx.Rngs(0)), optimizer)
    step = make_train_step(structure, next_token, optimizer)
    placed = shard_batch(batch, jax.sharding.get_mesh(), 1)
    for _ in range(400):
        state, metrics = step(state, placed)
        if float(metrics["loss"]) < 0.01:  # some 100 steps
            break
    assert float(metrics["loss"]) < 0.05

    model = nnx.merge(structure, state.params)
    params = SamplingParams(temperature=0.0, cfg_scale=1.0, max_frames=40)
    generated = generate(model, [build_prompt([ask], VOCABULARY) for ask in asks], params)
    for got, wanted in zip(generated, clips, strict=True):
        assert got.end == "eos" and got.tokens.shape == wanted.shape
        assert np.mean(got.tokens == wanted) >= 0.99
