"""The model against the reference's logits, and what must not change them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model

from ualm_jax.models.attention import AttentionSpec, attend
from ualm_jax.models.config import QWEN2_5, REMAT_POLICIES, Architecture, DecoderConfig, Execution
from ualm_jax.models.norm import rms_norm
from ualm_jax.models.rope import apply_rope
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import spec
from ualm_jax.tokens.types import Batch
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.train.objectives.next_token import next_token


@pytest.fixture(scope="module")
def model(golden_dir):
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return golden_model.load(golden_dir)


hidden_of = jax.jit(lambda model, batch: model(batch))
normalisers = jax.jit(lambda logits: jax.nn.logsumexp(logits, axis=-1))


@jax.jit
def all_logits(model, batch):
    """[B, T, S, V], as the reference computes them: the whole vocabulary for every stream."""
    hidden = model(batch)
    states = jnp.concatenate([hidden[:, :, None], model.stream_states(hidden)], axis=2)
    head = jnp.concatenate([model.text_head[...], model.audio_head[...].reshape(states.shape[-1], -1)], axis=1)
    return jnp.einsum("btsd,dv->btsv", states, head)


def test_logits_equal_the_references(model, golden):
    logits = all_logits(model, golden_model.batch_of(golden, "reason"))
    np.testing.assert_allclose(logits[0], golden["reason/logits"], atol=1e-4)


@pytest.mark.parametrize("name", ["gen", "und", "txt", "reason"])
def test_every_softmax_has_the_references_normaliser(name, model, golden):
    logits = all_logits(model, golden_model.batch_of(golden, name))
    np.testing.assert_allclose(normalisers(logits)[0], golden[f"{name}/logit_logsumexp"], atol=1e-4)


@jax.jit
def one_by_one(model, batch):
    """[B, T, D], what is hidden, without a scan over layers."""
    decoder, x = model.decoder, model.embed_batch(batch)
    cos, sin = decoder._rope(batch.positions)
    attention = AttentionSpec(batch.segment_ids)

    def attend_all(q, k, v):
        return attend(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, attention), None

    for i in range(decoder.config.num_layers):
        layer = jax.tree.map(lambda array, i=i: array[i], decoder.layers)
        x, _ = layer(x, attend_all)
    return rms_norm(x, decoder.norm[...], decoder.config.norm_eps)


def test_scanned_layers_equal_layers_one_by_one(model, golden):
    batch = golden_model.batch_of(golden, "batch_of_four")
    np.testing.assert_allclose(hidden_of(model, batch), one_by_one(model, batch), atol=1e-5)


def packed(golden) -> Batch:
    """The four golden conversations in one row, and a padded tail."""
    singles = [golden_model.batch_of(golden, name) for name in ("gen", "und", "txt", "reason")]
    T = 200
    arrays = {}
    for field in ("tokens", "loss_weights", "positions", "feature_index"):
        row = np.concatenate([np.asarray(getattr(single, field)[0]) for single in singles])
        fill = -1 if field == "feature_index" else 0
        pad = [(0, T - len(row))] + [(0, 0)] * (row.ndim - 1)
        arrays[field] = jnp.asarray(np.pad(row, pad, constant_values=fill))[None]
    lengths = [single.tokens.shape[1] for single in singles]
    segments = np.concatenate([np.full(length, i + 1) for i, length in enumerate(lengths)])
    segments = np.pad(segments, (0, T - len(segments))).astype(np.int32)
    return Batch(segment_ids=jnp.asarray(segments)[None], features=singles[1].features, **arrays)


def test_packed_loss_and_gradients_equal_unpacked_ones(model, golden):
    graph, params = nnx.split(model)

    def sums(params, batch):
        result = next_token(nnx.merge(graph, params), batch)
        return result["loss"].total, result

    run = jax.jit(jax.value_and_grad(sums, has_aux=True))
    (_, together), grad_together = run(params, packed(golden))
    apart = [run(params, golden_model.batch_of(golden, name)) for name in ("gen", "und", "txt", "reason")]
    total = jax.tree.map(lambda *xs: sum(xs), *[result[0][1] for result in apart])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), together, total)
    grad_apart = jax.tree.map(lambda *xs: sum(xs), *[result[1] for result in apart])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), grad_together, grad_apart)


def test_one_document_never_sees_another(model, golden):
    batch = packed(golden)
    changed = batch._replace(tokens=batch.tokens.at[0, :51].set(300))
    hidden, hidden_changed = (np.asarray(hidden_of(model, each)) for each in (batch, changed))
    np.testing.assert_array_equal(hidden[0, 51:], hidden_changed[0, 51:])
    assert not np.array_equal(hidden[0, :51], hidden_changed[0, :51])


@pytest.mark.parametrize(
    "remat, unroll", [(policy, False) for policy in REMAT_POLICIES if policy != "none"] + [("save_attention", True)]
)
def test_neither_remat_nor_layers_without_a_loop_change_a_gradient(remat, unroll, model, golden):
    batch = golden_model.batch_of(golden, "reason")
    graph, params = nnx.split(model)

    def grad(remat, unroll):
        def loss(params):
            merged = nnx.merge(graph, params)
            merged.execution = dataclasses.replace(model.execution, remat=remat, unroll_layers=unroll)
            return next_token(merged, batch)["loss"].total

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grad(remat, unroll), grad("none", False))


def test_layers_without_a_loop_are_no_loop(model, golden):
    batch = golden_model.batch_of(golden, "reason")
    structure, params = nnx.split(model)

    def loops(unroll):
        def hidden(params):
            merged = nnx.merge(structure, params)
            merged.execution = dataclasses.replace(model.execution, unroll_layers=unroll)
            return merged(batch)

        return jax.jit(hidden).lower(params).as_text().count("stablehlo.while")

    assert (loops(False), loops(True)) == (1, 0)


def test_each_policy_keeps_what_it_names(model):
    """Bytes that wait for the backward pass: a layer's input, then what was attended, then every kernel's product."""
    config = golden_model.ARCHITECTURE.decoder
    x = jnp.ones((2, 64, config.width), out_sharding=spec("batch", None, None))
    attention = AttentionSpec(jnp.ones((2, 64), jnp.int32))

    def kept(policy):
        forward = lambda decoder: decoder(x, jnp.zeros((2, 64), jnp.int32), attention, Execution(remat=policy))  # noqa: E731
        residuals = jax.eval_shape(lambda decoder: jax.vjp(forward, decoder)[1], model.decoder)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))

    layer_output = x.nbytes * config.num_layers
    heads = config.num_heads * config.head_dim / config.width
    # Of the kernels' products, the last one is only added to what is kept anyway.
    products = 1 + 2 * config.mlp_dim / config.width + heads + 2 * config.num_kv_heads / config.num_heads * heads
    full = kept("full")
    assert kept("save_attention") - full == pytest.approx(layer_output * heads)
    assert kept("dots") - full == pytest.approx(layer_output * products)
    assert kept("none") > kept("dots")


def test_eight_devices_compute_what_one_does(golden, golden_dir):
    batch = golden_model.batch_of(golden, "batch_of_four")

    def run(mesh):
        with jax.set_mesh(mesh):
            model = golden_model.load(golden_dir)
            graph, params = nnx.split(model)
            rows = jax.tree.map(
                lambda x: jax.device_put(np.asarray(x), jax.NamedSharding(mesh, spec("batch", *[None] * (x.ndim - 1)))),
                batch,
            )

            def loss(params, rows):
                return next_token(nnx.merge(graph, params), rows)["loss"].value()

            value, grads = jax.jit(jax.value_and_grad(loss))(params, rows)
            return float(value), jax.tree.map(np.asarray, nnx.to_pure_dict(grads))

    value_1, grads_1 = run(make_mesh(MeshConfig(), jax.devices()[:1]))
    value_8, grads_8 = run(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    np.testing.assert_allclose(value_8, value_1, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads_8, grads_1)


@pytest.mark.parametrize("size", QWEN2_5)
def test_the_parameter_formula_is_the_parameters(size):
    text = 152_064 if size == "7b" else 151_936
    config = Architecture(QWEN2_5[size], Vocabulary(text, 1024), feature_width=1280)
    model = jax.eval_shape(lambda: UALM(config, Execution(), nnx.Rngs(0)))
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert counted == config.num_params()


@pytest.mark.parametrize("layers", [1, 2])
def test_adapters_compute_what_torch_does(layers):
    """One linear layer, as the reference's; two with a GELU, as Audio Flamingo 3's projector."""
    import torch

    config = dataclasses.replace(golden_model.ARCHITECTURE, adapter_layers=layers)
    adapter = jax.jit(lambda: UALM(config, Execution(), nnx.Rngs(0)).adapter)()
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(adapter, nnx.Param)))
    without = dataclasses.replace(config, feature_width=None)
    assert counted == config.num_params() - without.num_params()

    linear = [torch.nn.Linear(48, 64), torch.nn.Linear(64, 64)][:layers]
    for ours, theirs in zip([("kernel", "bias"), ("out_kernel", "out_bias")], linear, strict=False):
        getattr(adapter, ours[0]).set_value(jnp.asarray(theirs.weight.detach().numpy().T))
        getattr(adapter, ours[1]).set_value(jnp.asarray(theirs.bias.detach().numpy()))
    stack = torch.nn.Sequential(linear[0], *([torch.nn.GELU(), linear[1]] if layers == 2 else []))
    features = np.random.default_rng(0).normal(size=(2, 5, 48)).astype(np.float32)
    expected = stack(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(adapter(jnp.asarray(features)), expected, atol=1e-5)


def test_a_wrong_size_is_named():
    from ualm_jax.errors import UserError

    with pytest.raises(UserError, match="num_heads .* must be a multiple of num_kv_heads"):
        DecoderConfig(num_layers=1, width=64, num_heads=4, num_kv_heads=3, mlp_dim=8)
    with pytest.raises(UserError, match="execution.remat must be one of"):
        Execution(remat="some")
