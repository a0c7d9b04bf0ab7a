"""The configuration of a codec's training: `configs/codec_*.py` outside, dataclasses that check themselves inside."""

import dataclasses
import math

from ualm_jax.codecs.xcodec.config import DacConfig, XCodecConfig, bandwidths
from ualm_jax.codecs.xcodec.trainable import NO_SEMANTICS, Trainable
from ualm_jax.errors import UserError
from ualm_jax.parallel.mesh import MeshConfig
from ualm_jax.train.gan import AdversarialConfig
from ualm_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class CodecShape:
    """The codec, in the terms of X-codec. hidden_size: of the acoustic features; what is quantised has one number more,
    for the layout's sake.

    linear_ends: see `codecs.xcodec.trainable`.
    """

    num_codebooks: int = 8
    codebook_size: int = 1024
    encoder_hidden_size: int = 64
    decoder_hidden_size: int = 1024
    hidden_size: int = 256
    downsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)
    upsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)
    linear_ends: bool = False

    def trainable(self) -> Trainable:
        """The network. Raises UserError where no X-codec has this shape."""
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
            acoustic=acoustic,
            semantic=NO_SEMANTICS,
        )
        return Trainable(config, self.linear_ends)


@dataclasses.dataclass(frozen=True)
class CropsConfig:
    """What is trained on: the sounds of `folder` or, where that is None, `soundscript` generated scenes of the
    SoundScript of `language`, made once by `workers` processes (0: one for each core) and held in memory.

    frames: of a crop. gain_db: crops are made louder by a number of dB between these two. threads: batches that are
    read at a time.
    """

    folder: str | None = None
    soundscript: int = 8000
    language: int = 2
    workers: int = 0
    threads: int = 2
    seed: int = 0
    batch_size: int = 16
    frames: int = 50
    gain_db: tuple[float, ...] = (-6.0, 3.0)

    def __post_init__(self):
        for name in ("soundscript", "threads", "batch_size", "frames"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name} must be at least 1, got {getattr(self, name)}.")
        if self.language not in (1, 2) or self.workers < 0:
            raise UserError(
                f"data.language must be 1 or 2 and data.workers not negative, got {self.language} and {self.workers}."
            )
        if len(self.gain_db) != 2 or self.gain_db[0] > self.gain_db[1]:
            raise UserError(f"data.gain_db must be two numbers, the smaller one first, got {self.gain_db}.")


@dataclasses.dataclass(frozen=True)
class CodecLossConfig:
    """Weights of the reconstruction: absolute and squared error of the waveform, linear and logarithmic distance of
    spectrograms with `windows` (samples), the latter of frames that sound and of silent ones (`codecs.losses`).
    commitment: weight of the distance to the chosen codewords.
    """

    absolute: float = 0.5
    squared: float = 0.3
    linear: float = 0.7
    log: float = 2.0
    silent: float = 1.0
    windows: tuple[int, ...] = (1024, 256, 64)
    commitment: float = 0.1


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """begin: steps as an autoencoder before there are codes. kmeans_frames: that codebooks begin with.
    decay: of the codebooks' moving averages. dead_below: a code used less than this share of the mean is moved.
    dropout: share of the rows that use a random number of the first codebooks instead of all.
    """

    begin: int = 200
    kmeans_frames: int = 32768
    kmeans_rounds: int = 12
    decay: float = 0.99
    dead_below: float = 0.03
    dropout: float = 0.25

    def __post_init__(self):
        if self.begin < 0 or self.kmeans_frames < 1 or self.kmeans_rounds < 1:
            raise UserError("quantizer.begin must not be negative, kmeans_frames and kmeans_rounds must be positive.")
        for name in ("decay", "dead_below", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"quantizer.{name} must lie in [0, 1], got {getattr(self, name)}.")


@dataclasses.dataclass(frozen=True)
class CodecTrainConfig:
    """The loop. init_from: a codec that was trained here, to go on from with its codebooks. averaging: decay of the
    parameters' moving average, which is what is stored. The rest as in `TrainConfig`.
    """

    steps: int
    seed: int = 0
    init_from: str | None = None
    averaging: float = 0.99
    log_every: int = 50
    save_interval: int = 1000
    max_to_keep: int = 2

    def __post_init__(self):
        for name in ("steps", "log_every", "save_interval", "max_to_keep"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.averaging < 1:
            raise UserError(f"train.averaging must lie in [0, 1), got {self.averaging}.")


@dataclasses.dataclass(frozen=True)
class CodecEvalConfig:
    """every: steps between stored codecs; with each, the beginnings of the first `sounds` sounds, `seconds` long, go
    through it to TensorBoard.
    """

    every: int = 1000
    sounds: int = 3
    seconds: float = 2.0

    def __post_init__(self):
        if self.every < 1 or self.sounds < 0 or self.seconds <= 0:
            raise UserError("eval.every must be at least 1, eval.sounds not negative and eval.seconds positive.")


@dataclasses.dataclass(frozen=True)
class CodecRunConfig:
    """Everything that is needed to train a codec again."""

    codec: CodecShape
    optimizer: OptimizerConfig
    train: CodecTrainConfig
    data: CropsConfig = CropsConfig()
    loss: CodecLossConfig = CodecLossConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    judges_optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    eval: CodecEvalConfig = CodecEvalConfig()

    def __post_init__(self):
        self.codec.trainable()
        if self.train.init_from is not None and self.quantizer.begin:
            raise UserError("train.init_from brings its codebooks along: set quantizer.begin to 0.")
        begin = self.adversarial.begin
        if begin is not None and begin < self.quantizer.begin:
            raise UserError(
                f"adversarial.begin ({begin}) must not lie before quantizer.begin ({self.quantizer.begin})."
            )
