"""What the parts of `ualm bench` that run a language model share: the mesh of their options, and packed rows."""

import argparse
import os

import jax
import numpy as np

from ualm_jax.bench.sizes import SizedModel
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.errors import UserError
from ualm_jax.models.config import layer_bytes
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import MESH_AXES
from ualm_jax.parallel.startup import start
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Batch, Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.config import RunConfig, TrainConfig
from ualm_jax.train.optimizer import OptimizerConfig


def open_mesh(args: argparse.Namespace, config: SizedModel, rows: int) -> jax.sharding.Mesh:
    """Starts JAX as `ualm train` does and makes the mesh of `args`.

    Raises UserError where it does not fit the devices, the model or `rows`.
    """
    sizes = {}
    for part in filter(None, args.mesh.split(",")):
        axis, _, size = part.partition("=")
        if axis not in MESH_AXES or not size.isdigit():
            raise UserError(f"--mesh takes {', '.join(f'{axis}=N' for axis in MESH_AXES)}, not {part!r}.")
        sizes[axis] = int(size)
    if args.against == "torch":  # which needs some of a GPU's memory too
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    start(cpu_devices=args.devices, layer_bytes=layer_bytes(*config), keep_programs=False)
    mesh = make_mesh(MeshConfig(**sizes))
    data = DataConfig(directory="none is read", seq_len=1, batch_size=rows)
    RunConfig(config.architecture, data, OptimizerConfig(), TrainConfig(steps=1)).check_mesh(**mesh.shape)
    return mesh


def packed_batch(config: SizedModel, rows: int, length: int, documents: int) -> Batch:
    """Host arrays: rows of `documents` equal conversations, each a caption and the sound that answers it.

    A quarter of a conversation is text, most of the rest 8 streams of delayed codes, all learnt. The last document
    of a row is as long as the others or longer, so that no position is left over. Seeded; every call is the same.
    """
    rng = np.random.default_rng(0)
    vocabulary = config.architecture.vocabulary
    grids, segments, positions = [], [], []
    for _ in range(rows):
        sizes = [length // documents] * documents
        sizes[-1] += length % documents
        parts = [_conversation(rng, vocabulary, size) for size in sizes]
        grids.append([np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
        segments.append(np.repeat(np.arange(1, documents + 1), sizes))
        positions.append(np.concatenate([np.arange(size) for size in sizes]))
    return Batch(
        tokens=np.stack([tokens for tokens, _ in grids]).astype(np.int32),
        loss_weights=np.stack([weights for _, weights in grids]).astype(np.float32),
        segment_ids=np.stack(segments).astype(np.int32),
        positions=np.stack(positions).astype(np.int32),
    )


def caption(rng: np.random.Generator, vocabulary: Vocabulary, words: int) -> Message:
    return Message(Role.USER, Modality.TEXT, rng.integers(0, vocabulary.text_size, words))


def _conversation(rng, vocabulary: Vocabulary, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and loss weights [size, S] of one conversation."""
    Q = vocabulary.num_codebooks
    words = size // 4
    frames = size - 7 - words - (Q - 1)  # bos; role, modality and end of two messages; the delay
    if frames < 1:
        raise UserError(f"a document of {size} positions is too short for a caption and sound; make --length larger.")
    sound = Message(Role.ASSISTANT, Modality.AUDIO, rng.integers(0, vocabulary.codebook_size, (frames, Q)))
    grid = build_grid([caption(rng, vocabulary, words), sound], vocabulary)
    return grid.tokens, grid.loss_weights
