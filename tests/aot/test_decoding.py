"""What the GPU compiler makes of a step of decoding; needs JAX's GPU plugin."""

import re

import pytest
from helpers.compiling import execute, needs_plugin

DECODING = """
import dataclasses, jax
from flax import nnx
from ualm_jax.aot.topology import describe
from ualm_jax.generate.decode import Settings, decode_segment
from ualm_jax.generate.weights import make_weights
from ualm_jax.models.int8 import round_layers
from ualm_jax.models.config import QWEN2_5, Architecture, Execution
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary
topology = describe("h100:1")
decoder = dataclasses.replace(QWEN2_5["1.5b"], num_layers=2)
config = Architecture(decoder, Vocabulary(151_936, 1024, 8))
mesh = make_mesh(MeshConfig(), topology.devices)
def array(*shape, dtype="int32"):
    sharding = jax.NamedSharding(mesh, spec("batch", *[None] * (len(shape) - 1)))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
with jax.set_mesh(mesh), jax.default_device(topology.devices[0]):
    def model():
        model = UALM(config, Execution(param_dtype="bfloat16", decode_attention="BACKEND"), nnx.Rngs(0))
        CHANGED
        return model
    weights = jax.eval_shape(lambda: make_weights(model()))
    batch = Batch(array(2, 128, 8), array(2, 128, 8, dtype="float32"), array(2, 128), array(2, 128))
    one, real = array(1), array(1, dtype="float32")
    settings = Settings(one, array(1, 8, dtype="float32"), array(1, 8), real, array(1, dtype="uint32"), one, one, one,
                        array(1, dtype="bool"))
    flags = dict(num_steps=64, text=False, guided=True, enforce=True, greedy=False)
    print(decode_segment.lower(weights, batch, settings, None, **flags).compile().as_text())
"""
"""Prints the program of a 1.5B of two layers on an H100; CHANGED is what becomes of the model."""


def decoding(changed: str = "", backend: str = "xla") -> str:
    return DECODING.replace("CHANGED", changed).replace("BACKEND", backend)


backends = pytest.mark.parametrize("backend", ["xla", "pallas"])


@needs_plugin
@pytest.mark.slow
@backends
def test_a_step_of_decoding_multiplies_q_k_v_at_once_and_gate_up_at_once(backend):
    """The GPU compiler merges products of one input, outside of the loop, as long as kernels are plain matrices."""
    done = execute(decoding(backend=backend))
    assert done.returncode == 0, done.stderr[-2000:]
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* dot\(.*while/body/bti,io->bto", done.stdout)
    # o and down are 1 536 wide; q, k, v together 2 048, gate and up together 17 920.
    assert {max(map(int, shape.split(","))) for shape in shapes} == {1536, 2048, 17920}
    assert done.stdout.count('/kth_largest/pallas_call"') == 1  # top-k, in one kernel


@needs_plugin
@pytest.mark.slow
@backends
def test_a_step_of_decoding_with_8_bit_layers_reads_integers_and_writes_no_kernel(backend):
    """What makes them integers no longer is part of the product that reads them."""
    done = execute(decoding("round_layers(model)", backend))
    assert done.returncode == 0, done.stderr[-2000:]
    kernels = r"= (bf16|f32)\[(1536,8960|8960,1536|1536,17920|1536,1536|1536,2048)\]\S* (\w+)\("
    made, inside = [], ""
    for line in done.stdout.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            inside = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0]
        found = re.search(kernels, line)
        if found and "while/body" in line and not inside.startswith("gemm_fusion"):
            made.append(line.strip()[:120])
    assert not made
    assert re.search(r"%gemm_fusion\S* = \S+ fusion\(", done.stdout) and "s8[1536,17920]" in done.stdout


@needs_plugin
@pytest.mark.slow
@pytest.mark.parametrize("steps, most", [(64, 43), (1500, 45)], ids=["short", "long"])
def test_a_step_of_decoding_is_ten_kernels_a_layer(steps, most):
    """Two layers, and 23 kernels for the embedding, the head and the draw. The positions of a long cache are split
    among programs, which takes one kernel more. Nothing copies the cache or writes it but the kernel that attends.
    """
    done = execute(decoding(backend="pallas").replace("num_steps=64", f"num_steps={steps}"))
    assert done.returncode == 0, done.stderr[-2000:]
    parts = re.split(r"\n(?=%|ENTRY)", done.stdout)
    body = next(part for part in parts if '/kth_largest/pallas_call"' in part and not part.startswith("ENTRY"))
    kernels = re.findall(r"^  (?:ROOT )?%\S+ = (.*?) (?:fusion|custom-call|copy)\(", body, re.MULTILINE)
    assert len(kernels) <= most
    cache = f"bf16[2,2,{128 + steps},128]"
    assert [kernel.count(cache) for kernel in kernels if cache in kernel] == [2, 2]
