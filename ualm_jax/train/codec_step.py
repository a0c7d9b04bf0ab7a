"""The codec as a generator: an autoencoder first, then with codes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from ualm_jax.codecs import losses
from ualm_jax.codecs.xcodec.quantizer import Codebooks, kmeans, moved, quantize_learning
from ualm_jax.codecs.xcodec.rvq import Projections
from ualm_jax.codecs.xcodec.trainable import SMALLEST_ALPHA, Trainable
from ualm_jax.train.codec_config import CodecLossConfig, CodecRunConfig, QuantizerConfig
from ualm_jax.train.gan import AXES, GanState, Made, gathered, make_gan_step, scattered
from ualm_jax.train.optimizer import make_optimizer

_WIDEST = 3.0  # of a feature, while there are no codes: what lies beyond costs
_WIDTH_COST = 1e-3


class Fixed(NamedTuple):
    """What makes codes, where it does not learn. encoder: the parameters of all but the acoustic decoder."""

    codebooks: Codebooks
    encoder: Any


@dataclasses.dataclass(frozen=True)
class CodecGenerator:
    """Waveforms to themselves. `rest` of the state are the codebooks; with `codes` they are used, and learn unless they
    are `Fixed`."""

    trainable: Trainable
    loss: CodecLossConfig
    quantizer: QuantizerConfig
    codes: bool

    def make(self, params: Any, rest: Codebooks | Fixed, batch: dict[str, Array], key: Array) -> Made:
        """batch: {"wav": [B, N]}, with a semantic branch also {"heard": [B, T, S]}, what HuBERT hears in it."""
        wav, heard, fixed = batch["wav"], batch.get("heard"), isinstance(rest, Fixed)
        if fixed:
            rest, params = rest.codebooks, params | rest.encoder
        vectors = self.trainable.vectors(params, wav, heard)
        if not self.codes:
            beyond = jnp.mean(jax.nn.relu(jnp.abs(vectors) - _WIDEST) ** 2)
            made = self.trainable.waveform(params, vectors)
            return Made(made[..., None], wav[..., None], _WIDTH_COST * beyond, {}, None)
        pick, layers = jax.random.split(key)
        projections = params.get("projections")
        found = quantize_learning(rest.embed, vectors, self._layers(layers, len(wav)), pick, AXES, projections)
        share = found.counts / jnp.maximum(found.counts.sum(1, keepdims=True), 1.0)
        metrics = {
            "commitment": found.commitment,
            "perplexity": jnp.exp(-jnp.sum(share * jnp.log(share + 1e-9), 1)),
        }
        cost = self.loss.commitment * found.commitment
        if heard is not None and not fixed:
            # As X-codec (Ye et al. 2024) learns: mean squared error of HuBERT's features from the quantised vectors.
            metrics["semantic"] = jnp.mean((self.trainable.heard_again(params, found.vectors) - heard) ** 2)
            cost += self.loss.semantic * metrics["semantic"]
        made = self.trainable.waveform(params, found.vectors)
        return Made(made[..., None], wav[..., None], cost, metrics, found)

    def _layers(self, key: Array, rows: int) -> Array:
        """How many codebooks each of this device's rows uses; drawn for all rows, so that meshes do not matter."""
        books, total = self.trainable.config.num_quantizers, rows * jax.lax.axis_size(AXES)
        which, number = jax.random.split(key)
        fewer = jax.random.bernoulli(which, self.quantizer.dropout, (total,))
        layers = jnp.where(fewer, jax.random.randint(number, (total,), 1, books + 1), books)
        return jax.lax.dynamic_slice_in_dim(layers, jax.lax.axis_index(AXES) * rows, rows)

    def reconstruction(
        self, made: Float[Array, "B N 1"], wanted: Float[Array, "B N 1"]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The weighted sum of `losses`, and its parts."""
        made, wanted = made[..., 0], wanted[..., 0]
        absolute, squared = losses.waveform(made, wanted)
        linear, log, silent = losses.spectral(made, wanted, self.loss.windows, self.trainable.config.sample_rate)
        parts = {"absolute": absolute, "squared": squared, "linear": linear, "log": log, "silent": silent}
        if self.loss.phase:
            parts["phase"] = losses.phase(made, wanted, self.loss.windows)
        return sum(getattr(self.loss, name) * value for name, value in parts.items()), parts

    def learn(self, rest: Codebooks | Fixed, found: Any) -> Codebooks | Fixed:
        """The codebooks after a batch."""
        if isinstance(rest, Fixed) or not self.codes:
            return rest
        return moved(rest, found, self.quantizer.decay, self.quantizer.dead_below)

    def allowed(self, params: Any) -> Any:
        """Snakes divide by their alpha: those of the trained layers stay away from zero, on either side of it."""
        return self.trainable.with_alphas(
            params, lambda alpha: jnp.copysign(jnp.maximum(jnp.abs(alpha), SMALLEST_ALPHA), alpha)
        )


class CodecStep:
    """(state, batch) to (state, metrics): by its number a step is one of the autoencoder's, one with codes, or one with
    discriminators too. Between the first and the second the codebooks are made.

    sounds: number -> waveforms [B, N] on the mesh, of which the codebooks are made. hubert: parameters, where there is
    a semantic branch; they stay as they are and are no part of the state. A mesh must be set.
    """

    def __init__(
        self,
        config: CodecRunConfig,
        trainable: Trainable,
        sounds: Callable[[int], Array],
        step: int,
        hubert: dict | None = None,
    ):
        self._config, self._trainable, self._sounds, self._number = config, trainable, sounds, step
        self._hubert = None if hubert is None else jax.device_put(hubert, PartitionSpec())
        self._hear = jax.jit(self._on_rows(trainable.hear, PartitionSpec(AXES, None, None)))
        optimizer, judges_optimizer = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)

        def phase(codes: bool, adversarial: bool):
            return make_gan_step(
                CodecGenerator(trainable, config.loss, config.quantizer, codes),
                optimizer,
                config.adversarial if adversarial else None,
                judges_optimizer,
                seed=config.train.seed,
                averaging=config.train.averaging,
            )

        self._autoencoder, self._coded, self.judged = phase(False, False), phase(True, False), phase(True, True)

    def __call__(self, state: GanState, batch: dict[str, Array]) -> tuple[GanState, dict[str, Array]]:
        begin, judged = self._config.quantizer.begin, self._config.adversarial.begin
        if self._number == begin and self._config.train.init_from is None:
            state = self._with_codebooks(state)
        if self._number < begin:
            step = self._autoencoder
        elif judged is None or self._number < judged:
            step = self._coded
        else:
            step = self.judged
        self._number += 1
        if self._hubert is not None:
            batch = batch | {"heard": self._hear(self._hubert, batch["wav"])}
        return step(state, batch)

    def _on_rows(self, function: Callable[[Any, Array], Array], made: PartitionSpec) -> Callable[[Any, Array], Array]:
        """`function(params, wav)` of each device's rows."""
        given = (PartitionSpec(), PartitionSpec(AXES, None))
        return jax.shard_map(function, in_specs=given, out_specs=made, check_vma=False)

    def _with_codebooks(self, state: GanState) -> GanState:
        """The state with codebooks, and their projections where codes are factorised."""
        codebooks, projections = self._codebooks(state.params)
        if projections is None:
            return state._replace(rest=codebooks)
        place = functools.partial(scattered, fsdp=self._config.mesh.fsdp)
        params, average = (each | {"projections": place(projections)} for each in (state.params, state.average))
        return state._replace(rest=codebooks, params=params, average=average)

    def _codebooks(self, params: Any) -> tuple[Codebooks, Projections | None]:
        """By k-means, of the vectors of `kmeans_frames` frames."""
        quantizer, codec = self._config.quantizer, self._trainable.config
        rows = PartitionSpec(AXES, None, None)
        vectors = jax.jit(
            lambda params, wav: jax.reshard(
                self._on_rows(self._trainable.vectors, rows)(gathered(params), wav),
                PartitionSpec(),
            ).reshape(-1, codec.hidden_size)
        )
        frames, number = [], 0
        while sum(map(len, frames)) < quantizer.kmeans_frames:
            frames.append(vectors(params, self._sounds(number)))
            number += 1
        key = jax.random.key(self._config.train.seed)
        make = jax.shard_map(
            lambda frames, key: kmeans(
                frames, codec.num_quantizers, codec.codebook_size, quantizer.kmeans_rounds, key, codec.codebook_dim
            )[:2],
            in_specs=(PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        return jax.jit(make)(jnp.concatenate(frames)[: quantizer.kmeans_frames], key)


def codebooks_from(embed: Float[Array, "Q V d"]) -> Codebooks:
    """Codewords of another codec, with averages as if each had been chosen once."""
    once = jnp.ones(embed.shape[:2])
    return Codebooks(embed, embed.copy(), once, once.copy())  # a step donates each of them


def empty_codebooks(trainable: Trainable) -> Codebooks:
    """The codebooks in the state before there are codes: zeros."""
    config = trainable.config
    shape = (config.num_quantizers, config.codebook_size, config.codebook_dim or config.hidden_size)
    return Codebooks(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape[:2]), jnp.zeros(shape[:2]))
