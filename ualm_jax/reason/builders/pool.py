"""Sounds with rich captions: what all conversations are built of."""

import dataclasses
import pathlib
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio.io import read_audio
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.data.raw.soundscript import SoundScript2, render
from ualm_jax.data.raw.soundscript.rich import rich_caption
from ualm_jax.reason.builders.config import BuildConfig
from ualm_jax.reason.plans import contradictions
from ualm_jax.tokens.rich_caption import BadRichCaption, RichCaption, parse


@dataclasses.dataclass(frozen=True)
class Entry:
    """A rich caption, and what is known of its sound. id: within its pool. scene: the ground truth, where there is
    one."""

    id: str
    caption: RichCaption
    scene: dict[str, Any] | None = None


@runtime_checkable
class Pool(Protocol):
    """Entries by index, endless or not; `sound` reads one's waveform, float32 mono. Both raise BadRecord."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Entry: ...

    def sound(self, index: int, sample_rate: int) -> Float32[np.ndarray, "N"]: ...

    def fingerprint(self) -> dict[str, Any]: ...


class ScriptPool:
    """Scenes of SoundScript's training split, as many as are asked for."""

    name = "soundscript"

    def __init__(self, count: int, seed: int):
        self._sounds = SoundScript2(count, seed)

    def __len__(self) -> int:
        return len(self._sounds)

    def __getitem__(self, index: int) -> Entry:
        script = self._sounds.script(index)
        return Entry(self._sounds.id(index), rich_caption(script.plan), script.scene.to_dict())

    def sound(self, index: int, sample_rate: int) -> Float32[np.ndarray, "N"]:
        return render(self._sounds.script(index).scene, sample_rate)

    def fingerprint(self) -> dict[str, Any]:
        return self._sounds.fingerprint() | {"count": None}  # entry i does not depend on it


class ManifestPool:
    """A JSON lines file of {"audio": FILE, "rich_caption": TEXT}; names of files are relative to it."""

    def __init__(self, path: str):
        self._records, self._folder = JsonRecords(path), pathlib.Path(path).parent
        self.name = self._records.name

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Entry:
        record, where = self._records[index], self._records.where(index)
        for field in ("audio", "rich_caption"):
            if not isinstance(record.get(field), str) or not record[field].strip():
                raise BadRecord(f"{where}: expected a text as {field!r}, found {record.get(field)!r}")
        id = str(record.get("id", f"{self.name}-{self._records.number(index)}"))
        try:
            caption = parse(record["rich_caption"])
        except BadRichCaption as error:
            raise BadRecord(f"{where}: rich_caption can not be read: {error}", id) from None
        if found := contradictions(caption):
            raise BadRecord(f"{where}: rich_caption contradicts itself: {found[0]}", id)
        return Entry(id, caption)

    def sound(self, index: int, sample_rate: int) -> Float32[np.ndarray, "N"]:
        return read_audio(self._folder / self._records[index]["audio"], sample_rate=sample_rate)

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": self._records.sha256}


def open_pool(config: BuildConfig) -> Pool:
    """What `BuildConfig.sounds` names; of SoundScript as many scenes as all stages need."""
    if config.sounds != "soundscript":
        return ManifestPool(config.sounds)
    rounds = 2 * config.preference_prompts + config.reflections + config.final_prompts
    return ScriptPool(max(config.enrichments + config.dialogues, rounds), config.seed)
