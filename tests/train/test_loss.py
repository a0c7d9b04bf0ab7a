"""The loss against the reference's numbers, and what must not change it."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model

from ualm_jax.train.objectives.next_token import next_token

NAMES = ["gen", "und", "txt", "reason"]


@pytest.fixture(scope="module")
def model(golden_dir):
    from ualm_jax.parallel.mesh import MeshConfig, make_mesh

    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return golden_model.load(golden_dir)


@pytest.mark.parametrize("name", [*NAMES, "batch_of_four"])
def test_loss_and_accuracy_equal_the_references(name, model, golden, expected):
    sums = jax.device_get(jax.jit(next_token)(model, golden_model.batch_of(golden, name)))
    np.testing.assert_allclose(sums["loss"].value(), expected[name]["loss"], rtol=1e-4)
    stats = expected[name]["stats"]
    for stream in range(8):
        if f"acc_layer{stream}" in stats:
            accuracy = sums["accuracy/stream"].value()[stream]
            np.testing.assert_allclose(accuracy, stats[f"acc_layer{stream}"], atol=1e-6)


@pytest.fixture(scope="module")
def value_and_grad(model, golden):
    """By the positions of a chunk: the loss of four conversations, and its gradients."""
    batch = golden_model.batch_of(golden, "batch_of_four")
    graph, params = nnx.split(model)

    @functools.cache
    def at(chunk):
        def loss(params):
            chunked = nnx.merge(graph, params)
            chunked.execution = dataclasses.replace(model.execution, loss_chunk=chunk)
            return next_token(chunked, batch)["loss"].value()

        return jax.jit(jax.value_and_grad(loss))(params)

    return at


def test_every_gradient_norm_equals_the_references(value_and_grad, expected):
    grads = nnx.to_pure_dict(value_and_grad(16)[1])
    norms = expected["batch_of_four"]["grad_l2"]
    squares = {name: np.asarray(value) for name, value in norms.items()}
    # One norm per array of ours: layers are stacked there, and the head is held in two parts.
    layers = grads["decoder"]["layers"]
    ours = {
        "model.embed_tokens.weight": grads["embed"],
        "model.norm.weight": grads["decoder"]["norm"],
        "stream_emb.weight": grads["stream_embed"],
        "adaptor.continuous_audio.weight": grads["adapter"]["kernel"],
        "adaptor.continuous_audio.bias": grads["adapter"]["bias"],
    }
    names = {
        "self_attn.q_proj.weight": layers["attention"]["q_kernel"],
        "self_attn.q_proj.bias": layers["attention"]["q_bias"],
        "self_attn.k_proj.weight": layers["attention"]["k_kernel"],
        "self_attn.k_proj.bias": layers["attention"]["k_bias"],
        "self_attn.v_proj.weight": layers["attention"]["v_kernel"],
        "self_attn.v_proj.bias": layers["attention"]["v_bias"],
        "self_attn.o_proj.weight": layers["attention"]["o_kernel"],
        "mlp.gate_proj.weight": layers["mlp"]["gate"],
        "mlp.up_proj.weight": layers["mlp"]["up"],
        "mlp.down_proj.weight": layers["mlp"]["down"],
        "input_layernorm.weight": layers["attention_norm"],
        "post_attention_layernorm.weight": layers["mlp_norm"],
    }
    for name, stacked in names.items():
        ours |= {f"model.layers.{i}.{name}": np.asarray(stacked)[i] for i in range(3)}
    got = {name: float(np.linalg.norm(np.asarray(grad))) for name, grad in ours.items()}
    got["lm_head.weight"] = float(
        np.hypot(*(np.linalg.norm(np.asarray(grads[part])) for part in ("text_head", "audio_head")))
    )
    assert got.keys() == squares.keys()
    for name in got:
        np.testing.assert_allclose(got[name], squares[name], rtol=1e-3, err_msg=name)


def test_chunked_loss_equals_the_naive_one(value_and_grad):
    whole, whole_grad = value_and_grad(1000)
    for chunk in (1, 7, 16):
        part, part_grad = value_and_grad(chunk)
        np.testing.assert_allclose(part, whole, rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), part_grad, whole_grad)
