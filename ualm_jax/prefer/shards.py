"""Shards of answers on disk: what there is to say of them as JSON, and their tokens end to end beside it.

FOLDER/00003.npz    the tokens of a shard's answers: codes [T, Q] or text ids [n], and their lengths
FOLDER/00003.json   what belongs to them, entry by entry; written last
"""

import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ualm_jax.audio.write import write_whole


def write_shard(
    folder: pathlib.Path, name: str, entries: Sequence[dict[str, Any]], contents: Sequence[Int[np.ndarray, "..."]]
) -> None:
    """contents: of all entries, in order."""
    file = io.BytesIO()
    lengths = np.array([len(each) for each in contents], np.int64)
    np.savez(file, content=np.concatenate(contents) if contents else np.zeros(0, np.int32), lengths=lengths)
    write_whole({folder / f"{name}.npz": file.getvalue()})
    write_whole({folder / f"{name}.json": (json.dumps(entries, ensure_ascii=False) + "\n").encode()})


def has_shard(folder: pathlib.Path, name: str) -> bool:
    return (folder / f"{name}.json").is_file()


def read_shards(folder: pathlib.Path) -> Iterator[tuple[dict[str, Any], Iterator[Int[np.ndarray, "..."]]]]:
    """(entry, contents) of all shards in order; of each entry, its own contents must be taken before the next."""
    for path in sorted(folder.glob("*.json")):
        with np.load(path.with_suffix(".npz")) as arrays:
            contents = iter(np.split(arrays["content"], np.cumsum(arrays["lengths"])[:-1]))
        for entry in json.loads(path.read_text()):
            yield entry, contents
