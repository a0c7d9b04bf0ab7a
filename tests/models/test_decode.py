"""The cache: reading a prompt and stepping on is reading the whole."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import golden_model

from ualm_jax.models.attention import AttentionSpec
from ualm_jax.parallel.sharding import reshard, spec


def test_prefill_and_steps_equal_one_pass_over_right_padded_rows(golden_dir):
    model = golden_model.load(golden_dir)
    decoder = model.decoder
    B, P, steps = 3, 12, 9
    lengths = np.array([12, 5, 8])
    shape = (B, P + steps, model.architecture.decoder.width)
    x = jax.random.normal(jax.random.key(0), shape, out_sharding=spec("batch", None, None))

    @jax.jit
    def cached(prompt, tail):
        positions = jnp.broadcast_to(jnp.arange(P), (B, P))
        valid = positions < lengths[:, None]
        hidden, cache = decoder.prefill(prompt, positions, valid, P + steps + 4)
        outputs = []
        for step in range(steps):
            position = jnp.asarray(lengths[:, None] + step)
            out, cache = decoder.decode(decoder.unstacked(), tail[:, step : step + 1], position, cache)
            outputs.append(out[:, 0])
        return hidden, jnp.stack(outputs, axis=1)

    hidden, tail = cached(x[:, :P], x[:, P:])
    for row, length in enumerate(lengths):
        together = reshard(jnp.concatenate([x[row, :length], x[row, P:]])[None], "batch", None, None)
        T = together.shape[1]
        whole = decoder(together, jnp.arange(T)[None], AttentionSpec(jnp.ones((1, T), jnp.int32)))[0]
        np.testing.assert_allclose(hidden[row, :length], whole[:length], atol=1e-5)
        np.testing.assert_allclose(tail[row], whole[length:], atol=1e-5)
