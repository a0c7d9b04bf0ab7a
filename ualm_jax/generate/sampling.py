"""How the next token is drawn: what a user may set, and the draw itself."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Seed, Share, check_fields
from ualm_jax.generate.kth_largest import kth_largest, largest

_LARGEST = 1e6  # beyond it, products of float32 become infinite
_Factor = Annotated[float, Bounds(at_least=0, at_most=_LARGEST)]
_TopK = Annotated[int, Bounds(at_least=0, at_most=2**31 - 1)]
_TopP = Annotated[float, Bounds(above=0, at_most=1)]
_Steps = Annotated[int, Bounds(at_least=1, at_most=2**24)]


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Settings of one answer. Defaults are the reference's (`inference.yaml`), 10 s of audio at most.

    temperature, top_k, top_p, min_p: of audio, one number for all streams or one per stream. Temperature 0 takes the
        likeliest token. top_k 0 draws from all, and tokens that tie with the k-th stay in; top_p keeps the likeliest
        that together have this share of the probability; min_p those at least so likely as this part of the likeliest.
    cfg_scale: classifier-free guidance of audio, uncond + scale * (cond - uncond), one number or one per stream; 1 is
        none, and takes one sequence of the engine instead of two.
    min_frames, max_frames: bounds on the frames of audio; equal, they set the duration exactly.
    text_temperature, text_top_k, text_top_p, text_min_p, max_tokens: of text, which is never guided; max_tokens counts
        the end token.
    text_repetition_penalty: logits of tokens that the text holds already are divided by it (negative ones multiplied).
    seed: together with the prompt, it decides everything that is drawn.
    reference_context: what guidance leads away from has no role token, as where the public UALM code samples; by
        default it has one, as in training.
    reference_behaviour: as the public UALM code samples, to compare with it: the unconditional context loses its
        role token, the delay structure is not enforced, and `<|speech|>` cannot be chosen.
    """

    temperature: _Factor | tuple[_Factor, ...] = 0.8
    top_k: _TopK | tuple[_TopK, ...] = 20
    top_p: _TopP | tuple[_TopP, ...] = 1.0
    min_p: Share | tuple[Share, ...] = 0.0
    cfg_scale: _Factor | tuple[_Factor, ...] = 3.0
    min_frames: _Steps = 1
    max_frames: _Steps = 500
    text_temperature: _Factor = 0.0
    text_top_k: _TopK = 20
    text_top_p: _TopP = 1.0
    text_min_p: Share = 0.0
    text_repetition_penalty: Annotated[float, Bounds(above=0, at_most=_LARGEST)] = 1.0
    max_tokens: _Steps = 1024
    seed: Seed = 0
    reference_context: bool = False
    reference_behaviour: bool = False

    def __post_init__(self):
        check_fields(self, "sampling")
        if self.max_frames < self.min_frames:
            raise UserError(f"sampling.max_frames must be at least {self.min_frames}, got {self.max_frames}.")

    @property
    def guided(self) -> bool:
        """Whether audio is guided at all."""
        return any(scale != 1 for scale in np.atleast_1d(self.cfg_scale))

    def per_stream(self, name: str, num_streams: int) -> tuple:
        """The setting `name`, once for each stream."""
        value = getattr(self, name)
        if not isinstance(value, tuple):
            return (value,) * num_streams
        if len(value) != num_streams:
            raise UserError(f"sampling.{name} must be one number or {num_streams}, one for each stream, got {value}.")
        return value


def guide(
    cond: Float[Array, "B S C"],
    uncond: Float[Array, "B S C"],
    scale: Float[Array, " B"] | Float[Array, "B S"],
) -> Float[Array, "B S C"]:
    """Classifier-free guidance as MusicGen and UALM define it. Mask afterwards: -inf minus -inf is NaN."""
    scale = jnp.expand_dims(scale, tuple(range(scale.ndim, 3)))
    return jnp.where(scale == 1, cond, uncond + scale * (cond - uncond))


def penalize(logits: Float[Array, "B V"], seen: Bool[Array, "B V"], penalty: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Logits of what was seen divided by the penalty, negative ones multiplied by it (Keskar et al. 2019, CTRL)."""
    penalty = penalty[:, None]
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(  # noqa: PLR0913  one array for each setting of a row
    logits: Float[Array, "B S C"],
    allowed: Bool[Array, "B S C"],
    temperature: Float[Array, "B S"],
    top_k: Int[Array, "B S"],
    seed: UInt[Array, " B"],
    step: Int[Array, ""] | Int[Array, " B"],
    greedy: bool = False,
    top_p: Float[Array, "B S"] | None = None,
    min_p: Float[Array, "B S"] | None = None,
) -> Int[Array, "B S"]:
    """One allowed column per row and stream, in float32; C, which is none, where the largest of the
    logits is NaN or infinite.

    A row's draw depends on its own logits, settings, seed and step, not on the rows beside it. greedy: no temperature
    is above 0, which saves the noise for a whole text vocabulary and the search for its k-th largest. Filters come in
    the order of Hugging Face transformers: temperature, top-k, top-p of what top-k left, min-p.
    """
    width = logits.shape[-1]
    logits = jnp.where(allowed, logits, -jnp.inf)
    # Or the searches below would compute the logits anew for every bit of their answer.
    logits = logits if greedy else jax.lax.optimization_barrier(logits)
    top = jnp.max(logits, axis=-1)
    if greedy:
        return jnp.where(jnp.isfinite(top), first_largest(logits), width)
    kept = kth_largest(logits, jnp.where(top_k == 0, width, jnp.minimum(top_k, width)))
    # From the largest one down: however small the temperature, that one stays finite.
    below = logits - top[..., None]
    scaled = below / jnp.where(temperature > 0, temperature, 1)[..., None]
    scaled = jnp.where(logits >= kept[..., None], scaled, -jnp.inf)
    if top_p is not None:
        scaled = jnp.where(scaled >= nucleus_floor(scaled, top_p)[..., None], scaled, -jnp.inf)
    if min_p is not None:
        scaled = jnp.where(scaled >= jnp.log(min_p)[..., None], scaled, -jnp.inf)
    noise = jax.vmap(lambda seed, step: _gumbel(seed, step, logits.shape[1:]))(seed, jnp.broadcast_to(step, seed.shape))
    found = first_largest(jnp.where(temperature[..., None] > 0, scaled + noise, logits))
    return jnp.where(jnp.isfinite(top), found, width)


def first_largest(x: Float[Array, "*rows C"]) -> Int[Array, "*rows"]:
    """`jnp.argmax` of numbers, as two plain reductions: on a CPU four times as fast."""
    C = x.shape[-1]
    found = jnp.where(x == jnp.max(x, axis=-1, keepdims=True), jnp.arange(C), C - 1)
    return jnp.min(found, axis=-1)


def nucleus_floor(x: Float[Array, "*rows C"], p: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
    """The least logit of the likeliest columns that have a share of p of the probability; -inf where p is 1."""
    share = jax.nn.softmax(x, axis=-1)
    # Of what the shares add up to, which rounding may leave below 1.
    wanted = p * jnp.sum(share, axis=-1)
    found = largest(
        x, lambda reached: jnp.sum(jnp.where(reached, share[..., None, :], 0), axis=-1) >= wanted[..., None]
    )
    return jnp.where(p < 1, found, -jnp.inf)


def _gumbel(seed, step, shape):
    return jax.random.gumbel(jax.random.fold_in(jax.random.key(seed), step), shape, jnp.float32)
