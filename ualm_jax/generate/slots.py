"""What a device knows of the segments that it decodes side by side: slots, and the sequences they own.

A slot makes one segment. It owns one sequence of the cache or, where it is guided, two: the conditional and the
unconditional one. Slots and sequences are split over the devices of a batch, and a slot's sequences lie on its own
device: indices of both count from 0 on each device. An index beyond the end is no place; what goes there is dropped.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from ualm_jax.generate import structure
from ualm_jax.models.config import Architecture
from ualm_jax.models.decoder import KVCache
from ualm_jax.parallel.sharding import spec


class Settings(NamedTuple):
    """Settings of each slot; arrays, so that changing them compiles nothing. `with_defaults` fills in what is None.

    opening: the modality token that opens the segment. limit: the step at which it is cut off, if it has not ended.
    active: slots somebody wants. text: text instead of audio. cfg_scale: one number, or one per stream.
    enforce: audio keeps its delay structure. scored: log-probabilities are wanted.
    last: the tokens to read first, where that is not `opening`: of a segment that is continued. step: of the tokens to
    sample first. frames: T of its audio, `structure.OPEN` until stream 0 has decided it. given: of those and the next,
    what is known already; 0 for none. draws: noise the seed made before.
    """

    opening: Int[Array, " B"]
    temperature: Float[Array, "B S"]
    top_k: Int[Array, "B S"]
    cfg_scale: Float[Array, " B"] | Float[Array, "B S"]
    seed: UInt[Array, " B"]
    min_frames: Int[Array, " B"]
    max_frames: Int[Array, " B"]
    limit: Int[Array, " B"]
    active: Bool[Array, " B"]
    text: Bool[Array, " B"] | None = None
    top_p: Float[Array, "B S"] | None = None
    min_p: Float[Array, "B S"] | None = None
    penalty: Float[Array, " B"] | None = None
    enforce: Bool[Array, " B"] | None = None
    scored: Bool[Array, " B"] | None = None
    last: Int[Array, "B S"] | None = None
    step: Int[Array, " B"] | None = None
    frames: Int[Array, " B"] | None = None
    given: Int[Array, "B G S"] | None = None
    draws: Int[Array, " B"] | None = None

    def with_defaults(self) -> "Settings":
        """All audio without further wishes, where nothing was said. Each stream has a cfg_scale."""
        B, S = self.temperature.shape
        one, each = spec("batch"), spec("batch", None)
        defaults = dict(
            text=jnp.zeros(B, bool, out_sharding=one),
            top_p=jnp.ones((B, S), out_sharding=each),
            min_p=jnp.zeros((B, S), out_sharding=each),
            penalty=jnp.ones(B, out_sharding=one),
            enforce=jnp.ones(B, bool, out_sharding=one),
            scored=jnp.zeros(B, bool, out_sharding=one),
            last=jnp.zeros((B, S), jnp.int32, out_sharding=each).at[:, 0].set(self.opening),
            step=jnp.zeros(B, jnp.int32, out_sharding=one),
            frames=jnp.full(B, structure.OPEN, jnp.int32, out_sharding=one),
            given=jnp.zeros((B, S - 1, S), jnp.int32, out_sharding=spec("batch", None, None)),
            draws=jnp.zeros(B, jnp.int32, out_sharding=one),
        )
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        scale = self.cfg_scale if self.cfg_scale.ndim == 2 else jnp.broadcast_to(self.cfg_scale[:, None], (B, S))
        return self._replace(cfg_scale=scale, **missing)


class Places(NamedTuple):
    """N slots to begin in, and the sequences of each; without guidance `uncond` is `cond`."""

    slot: Int[Array, " N"]
    cond: Int[Array, " N"]
    uncond: Int[Array, " N"]


class Slots(NamedTuple):
    """The state of B slots and R sequences.

    cache: of the sequences. owner: the slot that each sequence belongs to, B for none. cond, uncond: the sequences of
    each slot. last: the tokens to read next. step: of the tokens to sample next, in their segment. frames: see
    `Settings`. live: slots whose segment has not ended. seen: the text tokens that it holds.
    """

    settings: Settings
    cache: KVCache
    owner: Int[Array, " R"]
    cond: Int[Array, " B"]
    uncond: Int[Array, " B"]
    last: Int[Array, "B S"]
    step: Int[Array, " B"]
    frames: Int[Array, " B"]
    live: Bool[Array, " B"]
    seen: Bool[Array, "B V"]


def empty_slots(architecture: Architecture, dtype: str, slots: int, sequences: int, capacity: int) -> Slots:
    """Slots of which none is live. All counts are those of all devices; capacity: positions of a sequence."""
    decoder, vocabulary = architecture.decoder, architecture.vocabulary
    S = vocabulary.num_streams

    def zeros(*shape, dtype=jnp.int32):
        return jnp.zeros(shape, dtype, out_sharding=spec("batch", *[None] * (len(shape) - 1)))

    def layer():
        shape = (sequences, decoder.num_kv_heads, capacity, decoder.head_dim)
        return jnp.zeros(shape, dtype, out_sharding=spec("batch", "kv_heads", None, None))

    def layers():
        return tuple(layer() for _ in range(decoder.num_layers))

    one, each = zeros(slots), zeros(slots, S, dtype=jnp.float32)
    settings = Settings(
        opening=one,
        temperature=each,
        top_k=zeros(slots, S),
        cfg_scale=each,
        seed=zeros(slots, dtype=jnp.uint32),
        min_frames=one,
        max_frames=one,
        limit=one,
        active=zeros(slots, dtype=bool),
    )
    return Slots(
        settings=settings.with_defaults(),
        cache=KVCache(layers(), layers(), zeros(sequences)),
        owner=zeros(sequences) + slots,
        cond=one,
        uncond=one,
        last=zeros(slots, S),
        step=one,
        frames=one,
        live=zeros(slots, dtype=bool),
        seen=zeros(slots, vocabulary.text_size, dtype=bool),
    )


def insert(slots: Slots, filled: KVCache, source: Int[Array, " N"], to: Int[Array, " N"]) -> Slots:
    """`slots` with the keys and values of the sequences `source` of `filled` in the sequences `to` of its cache."""

    def local(cache, filled, source, to):
        room = filled.k[0].shape[2]

        def put(old, new):
            place = (to, slice(None), slice(room)) if old.ndim == 4 else to
            return old.at[place].set(new.at[source].get(mode="clip"), mode="drop")

        return jax.tree.map(put, cache, filled)

    cache = on_each_device(local, specs(slots.cache), slots.cache, filled, source, to)
    return slots._replace(cache=cache)


def start(slots: Slots, settings: Settings, places: Places) -> Slots:
    """`slots` with new segments, which go on from what their sequences hold. settings, places: N entries each."""

    def local(slots, settings, places):
        def put(old, new):
            return old.at[places.slot].set(new, mode="drop")

        taken = jnp.any(slots.owner[:, None] == places.slot, axis=1)
        owner = jnp.where(taken, len(slots.live), slots.owner)
        owner = owner.at[places.cond].set(places.slot, mode="drop").at[places.uncond].set(places.slot, mode="drop")
        return slots._replace(
            settings=jax.tree.map(put, slots.settings, settings),
            owner=owner,
            cond=put(slots.cond, places.cond),
            uncond=put(slots.uncond, places.uncond),
            last=put(slots.last, settings.last),
            step=put(slots.step, settings.step),
            frames=put(slots.frames, settings.frames),
            live=put(slots.live, settings.active),
            seen=put(slots.seen, False),
        )

    small = slots._replace(cache=None)
    return on_each_device(local, specs(small), small, settings, places)._replace(cache=slots.cache)


def take(slots: Slots, sequences: Int[Array, " N"]) -> KVCache:
    """A copy of what these sequences of the cache hold."""

    def local(cache, sequences):
        return jax.tree.map(lambda array: array.at[sequences].get(mode="clip"), cache)

    return on_each_device(local, specs(slots.cache), slots.cache, sequences)


def specs(tree: Any) -> Any:
    """The partition specs of the arrays."""
    return jax.tree.map(lambda array: jax.typeof(array).sharding.spec, tree)


def on_each_device(function, out_specs: Any, *arguments: Any) -> Any:
    """`function` applied on each device to its own part of the arguments."""
    return jax.shard_map(function, in_specs=specs(arguments), out_specs=out_specs, check_vma=False)(*arguments)
