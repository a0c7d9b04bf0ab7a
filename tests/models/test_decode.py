"""The cache: reading a prompt and stepping on is reading the whole."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import golden_model

from ualm_jax.models.attention import AttentionSpec
from ualm_jax.models.attention import cache as attention_cache
from ualm_jax.models.config import Execution
from ualm_jax.parallel.sharding import reshard, spec


def test_prefill_and_steps_equal_one_pass_over_right_padded_rows(golden_dir):
    """A prompt read at once, or in two parts; then steps. Every row has its own length."""
    model = golden_model.load(golden_dir)
    decoder = model.decoder
    B, P, steps, first = 3, 12, 9, 4
    lengths = np.array([12, 5, 8])
    shape = (B, P + steps, model.architecture.decoder.width)
    x = jax.random.normal(jax.random.key(0), shape, out_sharding=spec("batch", None, None))

    @jax.jit
    def cached(prompt, tail):
        layers = decoder.unstacked()
        hidden, whole = decoder.prefill(layers, prompt, jnp.asarray(lengths))
        head, parts = decoder.prefill(layers, prompt[:, :first], jnp.full(B, first))
        more, parts = decoder.extend(layers, prompt[:, first:], jnp.asarray(lengths - first), parts.with_room(20))
        outputs = []

        def step(cache, x):
            out, cache = decoder.decode(layers, x[:, None], cache)
            return cache, out[:, 0]

        for cache in (whole.with_room(steps), parts):
            made = jax.lax.scan(step, cache, jnp.moveaxis(tail, 1, 0))[1]
            outputs.append(jnp.moveaxis(made, 0, 1))
        return (hidden, jnp.concatenate([head, more], axis=1)), outputs

    @jax.jit
    def one_pass(x):
        T = x.shape[1]
        return decoder(x, jnp.arange(T)[None], AttentionSpec(jnp.ones((1, T), jnp.int32)), Execution())[0]

    for hidden, tail in zip(*cached(x[:, :P], x[:, P:]), strict=True):
        for row, length in enumerate(lengths):
            together = reshard(jnp.concatenate([x[row, :length], x[row, P:]])[None], "batch", None, None)
            whole = one_pass(together)
            np.testing.assert_allclose(hidden[row, :length], whole[:length], atol=1e-5)
            np.testing.assert_allclose(tail[row], whole[length:], atol=1e-5)


def test_logits_are_the_same_on_every_platform():
    """CPUs have a form of their own, so the one of other platforms would not run here."""
    q, keys = (jax.random.normal(jax.random.key(len(shape)), shape) for shape in ((3, 2, 2, 4, 8), (3, 2, 16, 8)))
    here, elsewhere = attention_cache._logits_keys_first(q, keys), attention_cache._logits(q, keys)
    assert here.shape == elsewhere.shape == (3, 2, 2, 4, 16)
    np.testing.assert_allclose(here, elsewhere, rtol=1e-5, atol=1e-5)
