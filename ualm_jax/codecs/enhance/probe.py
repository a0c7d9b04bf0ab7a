"""What a file of tensors holds beside what an enhancer of this project would hold: shapes compared, nothing guessed."""

import dataclasses
import os
from collections import defaultdict
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ualm_jax.codecs.enhance.config import EnhancerConfig
from ualm_jax.codecs.enhance.weights import expected
from ualm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Probed:
    """found: name -> (type, shape) of each tensor of the file, in its order.

    fits: tensor of ours -> the one tensor of the file that can only be it: same name and shape, or the only ones left
        of their shape on both sides. ambiguous: shape -> (ours, theirs), where there are several. missing: tensors of
        ours whose shape no tensor of the file has. unknown: tensors of the file that fit nothing.
    """

    found: dict[str, tuple[str, tuple[int, ...]]]
    fits: dict[str, str]
    ambiguous: dict[tuple[int, ...], tuple[list[str], list[str]]]
    missing: list[str]
    unknown: list[str]


def probe(path: str | os.PathLike, config: EnhancerConfig) -> Probed:
    """Reads names, types and shapes alone. Raises UserError where `path` is no safetensors file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a safetensors file, found none")
    try:
        with safe_open(path, framework="numpy") as source:
            slices = {name: source.get_slice(name) for name in source.keys()}
            found = {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{path}: expected a safetensors file, found one that cannot be read ({error})") from None
    ours = expected(config)
    fits = {name: name for name, shape in ours.items() if name in found and found[name][1] == shape}
    mine, theirs = defaultdict(list), defaultdict(list)
    for name, shape in ours.items():
        if name not in fits:
            mine[shape].append(name)
    for name, (_, shape) in found.items():
        if name not in fits:
            theirs[shape].append(name)
    ambiguous = {}
    for shape in mine.keys() & theirs.keys():
        if len(mine[shape]) == len(theirs[shape]) == 1:
            fits[mine[shape][0]] = theirs[shape][0]
        else:
            ambiguous[shape] = (mine[shape], theirs[shape])
    missing = [name for name, shape in ours.items() if name not in fits and shape not in ambiguous]
    taken = set(fits.values())
    unknown = [name for name, (_, shape) in found.items() if name not in taken and shape not in ambiguous]
    return Probed(found, fits, ambiguous, missing, unknown)
