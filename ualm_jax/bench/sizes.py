"""Models and batches to be timed, by name: what the parts of `ualm bench` that run a language model share."""

import argparse
import os
from typing import NamedTuple

import jax
import numpy as np

from ualm_jax.data.loading.config import DataConfig
from ualm_jax.errors import UserError
from ualm_jax.models.config import ATTENTION, DTYPES, QWEN2_5, Architecture, DecoderConfig, Execution, layer_bytes
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import MESH_AXES
from ualm_jax.parallel.startup import start
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Batch, Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.config import RunConfig, TrainConfig
from ualm_jax.train.optimizer import OptimizerConfig

_CODES = 1024

# name -> decoder and rows of the text table
SIZES = {
    "tiny": (DecoderConfig(num_layers=4, width=128, num_heads=4, num_kv_heads=2, mlp_dim=512), 2048),
    "small": (DecoderConfig(num_layers=8, width=512, num_heads=8, num_kv_heads=2, mlp_dim=2048), 8192),
    "0.5b": (QWEN2_5["0.5b"], 151_936),
    "1.5b": (QWEN2_5["1.5b"], 151_936),
    "3b": (QWEN2_5["3b"], 151_936),
    "7b": (QWEN2_5["7b"], 152_064),
}


class SizedModel(NamedTuple):
    """What is timed."""

    architecture: Architecture
    execution: Execution


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, its numbers, and the devices it runs on."""
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny", help="of the model (default %(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the computation (default %(default)s)")
    parser.add_argument("--attention", choices=ATTENTION, default="auto", help="backend (default %(default)s)")
    parser.add_argument("--mesh", default="", metavar="AXIS=N,...", help="such as data=2,fsdp=4; data takes the rest")
    parser.add_argument("--devices", type=int, metavar="N", help="pretend to be N CPU devices, to try a mesh")
    parser.add_argument("--against", choices=("torch",), help="the same work in PyTorch, in turn")


def model_config(args: argparse.Namespace, **fields: str) -> SizedModel:
    """The model of `args`. Parameters are float32 where they are trained; `fields` overrides."""
    decoder, text_size = SIZES[args.size]
    execution = Execution(
        **{"compute_dtype": args.dtype, "attention": args.attention, "param_dtype": "float32"} | fields
    )
    return SizedModel(Architecture(decoder, Vocabulary(text_size, _CODES)), execution)


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
    start(cpu_devices=args.devices, layer_bytes=layer_bytes(*config))
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
