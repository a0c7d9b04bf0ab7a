"""What `ualm compile` finds, on the sizes people train; needs libtpu, the compiler for TPUs."""

import importlib.util
import json
import re
import subprocess

import pytest
from helpers.compiling import execute, needs_plugin

from ualm_jax.aot.topology import _installed

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the compiler for TPUs, is not installed"
)
needs_cuda = pytest.mark.skipif(
    not _installed("jax_plugins", "jax_plugins.xla_cuda13", "tokamax"), reason="JAX's GPU plugin is not installed"
)
GIB = 2**30
BFLOAT16 = ["--config.execution.param_dtype=bfloat16", "--config.optimizer.state_dtype=bfloat16"]


def run(tmp_path, config: str, topology: str, *overrides: str) -> tuple[subprocess.CompletedProcess, dict | None]:
    out = tmp_path / "report.json"
    words = ["compile", "--config", f"configs/{config}.py", "--topology", topology, "--json", str(out), *overrides]
    done = execute(f"import sys; from ualm_jax.cli.main import run; sys.exit(run({words!r}))")
    return done, json.loads(out.read_text())[0] if out.exists() else None


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    "config, topology, overrides, budget",
    [
        ("pretrain_1_5b", "v5e:4x4", ["--config.data.batch_size=16"], 6.0),
        ("pretrain_1_5b", "v5p:2x2x4", ["--config.data.batch_size=16"], 6.0),
        ("pretrain_1_5b", "v5p:8x8x8", ["--config.data.batch_size=512"], 6.0),
        ("pretrain_7b", "v5e:4x4", ["--config.data.batch_size=16", "--config.mesh.fsdp=16"], 12.0),
        ("pretrain_7b", "v5p:2x2x4", ["--config.data.batch_size=16", "--config.mesh.fsdp=16"], 12.0),
        ("pretrain_7b", "v5p:8x8x8", ["--config.data.batch_size=512", "--config.mesh.fsdp=64"], 6.0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_device_needs_no_more_memory_than_its_budget(tmp_path, config, topology, overrides, budget):
    """One row of 4 096 positions per device."""
    done, report = run(tmp_path, config, topology, *overrides)
    assert done.returncode == 0, done.stderr[-2000:]
    assert report["memory"]["peak"] <= budget * GIB
    # Weights are gathered and gradients reduced; nothing of the size of all activations or logits travels.
    weights = report["params"] * 2
    assert report["collectives"]["all-gather"]["bytes"] <= 2.1 * weights
    assert report["collectives"].get("all-to-all", {"bytes": 0})["bytes"] <= 0.01 * weights


@needs_cuda
@pytest.mark.slow
@pytest.mark.parametrize(
    "config, topology, overrides, budget",
    [
        ("pretrain_1_5b", "h100:8", ["--config.data.batch_size=8"], 6.0),
        ("pretrain_7b", "h100:1", ["--config.data.batch_size=4", "--config.mesh.fsdp=1", *BFLOAT16], 74.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_card_needs_no_more_memory_than_its_budget(tmp_path, config, topology, overrides, budget):
    """Flash attention is in the program; a 7B trains on one card."""
    done, report = run(tmp_path, config, topology, *overrides)
    assert done.returncode == 0, done.stderr[-2000:]
    assert report["memory"]["peak"] <= budget * GIB and ": pallas" in done.stdout + done.stderr


STAGES = {  # with the overrides of its launch command for one machine of 8
    "ualm_gen_1_5b": ["--config.train.grad_accum_steps=4"],
    "align_7b": ["--config.train.grad_accum_steps=80"],
    "ualm_7b": ["--config.train.grad_accum_steps=16"],
    "sft_reason_7b": ["--config.train.grad_accum_steps=4", "--config.data.directory=data/reason_1"],
    "adapt_gen_1_5b": ["--config.data.directory=data/winners"],
    "dpo_gen_1_5b": ["--config.data.directory=data/pairs"],
    "dpo_reason_7b": ["--config.train.grad_accum_steps=4", "--config.data.directory=data/pairs"],
}


@pytest.mark.slow
@pytest.mark.parametrize("config", STAGES)
@pytest.mark.parametrize(
    "topology", [pytest.param("v5p:2x2x2", marks=needs_libtpu), pytest.param("h100:8", marks=needs_cuda)]
)
def test_every_stage_fits_one_machine_of_8(tmp_path, config, topology):
    done, report = run(tmp_path, config, topology, *STAGES[config])
    assert done.returncode == 0 and report["problem"] is None, done.stderr[-2000:]
    assert 0 < report["memory"]["peak"] <= report["memory_limit"]
    # Parameters in float32, and moments of what is trained, split over 8 devices; the batch is small.
    copies = 1 if config == "align_7b" else 3
    assert report["memory"]["arguments"] <= 1.2 * copies * 4 * report["params"] / 8


STEP = """
import dataclasses, jax
from ualm_jax.aot.topology import describe
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.models.config import QWEN2_5, Architecture, Execution
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.config import RunConfig, TrainConfig
from ualm_jax.train.optimizer import OptimizerConfig
from ualm_jax.train.stages.run import lower_step
topology = describe("h100:1")
model = Architecture(dataclasses.replace(QWEN2_5["1.5b"], num_layers=2), Vocabulary(151_936, 1024, 8))
config = RunConfig(model, DataConfig(directory="none is read", seq_len=1024, batch_size=1), OptimizerConfig(),
                   TrainConfig(steps=1), execution=Execution(remat="save_attention"))
mesh = make_mesh(MeshConfig(1, 1, 1), topology.devices)
with jax.set_mesh(mesh), jax.default_device(topology.devices[0]):
    program = lower_step(config, mesh).compile().as_text()
"""


@needs_plugin
@pytest.mark.slow
def test_a_step_on_a_card_copies_no_parameter():
    """Two norms in one kernel with what moves the parameters would."""
    done = execute(STEP + "print(program)")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "f32[2,1536,8960]" in done.stdout
    assert not re.findall(
        r"= f32\[(?:2,1536,8960|1536,152192)\]\S* copy\(%(?!broadcast)", done.stdout
    )  # of zeros is fine


@needs_plugin
@pytest.mark.slow
def test_what_our_attention_kernels_keep_for_their_backward_pass_is_kept_once(tmp_path):
    done, report = run(
        tmp_path,
        "pretrain_1_5b",
        "h100:1",
        *["--config.data.batch_size=4", "--config.mesh.fsdp=1", "--config.execution.attention=pallas"],
        "--config.execution.remat=save_attention",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert report["memory"]["peak"] <= 30.5 * GIB  # a second copy of what was attended is 1.3 GiB


@needs_libtpu
@pytest.mark.slow
def test_what_does_not_fit_is_said_in_the_compilers_words(tmp_path):
    done, report = run(tmp_path, "pretrain_7b", "v5e:2x2", "--config.data.batch_size=4", "--config.mesh.fsdp=4")
    assert done.returncode == 1 and "RESOURCE_EXHAUSTED" in report["problem"] and "HBM" in report["problem"].upper()


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("dtype, most", [("bfloat16", 250e6), ("float32", 1000e6)])
def test_the_loss_needs_little_memory(dtype, most):
    """8 192 positions x 152 064 columns x width 2 048 in bf16 on one v5e; plain logits alone would take 5 GB."""
    program = f"""
import jax, jax.numpy as jnp
from ualm_jax.aot.topology import describe
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec
from ualm_jax.models.cross_entropy import cross_entropy
mesh = make_mesh(MeshConfig(), describe("v5e:1x1").devices)
def array(shape, dtype, *axes):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, spec(*axes)))
D, V, Q, W, S, B, T = 2048, 152064, 8, 1025, 8, 2, 4096
def loss(h, text, audio, bias, targets, weights):
    return jnp.sum(cross_entropy(h, text, audio, bias, targets, 3712)[0] * weights)
with jax.set_mesh(mesh):
    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3))).lower(
        array((B, T, D), "bfloat16", "batch", None, None), array((D, V), "{dtype}", "embed", "vocab"),
        array((D, Q, W), "{dtype}", "embed", "codebooks", None), array((S, Q, W), "float32", None, "codebooks", None),
        array((B, T, S), "int32", "batch", None, None), array((B, T, S), "float32", "batch", None, None)).compile()
print(compiled.memory_analysis().temp_size_in_bytes)
"""
    done = execute(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) <= most


UNKNOWN = ["v5e", "v9:2x2", "h100:", "laptop:1"]
HAS_PLUGIN = _installed("jax_plugins", "jax_plugins.xla_cuda13")


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    """The last line that the command writes for each topology that it refuses; one process asks for all of them."""
    words = ["compile", "--config", "configs/tiny.py", "--topology"]
    done = execute(f"""
import sys
from ualm_jax.cli.main import run
for topology in {[*UNKNOWN, *([] if HAS_PLUGIN else ["h100:8"])]!r}:
    code = run([*{words!r}, topology])
    print("refused" if code == 1 else "taken", topology, file=sys.stderr, flush=True)
""")
    lines = done.stderr.splitlines()
    return {line.removeprefix("refused "): lines[i - 1] for i, line in enumerate(lines) if line.startswith("refused ")}


@pytest.mark.parametrize("topology", UNKNOWN)
def test_an_unknown_topology_is_one_sentence(refusals, topology):
    assert refusals[topology].startswith(f"ualm compile: --topology {topology} is not known; expected a TPU")


@pytest.mark.skipif(HAS_PLUGIN, reason="JAX's GPU plugin is installed here")
def test_a_compiler_that_is_not_installed_is_named(refusals):
    assert refusals["h100:8"].endswith("install it with: pip install '.[cuda]'.")


@needs_libtpu
@pytest.mark.parametrize("topology, chips", [("v4:2x2x2", 8), ("v5e:2x4", 8), ("v5p:2x2x1", 4), ("v6e:4x4", 16)])
def test_every_tpu_has_a_device_for_each_chip(topology, chips):
    program = f"from ualm_jax.aot.topology import describe; print(len(describe({topology!r}).devices))"
    done = execute(program)
    assert done.stdout.split() == [str(chips)], done.stderr[-2000:]


@needs_libtpu
def test_an_axis_of_the_mesh_may_take_part_of_an_axis_of_the_slice():
    program = "from ualm_jax.aot.topology import describe; from ualm_jax.parallel.mesh import MeshConfig, make_mesh; "
    program += "print(*make_mesh(MeshConfig(fsdp=8), describe('v5p:4x4x4').devices).shape.values())"
    done = execute(program)
    assert done.stdout.split() == ["8", "8", "1"], done.stderr[-2000:]
