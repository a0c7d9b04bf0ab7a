"""The golden model and prompts for it."""

import jax
import numpy as np
import pytest
from helpers import golden_model

from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.layout import build_prompt
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
