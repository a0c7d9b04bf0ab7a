"""A dataset that runs are trained on."""

import dataclasses
import math
import pathlib

import jax
import pytest
from helpers.fake_sounds import FakeSource, prepare_fake

from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.parallel.mesh import make_mesh
from ualm_jax.tokens.tokenizer import save_byte_tokenizer


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> pathlib.Path:
    parts = tmp_path_factory.mktemp("parts")
    save_byte_tokenizer(parts / "tokenizer")
    codec = dataclasses.replace(tiny_config(), codebook_size=32, target_bandwidths=(2.0,))
    save_directory(init_random(codec, 0), codec, parts / "codec")
    out = tmp_path_factory.mktemp("dataset") / "fake"
    prepare_fake(FakeSource(60), parts, out)
    return out


@pytest.fixture(scope="module")
def as_many_devices_as_the_mesh_has():
    """Runs in this process are on one of its devices, or on as many as their mesh has: their programs compile in half
    the time of those for all eight."""

    def few(config):
        return make_mesh(config, jax.devices()[: math.prod(abs(size) for size in config.sizes())])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ualm_jax.train.stages.run.make_mesh", few)
        patch.setattr("ualm_jax.train.stages.score.make_mesh", few)
        yield few
