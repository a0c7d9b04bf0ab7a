"""The enhancer of full size: its parameters are ETTA's number, and its step lowers for many devices."""

import jax
import numpy as np
import pytest
from helpers.enhancers import enhance_config

from ualm_jax.codecs.discriminators import init_discriminators
from ualm_jax.codecs.enhance.parameters import is_tensor, specification
from ualm_jax.parallel.sharding import MESH_AXES, spec
from ualm_jax.train.enhance import EnhanceStep
from ualm_jax.train.gan import init_gan_state
from ualm_jax.train.optimizer import make_optimizer


@pytest.fixture(autouse=True)
def one_device_mesh():
    """No mesh, unlike elsewhere: an abstract mesh of many devices can not be set inside that of one device."""


@pytest.mark.slow  # as that of codec_16k
def test_the_full_size_lowers_for_many_devices():
    config = enhance_config("enhance_full", {"mesh": {"data": 1, "fsdp": 64}})
    explicit = (jax.sharding.AxisType.Explicit,) * 3
    device = jax.sharding.AbstractDevice("TPU v5p", 1, "tpu")
    mesh = jax.sharding.AbstractMesh(config.mesh.shape(64), MESH_AXES, axis_types=explicit, abstract_device=device)
    batch, low = config.data.batch_size, config.data.frames * config.enhancer.hop
    with jax.sharding.use_abstract_mesh(mesh):
        rows = jax.NamedSharding(mesh, spec("batch", None, None))
        wav = jax.ShapeDtypeStruct((batch, 3 * low, 2), np.float32, sharding=rows)
        rows = jax.NamedSharding(mesh, spec("batch", None))
        sounds = {"low": jax.ShapeDtypeStruct((batch, low), np.float32, sharding=rows), "wav": wav}
        params = jax.tree.map(
            lambda tensor: jax.ShapeDtypeStruct(tensor.shape, np.float32),
            specification(config.enhancer),
            is_leaf=is_tensor,
        )
        judges = init_discriminators(config.adversarial.discriminators, 2, 0)
        optimizers = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)
        state = jax.eval_shape(
            lambda params, judges: init_gan_state(params, {}, judges, *optimizers, 64), params, judges
        )
        text = EnhanceStep(config, config.adversarial.begin).judged.lower(state, sounds).as_text()
    assert "stablehlo" in text
    assert 150e6 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 160e6
