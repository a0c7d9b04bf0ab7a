"""What a reference model says of a dataset: sums of log-probabilities, as columns beside its records.

DIR/reference.json     what decides the numbers, by name: weights, tokenizer, codec, encoder, layout
DIR/KEY.totals.npy     float32 [R, C, S]: of record r and conversation c (a pair has two, chosen and rejected), the sum
                       over the learnt tokens of stream s of log-probability times loss weight; KEY is the dataset's
DIR/KEY.counts.npy     float32 [R, C, S]: how many tokens that are
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from ualm_jax.data.dataset.folder import DatasetInfo
from ualm_jax.errors import UserError

DESCRIPTION = "reference.json"


class Columns(NamedTuple):
    """Memory-mapped; NaN for records that were passed over."""

    totals: Float32[np.ndarray, "R C S"]
    counts: Float32[np.ndarray, "R C S"]


def column_files(directory: Path, info: DatasetInfo) -> tuple[Path, Path]:
    return directory / f"{info.key}.totals.npy", directory / f"{info.key}.counts.npy"


def open_columns(directory: Path, info: DatasetInfo, streams: int) -> Columns:
    """Raises UserError where the dataset was not scored, or a file is damaged."""
    read_key(directory)  # which says so where there are no columns at all
    shape = (info.records, 2 if info.pairs else 1, streams)
    found = []
    for path in column_files(directory, info):
        if not path.is_file():
            raise UserError(
                f"{directory}: says nothing of {info.directory}; name another folder in preference.reference, and let "
                "`ualm score` write it"
            )
        try:
            values = np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise UserError(f"{path}: is no NumPy file, or cut ({error}); remove the folder and score again") from error
        if (values.shape, values.dtype) != (shape, np.float32):
            raise UserError(
                f"{path}: expected float32 {list(shape)}, found {values.dtype} {list(values.shape)}; remove the folder "
                "and score again"
            )
        found.append(values)
    return Columns(*found)


def read_key(directory: Path) -> dict[str, str]:
    """What decides the columns in `directory`, by name. Raises UserError where there are none."""
    path = directory / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"{directory}: no reference log-probabilities here; run `ualm score` first, with the config and overrides "
            "of this run"
        )
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text())["key"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error!r}); remove the folder and score again") from error


def check_key(directory: Path, wanted: Mapping[str, str]) -> None:
    """Raises UserError unless the columns in `directory` were made with what `wanted` names."""
    found = read_key(directory)
    for name in (*wanted, *found):
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"{directory}: was made with another {name} ({_short(found.get(name))}) than this run begins with "
                f"({_short(wanted.get(name))}); name another folder in preference.reference, and let `ualm score` "
                "write it"
            )


def _short(value: str | None) -> str:
    return "none" if value is None else value[:16]
