"""Training a codec: what `train.waveform` asks of it, and the folder that `XCodec.from_directory` opens."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.principal import init_principal, mirrored
from ualm_jax.codecs.xcodec.quantizer import Codebooks
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.data.loading.crops import Crops
from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.codec_step import CodecStep, Fixed, codebooks_from, empty_codebooks
from ualm_jax.train.waveform import Sounds, train_waveforms

log = logging.getLogger(__name__)

_HEARD = 256  # crops that principal components are estimated of


def train_codec(config: CodecRunConfig, workdir: pathlib.Path) -> int:
    """As `train_waveforms`; WORKDIR/codec holds the newest codec."""
    return train_waveforms(CodecNetwork(config), workdir)


class CodecNetwork:
    """A codec as `train.waveform.Network`. What learns without gradients are its codebooks."""

    name, channels = "codec", 1
    shown = ("squared", "log")

    def __init__(self, config: CodecRunConfig):
        self.config, self.trainable = config, config.codec.trainable()
        self.sample_rate, self.hop = self.trainable.config.sample_rate, self.trainable.config.hop

    def source(self) -> SoundScript | SoundScript2:
        data = self.config.data
        return (SoundScript, SoundScript2)[data.language - 1](data.soundscript, data.seed, self.sample_rate)

    def identity(self) -> dict[str, Any]:
        mapping = to_mapping(self.config)
        return {name: mapping[name] for name in ("codec", "loss", "quantizer", "adversarial")}

    def finish(self, rows: slice, seed: int) -> Callable[[int, np.ndarray], dict[str, np.ndarray]]:
        return lambda number, crops: {"wav": crops[..., 0]}

    def blank(self) -> tuple[Any, Codebooks | Fixed]:
        params = self.trainable.narrowed(init_random(self.trainable.config, self.config.train.seed))
        return self._split(params, empty_codebooks(self.trainable))

    def _split(self, params: Any, codebooks: Codebooks) -> tuple[Any, Codebooks | Fixed]:
        """What is trained, and what is not."""
        if not self.config.quantizer.fixed:
            return params, codebooks
        encoder = {name: params[name] for name in ("acoustic_encoder", "fc")}
        return {name: part for name, part in params.items() if name not in encoder}, Fixed(codebooks, encoder)

    def beginning(self, sounds: Crops) -> tuple[Any, Codebooks | Fixed]:
        """Another codec, or principal components of what will be heard and no codebooks yet."""
        trainable, begun_with = self.trainable, self.config.train.init_from
        if begun_with is None:
            if not mirrored(trainable.config.acoustic):
                log.info("random parameters: principal components need a decoder that mirrors the encoder")
                return self.blank()
            heard = [sounds.batch(number)[0]["wav"] for number in range(-(-_HEARD // self.config.data.batch_size))]
            return init_principal(trainable, np.concatenate(heard), self.config.train.seed), empty_codebooks(trainable)
        given, params = read_directory(begun_with)
        if given != trainable.config:
            raise UserError(f"{begun_with}: expected a codec of the shape in config.codec, found {given}")
        log.info("parameters from %s", begun_with)
        return self._split(trainable.narrowed(params), codebooks_from(jnp.asarray(params["codebooks"])))

    def step(self, sounds: Sounds, first: int) -> CodecStep:
        return CodecStep(self.config, self.trainable, lambda number: sounds(number)["wav"], first)

    def ready(self, step: int) -> bool:
        return step > self.config.quantizer.begin

    def save(self, params: Any, rest: Codebooks | Fixed, step: int, folder: pathlib.Path) -> None:
        if isinstance(rest, Fixed):
            rest, params = rest.codebooks, params | rest.encoder
        save_directory(self.trainable.widened(params, rest.embed), self.trainable.config, folder)

    def opened(self, folder: pathlib.Path) -> Callable[[Float32[np.ndarray, "N 1"]], dict[str, tuple[np.ndarray, int]]]:
        codec = XCodec.from_directory(folder)

        def make(sound):
            wav = sound[:, 0]
            return {"original": (wav, self.sample_rate), "decoded": (codec.decode(codec.encode(wav)), self.sample_rate)}

        return make
