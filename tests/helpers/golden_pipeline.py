"""The golden model, ready to use, with an audio encoder of random weights."""

from pathlib import Path

import jax

from helpers import golden_model
from helpers.audio_encoders import GOLDEN, random_encoder
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import load_tokenizer


def golden_pipeline(golden: Path, **options) -> Pipeline:
    """options: slots, window."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model, encoder = golden_model.load(golden), random_encoder(GOLDEN)
    codec, tokenizer = XCodec.from_directory(golden / "xcodec"), load_tokenizer(golden / "qwen2")
    parts = dict(model=model, codec=codec, encoder=encoder, tokenizer=tokenizer)
    return Pipeline(mesh=mesh, **parts, **options, made_by=MadeBy("golden", 100))
