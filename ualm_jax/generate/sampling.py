"""How the next token is drawn: what a user may set, and the draw itself."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Settings of one answer. Defaults are the reference's (`inference.yaml`), 10 s of audio at most.

    temperature, top_k: of audio, one number for all streams or one per stream. Temperature 0 takes the likeliest
        token; top_k 0 draws from all, and tokens that tie with the k-th stay in.
    cfg_scale: classifier-free guidance of audio, uncond + scale * (cond - uncond); 1 is none, and costs none.
    min_frames, max_frames: bounds on the frames of audio; equal, they set the duration exactly.
    text_temperature, text_top_k, max_tokens: of text, which is never guided; max_tokens counts the end token.
    seed: together with the prompt, it decides everything that is drawn.
    reference_behaviour: as the public UALM code samples, to compare with it: the unconditional context loses its
        role token, the delay structure is not enforced, and `<|speech|>` cannot be chosen.
    """

    temperature: float | tuple[float, ...] = 0.8
    top_k: int | tuple[int, ...] = 20
    cfg_scale: float = 3.0
    min_frames: int = 1
    max_frames: int = 500
    text_temperature: float = 0.0
    text_top_k: int = 20
    max_tokens: int = 1024
    seed: int = 0
    reference_behaviour: bool = False

    def __post_init__(self):
        least = dict(temperature=0, top_k=0, cfg_scale=0, min_frames=1, text_temperature=0, text_top_k=0)
        least |= dict(max_frames=self.min_frames, max_tokens=1, seed=0)
        for name, bound in least.items():
            value = getattr(self, name)
            # Written so that NaN fails too.
            if not all(entry >= bound for entry in (value if isinstance(value, tuple) else (value,))):
                raise UserError(f"sampling.{name} must be at least {bound}, got {value}.")
        if self.seed >= 2**32:
            raise UserError(f"sampling.seed must be below 2**32, got {self.seed}.")

    def per_stream(self, name: str, num_streams: int) -> tuple:
        """The setting `name`, once for each stream."""
        value = getattr(self, name)
        if not isinstance(value, tuple):
            return (value,) * num_streams
        if len(value) != num_streams:
            raise UserError(f"sampling.{name} must be one number or {num_streams}, one for each stream, got {value}.")
        return value


def guide(
    cond: Float[Array, "B S C"], uncond: Float[Array, "B S C"], scale: Float[Array, " B"]
) -> Float[Array, "B S C"]:
    """Classifier-free guidance as MusicGen and UALM define it. Mask afterwards: -inf minus -inf is NaN."""
    scale = scale[:, None, None]
    return jnp.where(scale == 1, cond, uncond + scale * (cond - uncond))


def draw(
    logits: Float[Array, "B S C"],
    allowed: Bool[Array, "B S C"],
    temperature: Float[Array, "B S"],
    top_k: Int[Array, "B S"],
    seed: UInt[Array, " B"],
    step: Int[Array, ""],
    greedy: bool = False,
) -> Int[Array, "B S"]:
    """One allowed column per row and stream, in float32.

    A row's draw depends on its own logits, settings, seed and step, not on the rows beside it. greedy: no temperature
    is above 0, which saves the noise for a whole text vocabulary and the search for its k-th largest.
    """
    logits = jnp.where(allowed, logits, -jnp.inf)
    if greedy:
        return first_largest(logits)
    width = logits.shape[-1]
    kept = kth_largest(logits, jnp.where(top_k == 0, width, jnp.minimum(top_k, width)))
    noise = jax.vmap(lambda seed: _gumbel(seed, step, logits.shape[1:]))(seed)
    # From the largest one down: however small the temperature, that one stays finite.
    below = logits - jnp.max(logits, axis=-1, keepdims=True)
    noisy = below / jnp.where(temperature > 0, temperature, 1)[..., None] + noise
    noisy = jnp.where(logits >= kept[..., None], noisy, -jnp.inf)
    return first_largest(jnp.where(temperature[..., None] > 0, noisy, logits))


def first_largest(x: Float[Array, "*rows C"]) -> Int[Array, "*rows"]:
    """`jnp.argmax` of numbers, as two plain reductions: on a CPU four times as fast."""
    C = x.shape[-1]
    found = jnp.where(x == jnp.max(x, axis=-1, keepdims=True), jnp.arange(C), C - 1)
    return jnp.min(found, axis=-1)


def kth_largest(x: Float[Array, "*rows C"], k: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """The k-th largest of each row, 1 <= k <= C, in float32.

    Two bits of the answer at a time, by counting: k need not be known when this is compiled, as for `top_k`,
    and a row of a vocabulary is not sorted for the sake of one of its entries.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    ordered = jnp.where(bits >= sign, ~bits, bits | sign)  # as unsigned integers, in the order of the floats
    found = jnp.zeros(k.shape, jnp.uint32)
    for shift in range(30, -1, -2):
        candidates = found[..., None] | (jnp.arange(1, 4, dtype=jnp.uint32) << shift)
        at_least = jnp.sum(ordered[..., None, :] >= candidates[..., None], axis=-1)
        # Counts fall as candidates grow, so the number that still reach k is the digit.
        digit = jnp.sum(at_least >= k[..., None], axis=-1).astype(jnp.uint32)
        found = found | (digit << shift)
    return jax.lax.bitcast_convert_type(jnp.where(found >= sign, found ^ sign, ~found), jnp.float32)


def _gumbel(seed, step, shape):
    return jax.random.gumbel(jax.random.fold_in(jax.random.key(seed), step), shape, jnp.float32)
