"""The configuration of a codec's training: `configs/codec_*.py` outside, dataclasses that check themselves inside."""

import dataclasses
import math
from typing import Annotated

from ualm_jax.codecs.losses import check_windows
from ualm_jax.codecs.xcodec.config import DacConfig, XCodecConfig, bandwidths
from ualm_jax.codecs.xcodec.trainable import NO_SEMANTICS, Trainable
from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, NotNegative, Share, check_fields
from ualm_jax.parallel.mesh import MeshConfig
from ualm_jax.train.gan import AdversarialConfig
from ualm_jax.train.optimizer import OptimizerConfig
from ualm_jax.train.waveform_config import CropsConfig, WaveformEvalConfig, WaveformTrainConfig, check_optimizers


@dataclasses.dataclass(frozen=True)
class CodecShape:
    """The codec, in the terms of X-codec. hidden_size: of the acoustic features.

    semantic: with the semantic branch of the X-codec in `train.init_from`, whose shape is that folder's. Without it,
    what is quantised has one number more than the acoustic features, for the layout's sake.
    linear_ends: see `codecs.xcodec.trainable`.
    codebook_dim: numbers of a codeword where codes are factorised, None where they are not; see `codecs.xcodec.rvq`.
    """

    num_codebooks: Count = 8
    codebook_size: Annotated[int, Bounds(at_least=2)] = 1024
    codebook_dim: Annotated[int, Bounds(at_least=2)] | None = None
    encoder_hidden_size: Count = 64
    decoder_hidden_size: Count = 1024
    hidden_size: Count = 256
    downsampling_ratios: tuple[Count, ...] = (8, 5, 4, 2)
    upsampling_ratios: tuple[Count, ...] = (8, 5, 4, 2)
    semantic: bool = False
    linear_ends: bool = False

    def __post_init__(self):
        check_fields(self, "codec")
        hop = math.prod(NO_SEMANTICS.conv_stride)
        if math.prod(self.downsampling_ratios) != hop:
            raise UserError(
                f"codec.downsampling_ratios must have the product {hop}, the samples of a frame of X-codec, got "
                f"{self.downsampling_ratios}."
            )
        if self.semantic and self.linear_ends:
            raise UserError("codec.semantic and codec.linear_ends exclude each other: set one of them to False.")

    def trainable(self) -> Trainable:
        """The network without a semantic branch. Raises UserError where no X-codec has this shape."""
        acoustic = DacConfig(
            self.encoder_hidden_size,
            self.downsampling_ratios,
            self.hidden_size,
            self.decoder_hidden_size,
            self.upsampling_ratios,
        )
        config = XCodecConfig(
            target_bandwidths=bandwidths(self.num_codebooks, self.codebook_size, math.prod(self.downsampling_ratios)),
            codebook_size=self.codebook_size,
            codebook_dim=self.codebook_dim,
            acoustic=acoustic,
            semantic=NO_SEMANTICS,
        )
        return Trainable(config, self.linear_ends)


@dataclasses.dataclass(frozen=True)
class CodecLossConfig:
    """Weights of the reconstruction: absolute and squared error of the waveform, linear and logarithmic distance of
    spectrograms with `windows` (samples), the latter of frames that sound and of silent ones, distance of complex
    spectra (`codecs.losses`).
    commitment: weight of the distance to the chosen codewords. semantic: weight of the squared error of what HuBERT
    heard, with `codec.semantic`; that of X-codec's authors.
    """

    absolute: NotNegative = 0.5
    squared: NotNegative = 0.3
    linear: NotNegative = 0.7
    log: NotNegative = 2.0
    silent: NotNegative = 1.0
    phase: NotNegative = 0.0
    windows: tuple[int, ...] = (1024, 256, 64)
    commitment: NotNegative = 0.1
    semantic: NotNegative = 100.0

    def __post_init__(self):
        check_fields(self, "loss")
        check_windows(self.windows, "loss.windows", least=8)  # of one band


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """begin: steps as an autoencoder before there are codes. kmeans_frames: that codebooks begin with.
    decay: of the codebooks' moving averages. dead_below: a code used less than this share of the mean is moved.
    dropout: share of the rows that use a random number of the first codebooks instead of all.
    fixed: sounds keep the codes that train.init_from gives them, which a language model may have learnt: encoder and
        codebooks stay as they are (the whole semantic branch too), and the acoustic decoder alone is trained.
    """

    begin: Natural = 200
    kmeans_frames: Count = 32768
    kmeans_rounds: Count = 12
    decay: Share = 0.99
    dead_below: Share = 0.03
    dropout: Share = 0.25
    fixed: bool = False

    def __post_init__(self):
        check_fields(self, "quantizer")


@dataclasses.dataclass(frozen=True)
class CodecRunConfig:
    """Everything that is needed to train a codec again."""

    codec: CodecShape
    optimizer: OptimizerConfig
    train: WaveformTrainConfig
    data: CropsConfig = CropsConfig()
    loss: CodecLossConfig = CodecLossConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    judges_optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    eval: WaveformEvalConfig = WaveformEvalConfig()

    def __post_init__(self):
        check_optimizers(optimizer=self.optimizer, judges_optimizer=self.judges_optimizer)
        self.codec.trainable()
        if self.codec.semantic and self.train.init_from is None:
            raise UserError("codec.semantic needs an X-codec to begin with: set train.init_from to its folder.")
        if self.train.init_from is not None and self.quantizer.begin:
            raise UserError("train.init_from brings its codebooks along: set quantizer.begin to 0.")
        if self.quantizer.fixed and self.train.init_from is None:
            raise UserError("quantizer.fixed keeps the codes of a codec: name it, train.init_from=DIR.")
        if self.quantizer.kmeans_frames < self.codec.codebook_size:
            raise UserError(
                f"quantizer.kmeans_frames ({self.quantizer.kmeans_frames}) must be at least codec.codebook_size "
                f"({self.codec.codebook_size}): each code begins at a frame of its own."
            )
        begin = self.adversarial.begin
        if begin is not None and begin < self.quantizer.begin:
            raise UserError(
                f"adversarial.begin ({begin}) must not lie before quantizer.begin ({self.quantizer.begin})."
            )
