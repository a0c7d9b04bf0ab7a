"""Runs of codecs and enhancers, with all that they go through."""

import dataclasses
from collections.abc import Callable

import jax

from helpers.config_files import ROOT
from ualm_jax.cli.config_file import load_config
from ualm_jax.mapping import from_mapping
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.loop import Run, fit

STEPS = 6  # of `tiny_codec`


def tiny_codec(**train) -> CodecRunConfig:
    """Two steps as an autoencoder, two with codes, two with discriminators."""
    values = load_config(str(ROOT / "configs" / "codec_small.py"), []).to_dict()
    values["codec"] |= {"num_codebooks": 2, "codebook_size": 8, "encoder_hidden_size": 2, "hidden_size": 7}
    values["codec"] |= {"downsampling_ratios": (40, 8), "upsampling_ratios": (8, 40), "decoder_hidden_size": 8}
    values["data"] |= {"soundscript": 24, "workers": 1, "batch_size": 8, "frames": 8}
    values["loss"]["windows"] = (64,)
    values["quantizer"] |= {"begin": 2, "kmeans_frames": 128, "kmeans_rounds": 2}
    values["adversarial"] |= {"begin": 4, "discriminators": {"periods": (2,), "windows": (), "width": 2}}
    values["train"] |= {"steps": STEPS, "log_every": 1, "save_interval": 1} | train
    values["eval"] |= {"every": STEPS, "sounds": 1, "seconds": 0.2}
    return from_mapping(CodecRunConfig, values)


def steps_of(make: Callable[[], Run], mesh: jax.sharding.Mesh) -> list[tuple]:
    """The state and the metrics after every step of the run that `make` gives, on the host; `mesh` is set for it."""
    with jax.set_mesh(mesh):
        run = make()
        seen, step = [], run.step

        def keep(state, batch):
            state, metrics = step(state, batch)
            seen.append((jax.device_get(state), jax.device_get(metrics)))
            return state, metrics

        fit(dataclasses.replace(run, step=keep))
    return seen
