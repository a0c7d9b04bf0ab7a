"""A model with its layers apart is the same model, and is in memory once."""

import functools
import gc

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model

import ualm_jax
from ualm_jax.generate.weights import make_weights
from ualm_jax.models import int8, lora, unstacked
from ualm_jax.models.int8 import round_layers
from ualm_jax.models.unstacked import take_layers_apart
from ualm_jax.weights.fingerprints import model_fingerprint
from ualm_jax.weights.opener import open_weights


@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "int8"])
def test_it_computes_the_same_and_has_the_same_fingerprint(rounded, golden_dir, golden):
    model = golden_model.load(golden_dir)
    if rounded:
        round_layers(model)
    apart, batch = nnx.clone(model), golden_model.batch_of(golden, "batch_of_four")
    take_layers_apart(apart)
    hidden = [np.asarray(jax.jit(lambda model, batch: model(batch))(each, batch)) for each in (model, apart)]
    np.testing.assert_allclose(hidden[1], hidden[0], atol=1e-5)
    assert model_fingerprint(apart) == model_fingerprint(model)
    shifted = jax.tree.map(lambda leaf: leaf + 1 if leaf.ndim == 1 else leaf, apart)
    assert model_fingerprint(shifted) != model_fingerprint(model)


def bytes_of(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_what_decoding_reads_is_what_the_model_holds(golden_dir):
    model = golden_model.load(golden_dir)
    apart = nnx.clone(model)
    take_layers_apart(apart)
    weights, usual = make_weights(apart), make_weights(model)
    jax.tree.map(np.testing.assert_array_equal, weights, usual)
    held = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(apart)}
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((weights.layers, weights.model))} <= held


def test_adapters_over_8_bits_begin_without_a_second_model(monkeypatch):
    gc.collect()
    before, seen = sum(array.nbytes for array in jax.live_arrays()), []

    def watched(kernel, inputs):
        result = round_kernel(kernel, inputs)
        seen.append(sum(array.nbytes for array in jax.live_arrays()) - before)
        return result

    round_kernel = lora.int8_kernel
    monkeypatch.setattr(lora, "int8_kernel", watched)
    weights = open_weights("soundscript")
    config = lora.LoraConfig(rank=1, alpha=1.0, int8_base=True)
    read = functools.partial(weights.load_params, jax.sharding.get_mesh())
    lora.adapted_params(read, weights.architecture, weights.execution, config, 0)
    decoder = weights.architecture.decoder
    stored, largest = 2 * weights.architecture.num_params(), decoder.num_layers * decoder.width * decoder.mlp_dim
    assert max(seen) < stored + 3 * largest


@pytest.mark.parametrize("rounded", [False, True], ids=["as it is", "int8"])
def test_a_model_that_is_opened_is_never_in_memory_twice(rounded, monkeypatch):
    def bytes_held() -> int:
        return sum(array.nbytes for array in jax.live_arrays()) - before

    def watched(function):
        def call(*arguments):
            result = function(*arguments)
            seen.append(bytes_held())
            return result

        return call

    gc.collect()
    before, seen = sum(array.nbytes for array in jax.live_arrays()), []
    monkeypatch.setattr(unstacked, "_rows", watched(unstacked._rows))
    monkeypatch.setattr(int8, "int8_kernel", watched(int8.int8_kernel))
    model = ualm_jax.load("soundscript", int8=rounded, slots=1, window=64)
    layers, whole, others = (
        model.model.decoder.layers,
        bytes_of(model.model),
        bytes_of((model.codec.params, model.encoder)),
    )
    stored = model.architecture.num_params() * model.model.embed.nbytes // model.model.embed.size
    largest = len(layers) * max(leaf.size for leaf in jax.tree.leaves(layers[0]))  # numbers of a stacked kernel
    assert stored < max(seen) < stored + 4 * largest
    weights = model.engine.weights
    gc.collect()
    cache, heads = bytes_of(model.engine._state), bytes_of((weights.codebooks, weights.ends, weights.bias))
    assert bytes_held() < whole + cache + heads + others + 100_000
