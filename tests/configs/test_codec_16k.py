"""The codec of full size is X-codec's acoustic half, and its step lowers for many devices."""

import jax
import numpy as np
import pytest
import transformers
from helpers.config_files import ROOT

from ualm_jax.cli.config_file import load_config
from ualm_jax.codecs.discriminators import init_discriminators
from ualm_jax.mapping import from_mapping
from ualm_jax.parallel.sharding import MESH_AXES, spec
from ualm_jax.train.codec import CodecNetwork
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.gan import init_gan_state
from ualm_jax.train.optimizer import make_optimizer


@pytest.fixture(autouse=True)
def one_device_mesh():
    """No mesh, unlike elsewhere: an abstract mesh of many devices can not be set inside that of one device."""


@pytest.fixture(scope="module")
def config():
    values = load_config(str(ROOT / "configs" / "codec_16k.py"), []).to_dict()
    return from_mapping(CodecRunConfig, values | {"mesh": {"data": 1, "fsdp": 64, "tensor": 1}})


def test_its_shape_is_that_of_the_released_codec(config):
    released = transformers.XcodecConfig()
    theirs, ours = released.acoustic_model_config, config.codec
    assert ours.encoder_hidden_size == theirs.encoder_hidden_size and ours.hidden_size == theirs.hidden_size
    assert ours.decoder_hidden_size == theirs.decoder_hidden_size
    assert list(ours.downsampling_ratios) == list(theirs.downsampling_ratios)
    assert list(ours.upsampling_ratios) == list(theirs.upsampling_ratios)
    assert ours.codebook_size == released.codebook_size


@pytest.mark.slow
def test_its_step_lowers_for_many_devices(config):
    network = CodecNetwork(config)
    explicit = (jax.sharding.AxisType.Explicit,) * 3
    device = jax.sharding.AbstractDevice("TPU v5p", 1, "tpu")
    mesh = jax.sharding.AbstractMesh(config.mesh.shape(64), MESH_AXES, axis_types=explicit, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        rows = jax.NamedSharding(mesh, spec("batch", None))
        samples = config.data.frames * network.hop
        batch = {"wav": jax.ShapeDtypeStruct((config.data.batch_size, samples), np.float32, sharding=rows)}
        params, rest = jax.eval_shape(network.blank)
        judges = init_discriminators(config.adversarial.discriminators, 1, 0)
        optimizers = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)
        state = jax.eval_shape(lambda *arrays: init_gan_state(*arrays, *optimizers, 64), params, rest, judges)
        text = network.step(lambda number: batch, 0).judged.lower(state, batch).as_text()
    assert "stablehlo" in text
    assert 33.0e6 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 33.2e6
