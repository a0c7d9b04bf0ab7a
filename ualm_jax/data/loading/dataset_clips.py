"""The sounds of a prepared dataset as `loading.clips.Clips`."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32

from ualm_jax.data.dataset.codec_sound import PEAK
from ualm_jax.data.dataset.folder import open_dataset, read_description, record_bytes
from ualm_jax.data.dataset.records import from_bytes
from ualm_jax.data.dataset.sounds import open_sounds
from ualm_jax.data.loading.clips import read_part
from ualm_jax.errors import UserError
from ualm_jax.tokens.types import Modality


class DatasetClips:
    """The sounds that the records of a dataset hold, in their order: audio input, and target audio that is not codes
    yet (`ualm data prepare --sounds-only`). All are mono.

    Every record is read once to learn how long they are; after that a crop reads its own record. Raises UserError for
    a dataset that holds codes and texts alone.
    """

    channels = 1

    def __init__(self, directory: str | os.PathLike, sample_rate: int):
        self.sample_rate, self.directory = sample_rate, Path(directory)
        encoded = read_description(self.directory)["vocabulary"] is not None
        info = open_dataset(directory) if encoded else open_sounds(directory)
        self._books = info.vocabulary.num_codebooks if encoded else None
        self._bytes, self._key = record_bytes(info), info.key
        self._places, lengths = [], []  # (record, which of its sounds), and samples
        for index in range(len(self._bytes)):
            for place, (sound, rate, _) in enumerate(self._sounds(index)):
                self._places.append((index, place))
                lengths.append(soundfile.info(io.BytesIO(sound)).frames * sample_rate // rate)
        if not lengths:
            raise UserError(
                f"{directory}: its records hold codes and texts, expected sounds; give the folder of sounds, or what "
                "`ualm data prepare --sounds-only` makes of it"
            )
        self.lengths = np.array(lengths, np.int64)

    def _sounds(self, index: int) -> list[tuple[bytes, int, float]]:
        """FLAC files of a record, their rates, and the level that stands for full scale in each."""
        record = from_bytes(self._bytes[index], self._books)
        kinds = [each.modality for each in record.messages if isinstance(each.content, int)]
        levels = (1.0 if kind == Modality.CLIP else PEAK for kind in kinds)
        files = ((data, soundfile.info(io.BytesIO(data)).samplerate) for data in record.clips)
        return [(data, rate, level) for (data, rate), level in zip(files, levels, strict=True)]

    def read(self, index: int, start: int, stop: int) -> Float32[np.ndarray, "N 1"]:
        record, place = self._places[index]
        data, rate, level = self._sounds(record)[place]
        frames = soundfile.info(io.BytesIO(data)).frames
        return level * read_part(io.BytesIO(data), self.name(index), (rate, frames), self.sample_rate, start, stop)

    def name(self, index: int) -> str:
        record, place = self._places[index]
        return f"{self.directory}: sound {place} of record {record}"

    def fingerprint(self) -> Any:
        return {"kind": "dataset", "sample_rate": self.sample_rate, "key": self._key}
