"""What the configurations of all networks that make waveforms share: sounds to learn from, the loop, what is stored."""

import dataclasses
from typing import Annotated

from ualm_jax.errors import UserError
from ualm_jax.fields import Bounds, Count, Natural, Positive, check_fields
from ualm_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class CropsConfig:
    """What is trained on: the sounds of `folder`, maybe a prepared dataset (16 kHz mono), or, where that is None,
    `soundscript` generated scenes of the SoundScript of `language`, made once by `workers` processes (0: one for each
    core) and held in memory.

    frames: of the codec, or latents of the enhancer, in a crop. gain_db: crops are made louder by a number of dB
    between these two. threads: batches that are read at a time.
    """

    folder: str | None = None
    soundscript: Count = 8000
    language: Annotated[int, Bounds(at_least=1, at_most=2)] = 2
    workers: Natural = 0
    threads: Count = 2
    seed: Natural = 0
    batch_size: Count = 16
    frames: Count = 50
    gain_db: tuple[float, ...] = (-6.0, 3.0)

    def __post_init__(self):
        check_fields(self, "data")
        if len(self.gain_db) != 2 or self.gain_db[0] > self.gain_db[1]:
            raise UserError(f"data.gain_db must be two numbers, the smaller one first, got {self.gain_db}.")


@dataclasses.dataclass(frozen=True)
class WaveformTrainConfig:
    """The loop. init_from: the folder of a network that was trained here, to go on from. averaging: decay of the
    parameters' moving average, which is what is stored. The rest as in `TrainConfig`.
    """

    steps: Count
    seed: Natural = 0
    init_from: str | None = None
    averaging: Annotated[float, Bounds(at_least=0, below=1)] = 0.99
    log_every: Count = 50
    save_interval: Count = 1000
    max_to_keep: Count = 2

    def __post_init__(self):
        check_fields(self, "train")


@dataclasses.dataclass(frozen=True)
class WaveformEvalConfig:
    """every: steps between stored networks; with each, the beginnings of the first `sounds` sounds, `seconds` long, go
    through it to TensorBoard.
    """

    every: Count = 1000
    sounds: Natural = 3
    seconds: Positive = 2.0

    def __post_init__(self):
        check_fields(self, "eval")


def check_optimizers(**optimizers: OptimizerConfig) -> None:
    """Raises UserError for what an optimiser of a language model can do, and one of these networks can not."""
    for name, optimizer in optimizers.items():
        if optimizer.kind != "adamw" or optimizer.ema_decay is not None:
            raise UserError(
                f"{name}.kind must be adamw and {name}.ema_decay None, got {optimizer.kind} and "
                f"{optimizer.ema_decay}: Muon is for language models, and train.averaging is the average of a network "
                "that makes waveforms."
            )
