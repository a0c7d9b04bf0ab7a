"""Every config file: it parses, its parameters are those of the formula, and its step lowers for 256 devices."""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import pytest
from flax import nnx
from helpers.config_files import ROOT, load

from ualm_jax.aot import hlo
from ualm_jax.aot.compile import lower_step
from ualm_jax.errors import UserError
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import MESH_AXES, spec
from ualm_jax.train.config import RunConfig
from ualm_jax.train.stages.model import trained_part

OTHERS = ("codec_", "enhance_", "reason_data_")  # that configure no language model
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py") if not path.stem.startswith(OTHERS))
SMALL = ("_tiny", "_soundscript")
STAGES = [name for name in CONFIGS if not name.endswith(SMALL) and not name.startswith("pretrain_")]


def small_sibling(name: str) -> bool:
    """Whether a config is a small one of a stage that has a large one, or a second small one, among the others."""
    stage = name.removesuffix("_tiny").removesuffix("_soundscript")
    return stage != name and name != "grpo_gen_tiny" and (any(o.startswith(stage) for o in STAGES) or stage == "grpo")


RUN = """
from ualm_jax.aot.compile import lower_step
from ualm_jax.parallel.mesh import make_mesh
from helpers.config_files import load
import dataclasses, jax
from ualm_jax.parallel.mesh import MeshConfig
config = dataclasses.replace(load("tiny"), mesh=MeshConfig(2, 2, 2))
mesh = make_mesh(config.mesh)
with jax.set_mesh(mesh):
    lower_step(config, mesh).compile()
"""


@pytest.fixture(autouse=True)
def one_device_mesh():
    """No mesh, unlike elsewhere: an abstract mesh of 256 devices can not be set inside that of one device."""


def abstract_mesh(config: RunConfig, devices: int, kind: str = "TPU v5p") -> jax.sharding.AbstractMesh:
    explicit = (jax.sharding.AxisType.Explicit,) * 3
    device = jax.sharding.AbstractDevice(kind, 1, "tpu")
    return jax.sharding.AbstractMesh(config.mesh.shape(devices), MESH_AXES, axis_types=explicit, abstract_device=device)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_formula(name):
    config = load(name)
    model = config.model
    with jax.sharding.use_abstract_mesh(abstract_mesh(config, 256)):
        abstract = jax.eval_shape(lambda: UALM(model, config.execution, nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param))) == model.num_params()


def test_trained_parameters_are_those_that_the_filter_names():
    """Of align_7b the adapter and the audio rows of both tables, of ualm_7b everything."""
    config = load("align_7b")
    width, audio = config.model.decoder.width, 8 * 1025
    assert trained_part(config).params == (1280 + 1) * width + 2 * audio * width
    everything = dataclasses.replace(config.train, trainable=("*",))
    assert trained_part(dataclasses.replace(config, train=everything)).params == config.model.num_params()


def test_what_the_optimiser_keeps_is_two_moments_but_for_matrices_of_layers_under_muon():
    config = load("pretrain_1_5b")
    adam = trained_part(config)
    muon = trained_part(dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, kind="muon")))
    # Norms are L D twice, biases L (N + 2 K) H.
    decoder = config.model.decoder
    heads = (decoder.num_heads + 2 * decoder.num_kv_heads) * decoder.head_dim
    matrices = decoder.num_params() - decoder.width - decoder.num_layers * (2 * decoder.width + heads)
    assert adam.state_bytes == pytest.approx(8 * adam.params, abs=100)  # and counts of steps
    assert adam.params == muon.params and adam.state_bytes - muon.state_bytes == pytest.approx(4 * matrices, abs=100)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if small_sibling(name) else []) for name in CONFIGS]
)
def test_the_step_lowers_for_as_many_tpus_as_have_a_row(name):
    config = load(name)
    rows = config.data.batch_size // config.train.grad_accum_steps
    mesh = abstract_mesh(config, min(256, rows))  # where there are no more rows to split
    with jax.sharding.use_abstract_mesh(mesh):
        text = lower_step(config, mesh).as_text()
    assert "stablehlo" in text


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("pretrain_")])
@pytest.mark.parametrize("mesh", [dict(fsdp=64), dict(fsdp=8, tensor=2)], ids=str)
def test_pretraining_fits_other_meshes_of_256(name, mesh):
    if name == "pretrain_0_5b" and mesh["fsdp"] == 64:
        pytest.skip("14 x 64 columns on 64 parts: no reason to split so small a model so far")
    config = load(name, **mesh)
    config.check_mesh(*config.mesh.shape(256))


@pytest.mark.parametrize(
    "mesh, field",
    [
        (dict(fsdp=7, tensor=1, data=1), "data.batch_size / train.grad_accum_steps = 8 rows"),
        (dict(fsdp=4, tensor=4, data=1), "model.decoder.num_kv_heads = 2 .* tensor = 4"),
    ],
)
def test_a_mesh_that_does_not_divide_names_the_field(mesh, field):
    config = load("tiny", **mesh)
    with pytest.raises(UserError, match=field):
        config.check_mesh(*config.mesh.sizes())


def test_nothing_is_rematerialised_by_accident():
    """The partitioner warns where it can only reshard by making a whole copy; eight devices, all axes split."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Involuntary full rematerialization" not in run.stderr


def test_looking_up_embeddings_moves_sums_and_not_the_table():
    run = load("tiny")
    config = run.model
    mesh = make_mesh(MeshConfig(2, 2, 2))
    with jax.set_mesh(mesh):
        structure, params = nnx.split(jax.eval_shape(lambda: UALM(config, run.execution, nnx.Rngs(0))))
        tokens = jax.ShapeDtypeStruct((8, 64, 8), "int32", sharding=jax.NamedSharding(mesh, spec("batch", None, None)))

        def total(params, tokens):
            return nnx.merge(structure, params).embed_tokens(tokens).sum()

        text = jax.jit(jax.grad(total)).lower(params, tokens).compile().as_text()
    found = hlo.collectives(text, mesh.size)
    sums = 8 // 2 * 64 * config.decoder.width * 4  # of the rows that share a part of the batch, in float32
    table = config.vocabulary.size * config.decoder.width * 4
    gradient = [one for one in found if one.kind == "all-reduce" and one.sent >= table / 4]
    assert sum(one.sent for one in gradient) == pytest.approx(table / 4)  # this device's columns, over `data`
    assert all(one.sent <= sums for one in found if one not in gradient)
    assert {one.kind for one in found} <= {"all-gather", "all-to-all", "all-reduce", "reduce-scatter"}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_how_it_is_launched(name):
    text = (ROOT / "configs" / f"{name}.py").read_text()
    assert re.search(rf"ualm train --config configs/{name}.py", text)
