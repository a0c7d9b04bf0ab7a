"""Training a codec: what `train.waveform` asks of it, and the folder that `XCodec.from_directory` opens."""

import hashlib
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.principal import init_principal, mirrored
from ualm_jax.codecs.xcodec.quantizer import Codebooks
from ualm_jax.codecs.xcodec.trainable import Trainable
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.data.loading.crops import Crops
from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.codec_step import CodecStep, Fixed, codebooks_from, empty_codebooks
from ualm_jax.train.waveform import HEARD, Sounds, train_waveforms

log = logging.getLogger(__name__)


def train_codec(config: CodecRunConfig, workdir: pathlib.Path) -> int:
    """Trains a codec by `train_waveforms`; WORKDIR/codec holds the newest one."""
    return train_waveforms(CodecNetwork(config), workdir)


class CodecNetwork:
    """A codec as `train.waveform.Network`. What learns without gradients are its codebooks.

    With a semantic branch it is the X-codec of `train.init_from`, which is read at once: its HuBERT is no part of the
    state, so that a run that goes on needs the folder too.
    """

    name, channels = "codec", 1

    def __init__(self, config: CodecRunConfig):
        self.config, self.trainable = config, config.codec.trainable()
        self.shown, self._xcodec = ("squared", "log"), None
        if config.codec.semantic:
            self.shown += () if config.quantizer.fixed else ("semantic",)
            given, self._xcodec = read_directory(config.train.init_from, semantic_decoder=True)
            if _stated(given) != _stated(self.trainable.config):
                raise UserError(f"{config.train.init_from}: expected an X-codec as config.codec states, found {given}")
            self.trainable = Trainable(given, linear_ends=False)
        self.sample_rate, self.hop = self.trainable.config.sample_rate, self.trainable.config.hop

    def source(self) -> SoundScript | SoundScript2:
        data = self.config.data
        return (SoundScript, SoundScript2)[data.language - 1](data.soundscript, data.seed, self.sample_rate)

    def identity(self) -> dict[str, dict[str, Any]]:
        if self._xcodec is None:
            return {}
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(self._xcodec["hubert"]):
            digest.update(leaf.tobytes())
        return {"train": {"init_from (SHA-256 of HuBERT)": digest.hexdigest()}}

    def finish(self, rows: slice, seed: int) -> Callable[[int, np.ndarray], dict[str, np.ndarray]]:
        return lambda number, crops: {"wav": crops[..., 0]}

    def blank(self) -> tuple[Any, Codebooks | Fixed]:
        if self._xcodec is not None:
            return self._begun(self._xcodec)
        params = self.trainable.narrowed(init_random(self.trainable.config, self.config.train.seed))
        return self._split(params, empty_codebooks(self.trainable))

    def _split(self, params: Any, codebooks: Codebooks) -> tuple[Any, Codebooks | Fixed]:
        """Splits parameters into those that are trained and those that are not."""
        if not self.config.quantizer.fixed:
            return params, codebooks
        decoder = {name: params[name] for name in ("acoustic_decoder", "fc2")}
        return decoder, Fixed(codebooks, {name: part for name, part in params.items() if name not in decoder})

    def given(self) -> tuple[Any, Codebooks | Fixed] | None:
        """Parameters and codebooks of another codec."""
        begun_with = self.config.train.init_from
        if self._xcodec is not None:
            log.info("parameters from %s, with its semantic branch", begun_with)
            return self._begun(self._xcodec)
        if begun_with is None:
            return None
        given, params = read_directory(begun_with)
        if given != self.trainable.config:
            raise UserError(
                f"{begun_with}: expected a codec of the shape in config.codec, found {given}; for one with a semantic "
                "branch set codec.semantic to True"
            )
        log.info("parameters from %s", begun_with)
        return self._begun(params)

    def beginning(self, sounds: Crops) -> tuple[Any, Codebooks]:
        """Principal components of what will be heard, and no codebooks yet."""
        trainable = self.trainable
        if not mirrored(trainable.config.acoustic):
            log.info("random parameters: principal components need a decoder that mirrors the encoder")
            return self.blank()
        heard = [sounds.batch(number)[0]["wav"] for number in range(-(-HEARD // self.config.data.batch_size))]
        return init_principal(trainable, np.concatenate(heard), self.config.train.seed), empty_codebooks(trainable)

    def _begun(self, params: dict) -> tuple[Any, Codebooks | Fixed]:
        """A fresh state with the parameters and codebooks of another codec."""
        return self._split(self.trainable.narrowed(params), codebooks_from(jnp.asarray(params["codebooks"])))

    def _hubert(self) -> dict | None:
        return None if self._xcodec is None else self._xcodec["hubert"]

    def step(self, sounds: Sounds, first: int) -> CodecStep:
        return CodecStep(self.config, self.trainable, lambda number: sounds(number)["wav"], first, self._hubert())

    def ready(self, step: int) -> bool:
        return step > self.config.quantizer.begin

    def save(self, params: Any, rest: Codebooks | Fixed, step: int, folder: pathlib.Path) -> None:
        if isinstance(rest, Fixed):
            rest, params = rest.codebooks, params | rest.encoder
        save_directory(self.trainable.widened(params, rest.embed, self._hubert()), self.trainable.config, folder)

    def opened(self, folder: pathlib.Path) -> Callable[[Float32[np.ndarray, "N 1"]], dict[str, tuple[np.ndarray, int]]]:
        codec = XCodec.from_directory(folder)

        def make(sound):
            wav = sound[:, 0]
            return {"original": (wav, self.sample_rate), "decoded": (codec.decode(codec.encode(wav)), self.sample_rate)}

        return make


def _stated(config: XCodecConfig) -> tuple:
    """What `CodecShape` says of a codec."""
    return config.acoustic, config.codebook_size, config.codebook_dim, config.num_quantizers, config.sample_rate
