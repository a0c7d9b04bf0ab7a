"""Training an enhancer: what `train.waveform` asks of it, and the step."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from ualm_jax.codecs import stereo_losses
from ualm_jax.codecs.enhance import network
from ualm_jax.codecs.enhance.config import FACTOR, RATE_IN, RATE_OUT, EnhancerConfig
from ualm_jax.codecs.enhance.filters import mono_input
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.enhance.parameters import init_enhancer
from ualm_jax.codecs.enhance.weights import read_directory, save_directory
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.loading.crops import Crops
from ualm_jax.data.loading.pairs import PairMaker
from ualm_jax.data.raw.soundscript import SoundScript2, StereoScript
from ualm_jax.errors import UserError
from ualm_jax.train.enhance_config import EnhanceLossConfig, EnhanceRunConfig
from ualm_jax.train.gan import AXES, GanState, Made, make_gan_step
from ualm_jax.train.optimizer import make_optimizer
from ualm_jax.train.waveform import Sounds, train_waveforms
from ualm_jax.weights.fingerprints import codec_fingerprint

log = logging.getLogger(__name__)


def train_enhancer(config: EnhanceRunConfig, workdir: pathlib.Path) -> int:
    """Trains an enhancer by `train_waveforms`; WORKDIR/enhancer holds the newest one."""
    return train_waveforms(EnhancerNetwork(config), workdir)


@dataclasses.dataclass(frozen=True)
class EnhancerGenerator:
    """16 kHz mono to 48 kHz stereo, as `gan.Generator`. Nothing learns without gradients."""

    config: EnhancerConfig
    loss: EnhanceLossConfig

    def make(self, params: Any, rest: Any, batch: dict[str, Array], key: Array) -> Made:
        """batch: {"low": [B, N], "wav": [B, 3 N, 2]}."""
        low = batch["low"]
        draws, noise = jax.random.split(key)
        latents = network.encode(params, self.config, low)
        # Drawn for all rows, so that meshes do not matter.
        rows = len(low)
        normal = jax.random.normal(draws, (rows * jax.lax.axis_size(AXES), *latents.mean.shape[1:]))
        normal = jax.lax.dynamic_slice_in_dim(normal, jax.lax.axis_index(AXES) * rows, rows)
        frames = jnp.arange(low.shape[1] // self.config.frame)
        made = network.decode(
            params,
            self.config,
            latents.mean + latents.deviation * normal,
            low,
            network.noise_of(self.config, noise, frames),
        )
        divergence = stereo_losses.divergence(*latents)
        return Made(made, batch["wav"], self.loss.divergence * divergence, {"divergence": divergence}, None)

    def reconstruction(
        self, made: Float[Array, "B N 2"], wanted: Float[Array, "B N 2"]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The weighted sum of `stereo_losses`, and its parts; what has no weight is not computed."""
        loss, parts = self.loss, {}
        if loss.convergence or loss.log:
            parts["convergence"], parts["log"] = stereo_losses.sum_and_difference(made, wanted, loss.windows)
        if loss.mel:
            scales = tuple(zip(loss.mel_windows, loss.mel_bands, strict=True))
            parts["mel"] = stereo_losses.log_mel(made, wanted, RATE_OUT, scales)
        if loss.level:
            parts["level"] = stereo_losses.level_difference(made, wanted, RATE_OUT, AXES)
        return sum(getattr(loss, name) * value for name, value in parts.items()), parts

    def learn(self, rest: Any, found: Any) -> Any:
        return rest

    def allowed(self, params: Any) -> Any:
        return params


class EnhancerNetwork:
    """An enhancer as `train.waveform.Network`."""

    name, channels, sample_rate = "enhancer", 2, RATE_OUT
    shown = ("log", "divergence")

    def __init__(self, config: EnhanceRunConfig):
        self.config, self.hop = config, FACTOR * config.enhancer.hop
        self._codec = None if config.pairs.codec is None else XCodec.from_directory(config.pairs.codec)

    def source(self) -> StereoScript:
        return StereoScript(SoundScript2(self.config.data.soundscript, self.config.data.seed, RATE_OUT))

    def identity(self) -> dict[str, dict[str, Any]]:
        # The folder of a codec may move, what it holds may not change.
        return {"pairs": {"codec": None if self._codec is None else codec_fingerprint(self._codec)}}

    def finish(self, rows: slice, seed: int) -> PairMaker:
        through = None if self._codec is None else self._codec.round_trip
        return PairMaker(self.config.pairs, seed, self.config.data.batch_size, rows, through)

    def blank(self) -> tuple[Any, dict]:
        return init_enhancer(self.config.enhancer, self.config.train.seed), {}

    def given(self) -> tuple[Any, dict] | None:
        begun_with = self.config.train.init_from
        if begun_with is None:
            return None
        given, params = read_directory(begun_with)
        if given != self.config.enhancer:
            raise UserError(f"{begun_with}: expected an enhancer of the shape in config.enhancer, found {given}")
        log.info("parameters from %s", begun_with)
        return params, {}

    def beginning(self, sounds: Crops) -> tuple[Any, dict]:
        return self.blank()

    def step(self, sounds: Sounds, first: int) -> "EnhanceStep":
        return EnhanceStep(self.config, first)

    def ready(self, step: int) -> bool:
        return True

    def save(self, params: Any, rest: Any, step: int, folder: pathlib.Path) -> None:
        data = self.config.data
        sounds = f"{data.soundscript} SoundScript scenes in stereo" if data.folder is None else f"`{data.folder}`"
        made_of = {"Learnt from": sounds, "Steps": f"{step} of {data.batch_size} crops"}
        save_directory(params, self.config.enhancer, folder, made_of)

    def opened(self, folder: pathlib.Path) -> Callable[[Float32[np.ndarray, "N 2"]], dict[str, tuple[np.ndarray, int]]]:
        enhancer = Enhancer.from_directory(folder)

        def make(sound):
            low = mono_input(sound)
            made = {"original": (sound, RATE_OUT), "input": (low, RATE_IN)}
            return made | {"enhanced": (enhancer.enhance(low), RATE_OUT)}

        return make


class EnhanceStep:
    """(state, batch) to (state, metrics): by its number a step has discriminators or has none."""

    def __init__(self, config: EnhanceRunConfig, first: int):
        self._begin, self._number = config.adversarial.begin, first
        optimizer, judges_optimizer = make_optimizer(config.optimizer), make_optimizer(config.judges_optimizer)

        def phase(adversarial: bool):
            return make_gan_step(
                EnhancerGenerator(config.enhancer, config.loss),
                optimizer,
                config.adversarial if adversarial else None,
                judges_optimizer,
                seed=config.train.seed,
                averaging=config.train.averaging,
            )

        self.alone, self.judged = phase(False), phase(True)

    def __call__(self, state: GanState, batch: dict[str, Array]) -> tuple[GanState, dict[str, Array]]:
        judged = self._begin is not None and self._number >= self._begin
        self._number += 1
        return (self.judged if judged else self.alone)(state, batch)
