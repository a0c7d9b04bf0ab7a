"""A run begins with converted parameters, on any mesh, and refuses those of another model."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model
from helpers.configs_of_runs import run_config
from helpers.conversions import save_run

from ualm_jax.convert_weights.qwen2 import export_hf, import_qwen2
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping, to_mapping
from ualm_jax.models.config import Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.train.init_from import initial_params
from ualm_jax.train.optimizer import make_optimizer
from ualm_jax.train.step import init_state, state_from
from ualm_jax.train.workdir import write_workdir
from ualm_jax.weights.fingerprints import parts_of
from ualm_jax.weights.opener import open_weights

ARCHITECTURE = golden_model.ARCHITECTURE


@pytest.mark.parametrize("dtype, shape", [("float32", (2, 2, 2)), ("bfloat16", (1, 1, 1))])
def test_parameters_are_cast_and_laid_out_as_the_run_wants(shape, dtype, trained, golden_dir):
    execution = Execution(param_dtype=dtype)
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: np.prod(shape)])
    with jax.set_mesh(mesh):
        optimizer = make_optimizer(run_config(ARCHITECTURE).optimizer)
        state = state_from(initial_params(trained, ARCHITECTURE, execution, mesh), optimizer)
        expected = jax.eval_shape(lambda: init_state(lambda: UALM(ARCHITECTURE, execution, nnx.Rngs(0)), optimizer))
    hf = golden_model.to_ours(golden_model.reference_tensors(golden_dir))
    for found, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        if wanted.sharding is not None:
            assert found.sharding.spec == wanted.sharding.spec
    for found, value in zip(jax.tree.leaves(nnx.to_pure_dict(state.params)), jax.tree.leaves(hf), strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(value).astype(found.dtype))


def test_a_run_can_begin_where_another_ended(trained, tmp_path):
    save_run(trained, tmp_path / "run")
    mesh = jax.sharding.get_mesh()
    both = [initial_params(path, ARCHITECTURE, Execution(), mesh) for path in (trained, tmp_path / "run")]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_a_model_that_could_not_listen_gets_a_fresh_adapter(trained, tmp_path):
    mesh = jax.sharding.get_mesh()
    deaf = dataclasses.replace(ARCHITECTURE, feature_width=None)
    whole = initial_params(trained, ARCHITECTURE, Execution(), mesh)
    save_run(trained, tmp_path / "deaf", deaf=True)
    params = initial_params(tmp_path / "deaf", ARCHITECTURE, Execution(), mesh, seed=3)
    fresh = jax.jit(lambda: nnx.state(UALM(ARCHITECTURE, Execution(), nnx.Rngs(3)), nnx.Param))()
    for name, wanted in {**whole, "adapter": fresh["adapter"]}.items():
        jax.tree.map(np.testing.assert_array_equal, params[name], wanted)
    assert "adapter" not in initial_params(tmp_path / "deaf", deaf, Execution(), mesh)


def test_another_model_is_refused(trained):
    config = dataclasses.replace(ARCHITECTURE, feature_width=None)
    with pytest.raises(UserError, match="init_from=.* has model.feature_width = 48, but this run has None"):
        initial_params(trained, config, Execution(), jax.sharding.get_mesh())


def test_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="expected the --workdir of a run, a converted checkpoint or a Hugging Face folder"
    ):
        initial_params(tmp_path, ARCHITECTURE, Execution(), jax.sharding.get_mesh())


def test_the_field_is_part_of_a_runs_configuration(trained):
    config = run_config(open_weights(trained).architecture, init_from="weights/base")
    assert from_mapping(type(config), to_mapping(config)).train.init_from == "weights/base"


@pytest.mark.parametrize("kind", ["converted", "hugging face", "run"])
def test_settings_for_generation_go_through_training(kind, golden_dir, tmp_path):
    """A run keeps what its weights came with, so that its own export has it too, and that of a run begun with it."""
    source = shutil.copytree(golden_dir / "qwen2", tmp_path / "source")
    settings = {"eos_token_id": [2, 3], "temperature": 0.7, "do_sample": True}
    (source / "generation_config.json").write_text(json.dumps(settings))
    import_qwen2(source, tmp_path / "ours", codec=golden_dir / "xcodec")
    begin = {"converted": tmp_path / "ours", "hugging face": source, "run": tmp_path / "first"}[kind]
    config = run_config(open_weights(tmp_path / "ours").architecture)
    workdirs = [tmp_path / "first", tmp_path / "second"] if kind == "run" else [tmp_path / "second"]
    for workdir, given in zip(workdirs, [tmp_path / "ours", begin] if kind == "run" else [begin], strict=True):
        save_run(tmp_path / "ours", workdir)
        train = dataclasses.replace(config.train, init_from=str(given))
        parts = parts_of(tmp_path / "ours")
        write_workdir(to_mapping(dataclasses.replace(config, train=train)), parts, workdir, sources=[], resumed=False)
    export_hf(open_weights(tmp_path / "second"), tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_text()) == settings
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["max_position_embeddings"] == 1024
