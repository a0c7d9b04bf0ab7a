"""A job of the golden model that can be killed: python generating.py GOLDEN PROMPTS OUT."""

import sys
from pathlib import Path

import jax

from helpers import golden_model
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.generate.jobs import Job, run_job
from ualm_jax.generate.jobs_items import read_items
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import load_tokenizer

JOB = Job(seconds=0.2, settings={"max_tokens": 4})


def main(golden: Path, prompts: Path, out: Path) -> None:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = golden_model.load(golden)
    codec, tokenizer = XCodec.from_directory(golden / "xcodec"), load_tokenizer(golden / "qwen2")
    pipeline = Pipeline(mesh=mesh, model=model, codec=codec, tokenizer=tokenizer, slots=3, window=256)
    run_job(pipeline, read_items(prompts.read_text().splitlines(), prompts.name), JOB, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
