"""A converted checkpoint: what `ualm convert` writes, and what reads it.

DIR/ualm.json      what it is: format, model, vocabulary, source, checksums
DIR/README.md      the same for people
DIR/params/        the arrays, as Orbax stores them
DIR/tokenizer/, DIR/codec/, DIR/encoder/   where there are such, as Hugging Face stores them
"""

import json
import pathlib
from typing import Any

from ualm_jax.errors import UserError

FORMAT = 1
CARD = "ualm.json"


def read_card(directory: pathlib.Path) -> dict[str, Any]:
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
