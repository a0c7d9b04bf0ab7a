"""`execution.remat = "auto"`: which policy a run gets, and that the compiler's figures order them."""

import functools
import logging

import jax
import pytest

from ualm_jax.data.loading.config import DataConfig
from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture, DecoderConfig, Execution
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train import remat
from ualm_jax.train.config import RunConfig, TrainConfig
from ualm_jax.train.optimizer import OptimizerConfig
from ualm_jax.train.stages.run import lower_step, with_remat_decided

GIB = 2**30
AUTO = RunConfig(
    Architecture(
        DecoderConfig(num_layers=3, width=32, num_heads=2, num_kv_heads=1, mlp_dim=256), Vocabulary(64, 16, 2)
    ),
    DataConfig(directory="none is read", seq_len=128, batch_size=4),
    OptimizerConfig(),
    TrainConfig(steps=1),
    execution=Execution(remat="auto", compute_dtype="float32"),
)
NEEDS = {"none": 98 * GIB, "dots": 47 * GIB, "save_attention": 30 * GIB, "full": 29 * GIB}


@pytest.fixture
def device(monkeypatch):
    """Of so much memory, on which steps need NEEDS; what is lowered is the name of the policy."""

    def make(memory):
        monkeypatch.setattr(remat, "_memory", lambda: memory)
        monkeypatch.setattr(remat, "_bytes_of", lambda policy: NEEDS[policy])

    return make


def choose(config=AUTO) -> str:
    return with_remat_decided(config, lambda candidate: candidate.execution.remat).execution.remat


@pytest.mark.parametrize(
    "gib, wanted", [(141, "none"), (100, "dots"), (60, "dots"), (49, "save_attention"), (31, "full")]
)
def test_the_first_that_fits_with_a_little_room_is_taken(device, gib, wanted):
    device(gib * GIB)
    assert choose() == wanted


def test_what_was_chosen_and_what_was_not_is_logged(device, caplog):
    device(60 * GIB)
    with caplog.at_level(logging.INFO):
        choose()
    assert "execution.remat = auto: dots (47.0 of 60.0 GiB; none needs 98.0 GiB)" in caplog.text


def test_a_step_that_fits_with_no_policy_is_one_sentence(device, monkeypatch):
    device(20 * GIB)
    monkeypatch.setitem(NEEDS, "none", None)
    with pytest.raises(UserError, match="20.0 GiB of a device.*none does not fit; .*full needs 29.0 GiB.*batch_size"):
        choose()


def test_a_policy_that_was_asked_for_stays_and_a_cpu_needs_none(device):
    device(20 * GIB)
    assert choose(AUTO.with_remat("offload")) == "offload"
    device(None)
    assert choose() == "none"
    assert remat._memory() is None


def test_the_compiler_tells_what_a_policy_saves(monkeypatch):
    """Of real steps: with less memory than none of it needs, a policy that keeps less is taken."""
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        lower = functools.partial(lower_step, mesh=mesh)
        none, full = (remat._bytes_of(lower(AUTO.with_remat(policy))) for policy in ("none", "full"))
        assert full < 0.8 * none
        monkeypatch.setattr(remat, "_memory", lambda: int(none / 0.95) - 1)
        found = with_remat_decided(AUTO, lower)
    assert found.execution.remat == "dots" and found == AUTO.with_remat("dots")
