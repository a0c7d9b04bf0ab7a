"""A converted checkpoint: what `ualm convert` writes, and what reads it.

DIR/ualm.json      what it is: format, model, vocabulary, source; SHA-256 of its files, but for the chunks of arrays
DIR/README.md      the same for people
DIR/params/        the arrays, as Orbax stores them, with CRC-32C in every chunk
DIR/tokenizer/, DIR/codec/, DIR/encoder/   where there are such, as Hugging Face stores them
"""

import json
import pathlib
from typing import Any

from ualm_jax.buckets import Folder
from ualm_jax.errors import UserError
from ualm_jax.weights.checksums import files_below, first_change

FORMAT = 1
CARD = "ualm.json"


def read_card(directory: Folder) -> dict[str, Any]:
    """`ualm.json`. Raises UserError where there is none, or one that this version cannot read."""
    path = directory / CARD
    try:
        card = json.loads(path.read_text())
        version = card["format"]
    except FileNotFoundError:
        raise UserError(
            f"{directory} is no converted checkpoint: it has no {CARD}; make one with `ualm convert`."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); convert the weights again.") from None
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, expected {FORMAT}; convert the weights again with this version.")
    return card


def checked_files(directory: pathlib.Path) -> list[pathlib.Path]:
    """Files whose SHA-256 is in `ualm.json`: those of the parts, and what describes the arrays."""
    arrays = directory / "params"
    parts = files_below(*(directory / name for name in ("tokenizer", "codec", "encoder")))
    return [*parts, *arrays.glob("_METADATA"), *arrays.glob("*/zarr.json")]


def check_files(directory: Folder, card: dict[str, Any]) -> None:
    """Raises UserError where a file is not as it was converted. Version 0.1 kept no such sums."""
    problem = first_change(directory, card.get("files", {}))
    if problem is not None:
        raise UserError(f"{directory}: {problem}; convert the weights again, or copy them again.")
