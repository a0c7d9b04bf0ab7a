"""What a dataset is made with."""

import dataclasses
import os
from collections.abc import Sequence

from ualm_jax.data.dataset.codec_sound import X_CODEC, CodecShape
from ualm_jax.data.prepare.filters import Filters
from ualm_jax.fields import Count, Share, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How a source becomes a dataset. Everything but the source and where progress is shown.

    out: the dataset folder to make. It must not exist yet.
    tokenizer_dir: a local Hugging Face tokenizer.
    codec_dir: an X-codec as Hugging Face stores it. Not used by `prepare_sounds`.
    shape: of the codec that will encode the sounds of `prepare_sounds`. `prepare` asks the codec itself.
    filters: what is counted and what is left out.
    shard_size: records of the source per shard.
    max_bad_fraction: of the source's records. When more are unusable, the work stops.
    workers: processes of this machine. With more than one, a program must start under `if __name__ == "__main__"`,
        since its workers import it.
    beam: options of an Apache Beam pipeline that reads instead ("runner=DirectRunner", ...). Bad records are then
        counted when it has ended. None: no pipeline.
    """

    out: str | os.PathLike
    tokenizer_dir: str | os.PathLike
    codec_dir: str | os.PathLike | None = None
    shape: CodecShape = X_CODEC
    filters: Filters = Filters()
    shard_size: Count = 1024
    max_bad_fraction: Share = 0.05
    workers: Count = 1
    beam: Sequence[str] | None = None

    def __post_init__(self):
        check_fields(self, "prepare")
