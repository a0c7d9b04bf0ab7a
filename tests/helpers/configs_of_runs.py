"""The smallest configuration of a run around a model."""

from ualm_jax.data.loading.config import DataConfig
from ualm_jax.models.config import Architecture
from ualm_jax.train.config import RunConfig, TrainConfig
from ualm_jax.train.optimizer import OptimizerConfig


def run_config(model: Architecture, **train) -> RunConfig:
    return RunConfig(
        model=model,
        data=DataConfig(directory="data", seq_len=64, batch_size=2),
        optimizer=OptimizerConfig(peak_lr=1e-3, end_lr=1e-4, warmup_steps=1, decay_steps=2),
        train=TrainConfig(steps=2, **train),
    )
