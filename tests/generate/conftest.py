"""The golden model and prompts for it."""

import jax
import numpy as np
import pytest
from helpers import golden_model
from helpers.audio_encoders import GOLDEN, random_encoder

from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Message, Modality, Role, TokenGrid


@pytest.fixture(scope="package")
def model(golden_dir):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return golden_model.load(golden_dir)


@pytest.fixture(scope="package")
def prompts() -> list[TokenGrid]:
    """Four text prompts of different lengths."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 384, length) for length in (3, 17, 9, 30)]
    vocabulary = golden_model.ARCHITECTURE.vocabulary
    return [build_prompt([Message(Role.USER, Modality.TEXT, text)], vocabulary) for text in texts]


@pytest.fixture(scope="package")
def pipeline(model, golden_dir) -> Pipeline:
    """The golden model with its tokenizer and codec, and an encoder of random weights."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        encoder = random_encoder(GOLDEN)
    codec, tokenizer = XCodec.from_directory(golden_dir / "xcodec"), load_tokenizer(golden_dir / "qwen2")
    parts = dict(model=model, codec=codec, encoder=encoder, tokenizer=tokenizer)
    return Pipeline(mesh=mesh, **parts, slots=3, window=256, made_by=MadeBy("golden", 100))
