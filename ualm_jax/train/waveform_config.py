"""What the configurations of all networks that make waveforms share: sounds to learn from, the loop, what is stored."""

import dataclasses

from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CropsConfig:
    """What is trained on: the sounds of `folder`, maybe a prepared dataset (16 kHz mono), or, where that is None,
    `soundscript` generated scenes of the SoundScript of `language`, made once by `workers` processes (0: one for each
    core) and held in memory.

    frames: of the codec, or latents of the enhancer, in a crop. gain_db: crops are made louder by a number of dB
    between these two. threads: batches that are read at a time.
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
class WaveformTrainConfig:
    """The loop. init_from: the folder of a network that was trained here, to go on from. averaging: decay of the
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
class WaveformEvalConfig:
    """every: steps between stored networks; with each, the beginnings of the first `sounds` sounds, `seconds` long, go
    through it to TensorBoard.
    """

    every: int = 1000
    sounds: int = 3
    seconds: float = 2.0

    def __post_init__(self):
        if self.every < 1 or self.sounds < 0 or self.seconds <= 0:
            raise UserError("eval.every must be at least 1, eval.sounds not negative and eval.seconds positive.")
