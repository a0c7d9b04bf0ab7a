"""Round 1: rich captions and their sounds, with prompts and dialogues that a writer has written for them.

OUT/written/00003.jsonl   the texts of a shard, and why there are none where that is so; such are tried again
OUT/dataset               the conversations; what could not be used is in its quarantine.jsonl, with the reason
"""

import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio.write import write_whole
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.prepare.config import PrepareConfig
from ualm_jax.data.prepare.job import prepare
from ualm_jax.data.raw.conversation import RawConversation, sound_message, text_message
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.data.raw.soundscript.conversations import PLAN_FIRST
from ualm_jax.errors import UserError
from ualm_jax.generate.results import settle
from ualm_jax.outputs import lock
from ualm_jax.reason.builders.config import BuildConfig
from ualm_jax.reason.builders.pool import Pool
from ualm_jax.reason.builders.writer import Writer, checked_dialogue, checked_text
from ualm_jax.tokens.types import Role

log = logging.getLogger(__name__)

_SHARD = 1024  # texts


def build_conversations(
    pool: Pool, writer: Writer, config: BuildConfig, out: pathlib.Path, folders: dict[str, pathlib.Path]
) -> DatasetInfo:
    """Makes the dataset `out`/dataset. folders: paths of "tokenizer" and "codec".

    Killed at any moment, the same call goes on to the same dataset. Raises UserError where `out` was begun with
    something else, and where more than `config.max_bad_fraction` can not be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    sizes = {"enrichments": config.enrichments, "dialogues": config.dialogues}
    with lock(out):
        settle(out, {"kind": "sft", **sizes, "pool": pool.fingerprint(), "writer": writer.name, "seed": config.seed})
        if (out / "dataset").is_dir():
            return open_dataset(out / "dataset")
        source = Written(pool, out / "written", config.enrichments, config.dialogues)
        write_texts(source, writer, config)
        parts = dict(tokenizer_dir=folders["tokenizer"], codec_dir=folders["codec"], workers=config.workers)
        return prepare(source, PrepareConfig(out=out / "dataset", **parts, max_bad_fraction=config.max_bad_fraction))


def write_texts(source: "Written", writer: Writer, config: BuildConfig) -> None:
    """Lets the writer write what is still missing, and what failed before."""
    source.folder.mkdir(exist_ok=True)

    def write(index: int) -> dict[str, Any]:
        try:
            return {"turns": _texts(source, writer, index, config.seed), "writer": writer.name}
        except BadRecord as error:
            return {"problem": str(error)}
        except UserError as error:
            return {"problem": f"{source.id_of(index)}: {error}"}

    with ThreadPoolExecutor(config.writer.workers) as threads:
        for shard, indices in source.shards():
            lines = source.read(shard)
            left = [place for place, index in enumerate(indices) if lines is None or "problem" in lines[place]]
            if not left:
                continue
            lines = [{}] * len(indices) if lines is None else lines
            for place, line in zip(left, threads.map(write, [indices[place] for place in left]), strict=True):
                lines[place] = line
            content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_whole({source.folder / f"{shard:05d}.jsonl": content.encode()})
            problems = [line["problem"] for line in lines if "problem" in line]
            log.info("%d of %d texts gone through", indices[-1] + 1, len(source))
            if problems:
                log.warning("%d of the last %d were not written: %s", len(problems), len(lines), problems[0])


def _texts(source: "Written", writer: Writer, index: int, seed: int) -> list[tuple[str, str]]:
    caption = source.pool[source.entry_of(index)].caption
    seed = (seed + index) % 2**32
    if source.is_dialogue(index):
        return checked_dialogue(writer.dialogue(caption, seed))
    return [("user", PLAN_FIRST.format(checked_text(writer.prompt(caption, seed), "prompt")))]


@dataclasses.dataclass(frozen=True)
class PoolSound:
    """A sound that is read when it is needed, at the rate that is needed."""

    pool: Pool
    index: int

    def read(self, sample_rate: int) -> Float32[np.ndarray, "N"]:
        return self.pool.sound(self.index, sample_rate)


class Written:
    """Enrichments and then dialogues, entry after entry of a pool, which may be used several times. Implements
    ConversationSource; the texts are those in `folder`."""

    left_out = ()

    def __init__(self, pool: Pool, folder: pathlib.Path, enrichments: int, dialogues: int):
        self.pool, self.folder, self.name = pool, folder, f"{pool.name}-reason"
        self._enrichments, self._dialogues = enrichments, dialogues
        self._shard: tuple[int, list[dict[str, Any]]] | None = None

    def __len__(self) -> int:
        return self._enrichments + self._dialogues

    def is_dialogue(self, index: int) -> bool:
        return index >= self._enrichments

    def entry_of(self, index: int) -> int:
        return index % len(self.pool)

    def id_of(self, index: int) -> str:
        kind = "dialogue" if self.is_dialogue(index) else "enrich"
        return f"{self.pool.name}-{kind}-{index}"

    def shards(self) -> Iterable[tuple[int, range]]:
        for first in range(0, len(self), _SHARD):
            yield first // _SHARD, range(first, min(first + _SHARD, len(self)))

    def read(self, shard: int) -> list[dict[str, Any]] | None:
        """The lines of a shard; None before it is written."""
        file = self.folder / f"{shard:05d}.jsonl"
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.is_file() else None

    def __getitem__(self, index: int) -> RawConversation:
        if not 0 <= index < len(self):
            raise IndexError(f"conversation {index} of {len(self)}")
        held = self._shard  # read by several threads, each with its own reference
        if held is None or held[0] != index // _SHARD:
            held = self._shard = index // _SHARD, self.read(index // _SHARD)
        line, id = held[1][index % _SHARD], self.id_of(index)
        if "problem" in line:
            raise BadRecord(line["problem"], id)
        entry = self.pool[self.entry_of(index)]
        messages = [text_message(Role(role), text) for role, text in line["turns"]]
        messages.append(text_message(Role.ASSISTANT, entry.caption.write()))
        messages += [sound_message(Role.ASSISTANT, PoolSound(self.pool, self.entry_of(index)))]
        scene = {"from": entry.id, "writer": line["writer"], "rich_caption": entry.caption.write()}
        scene |= {} if entry.scene is None else {"scene": entry.scene}
        return RawConversation(id, tuple(messages), line["turns"][0][1], scene)

    def fingerprint(self) -> dict[str, Any]:
        """Changes when any text does."""
        return {"pool": self.pool.fingerprint(), "texts": [self._hash(shard) for shard, _ in self.shards()]}

    def digest(self, indices: range) -> dict[str, Any]:
        """The fingerprint of a range of records."""
        shards = {index // _SHARD for index in indices}
        return {"pool": self.pool.fingerprint(), "texts": [self._hash(shard) for shard in sorted(shards)]}

    def _hash(self, shard: int) -> str:
        return hashlib.sha256((self.folder / f"{shard:05d}.jsonl").read_bytes()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shard": None}
