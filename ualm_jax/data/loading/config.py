"""What is read for training, in which shares, and how it is laid out in batches."""

import dataclasses

from ualm_jax.errors import UserError
from ualm_jax.fields import Count, Natural, NotNegative, Positive, Share, check_fields

_EITHER = "expected either data.directory or data.sources; give one of them"


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One prepared dataset of a mixture.

    directory: made by `ualm data prepare`.
    weight: its share of all tokens, relative to the other sources' weights. Either all sources say it or none;
        where none does, each is read in proportion to the tokens it holds.
    repeat: how often it is read while a source of repeat 1 is read once; where no weights are given.
    """

    directory: str
    weight: NotNegative | None = None
    repeat: Positive = 1.0

    def __post_init__(self):
        check_fields(self, f"data.sources[{self.directory}]")
        if self.weight is not None and self.repeat != 1:
            raise UserError(f"data.sources: {self.directory} has a weight and a repeat; give one of them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and how it is laid out in batches.

    directory: a dataset made by `ualm data prepare`; or sources: several of them and their shares.
    seq_len: positions T of a batch row. batch_size: rows B of a batch, over all processes.
    seed: of order and dropout.
    cfg_dropout: share of conversations whose condition is dropped (classifier-free guidance).
    packing_bins: rows that are filled at the same time; more leave less padding.
    num_workers: processes that make rows, 0 for a thread. prefetch: batches made ahead.
    audio_slots: mel windows W of a row, 0 for a model that does not listen.
    stream_weights: what the loss weights of audio tokens, 1/S each, are multiplied by, for each of the S streams; ()
        for 1. What is heard depends mostly on the first codebooks.
    skip_long: pass over conversations that do not fit a row or the audio encoder, instead of refusing the dataset.
    """

    directory: str | None = None
    sources: tuple[SourceConfig, ...] = ()
    seq_len: Count
    batch_size: Count
    seed: Natural = 0
    cfg_dropout: Share = 0.05
    packing_bins: Count = 64
    num_workers: Natural = 0
    prefetch: Natural = 2
    audio_slots: Natural = 0
    stream_weights: tuple[Positive, ...] = ()
    skip_long: bool = False

    def __post_init__(self):
        check_fields(self, "data")
        if self.directory is not None and self.sources:
            raise UserError(_EITHER)
        directories = [source.directory for source in self.sources]
        for directory in directories:
            if directories.count(directory) > 1:
                raise UserError(f"data.sources names {directory} twice; raise its weight or repeat instead")
        weights = [source.weight for source in self.sources]
        if None in weights and any(weight is not None for weight in weights):
            raise UserError("data.sources: some have a weight and some have none; give all of them one, or none")
        if weights and None not in weights and sum(weights) == 0:
            raise UserError("data.sources: all weights are 0; at least one must be positive")

    def check_sources(self) -> None:
        """Raises UserError where there is nothing to read."""
        if self.directory is None and not self.sources:
            raise UserError(_EITHER)

    @property
    def all_sources(self) -> tuple[SourceConfig, ...]:
        self.check_sources()
        return self.sources or (SourceConfig(self.directory),)
