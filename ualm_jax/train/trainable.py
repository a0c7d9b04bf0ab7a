"""What is trained: parameters by path, and rows of the tables of tokens. All else is constant.

    ("*",)                                     everything; the default
    ("adapter", "embed[audio]", "audio_head")  the alignment of modalities: text rows and backbone stay as they are
    ("*", "!embed[text]", "!text_head[text]")  everything but what the model knows of text tokens

What is not trained has no gradient and no moments: the optimiser sees a tree in which it does not occur, and of a table
of which some rows are trained it sees these rows.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array

from ualm_jax.errors import UserError
from ualm_jax.models.paths import matches
from ualm_jax.tokens.vocabulary import Vocabulary

_ENTRY = re.compile(r"(!?)([^\[\]!]+)(?:\[([^\[\]]*)\])?")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Ranges along an axis of a leaf, in order."""

    axis: int
    ranges: tuple[tuple[int, int], ...]

    def take(self, leaf: Array) -> Array:
        """The rows, end to end. Their axis is not split over the mesh: ranges do not fall on borders of its parts."""
        whole = jax.reshard(leaf, self._unsplit(leaf))
        pieces = [jax.lax.slice_in_dim(whole, start, stop, axis=self.axis) for start, stop in self.ranges]
        return jnp.concatenate(pieces, self.axis)

    def put(self, rows: Array, leaf: Array) -> Array:
        """`leaf` with these rows in their places, split as it was."""
        whole, taken = jax.reshard(leaf, self._unsplit(leaf)), 0
        for start, stop in self.ranges:
            piece = jax.lax.slice_in_dim(rows, taken, taken + stop - start, axis=self.axis)
            whole = jax.lax.dynamic_update_slice_in_dim(whole, piece.astype(leaf.dtype), start, self.axis)
            taken += stop - start
        return jax.reshard(whole, jax.typeof(leaf).sharding.spec)

    def _unsplit(self, leaf: Array) -> PartitionSpec:
        spec = list(jax.typeof(leaf).sharding.spec)
        spec[self.axis] = None
        return PartitionSpec(*spec)


@dataclasses.dataclass(frozen=True)
class Trainable:
    """chosen: paths of the leaves that are trained, with the rows that are, or None for all of a leaf.

    None in place of the mapping: everything.
    """

    chosen: Mapping[tuple[str, ...], Rows | None] | None = None

    def take(self, params: nnx.State) -> nnx.State:
        """The parameters that an optimiser sees."""
        if self.chosen is None:
            return params
        leaves = dict(nnx.to_flat_state(params))
        taken = {
            path: leaves[path] if rows is None else nnx.Param(rows.take(leaves[path][...]))
            for path, rows in self.chosen.items()
        }
        return nnx.from_flat_state(taken)

    def put(self, trained: nnx.State, params: nnx.State) -> nnx.State:
        """`params` with what is trained in its places."""
        if self.chosen is None:
            return trained
        leaves = dict(nnx.to_flat_state(params))
        for path, leaf in nnx.to_flat_state(trained):
            rows = self.chosen[path]
            leaves[path] = leaf if rows is None else nnx.Param(rows.put(leaf[...], leaves[path][...]))
        return nnx.from_flat_state(leaves)

    def whole(self, params: nnx.State) -> nnx.State:
        """The leaves of which something is trained."""
        if self.chosen is None:
            return params
        return nnx.from_flat_state({path: leaf for path, leaf in nnx.to_flat_state(params) if path in self.chosen})


EVERYTHING = Trainable()


def partial(optimizer: optax.GradientTransformation, trainable: Trainable) -> optax.GradientTransformation:
    """`optimizer` of what is trained alone. It takes whole parameters, gradients of `trainable.take` of them, and gives
    updates of the same form.
    """
    return optax.GradientTransformation(
        lambda params: optimizer.init(trainable.take(params)),
        lambda grads, state, params: optimizer.update(grads, state, trainable.take(params)),
    )


def choose(entries: Sequence[str], params: Any, vocabulary: Vocabulary) -> Trainable:
    """What the entries of `train.trainable` choose of abstract or real parameters, one after the other.

    An entry is a pattern of paths (`paths.matches`), may name the rows of special tokens, text or audio, and takes
    away what it matches where a ! stands before it. Raises UserError for one that matches nothing.
    """
    leaves = nnx.to_flat_state(params)
    # Kernels in 8 bits can not be trained, whatever matches them.
    floats = [path for path, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    groups = {path: _row_groups(path, vocabulary) for path in floats}
    chosen: dict[tuple[str, ...], set[str]] = {path: set() for path in groups}
    for entry in entries:
        parsed = _ENTRY.fullmatch(entry)
        if parsed is None:
            raise UserError(
                f"train.trainable: {entry!r} is no filter; write a path, such as 'adapter' or 'embed[audio]'."
            )
        without, pattern, rows = parsed.groups()
        found = [path for path in groups if matches(pattern, ".".join(path))]
        if not found:
            names = sorted({path[0] for path in groups})
            raise UserError(f"train.trainable: {entry!r} matches no parameter; the model has {', '.join(names)}.")
        for path in found:
            if rows is not None and rows not in groups[path]:
                there = [name for name in groups[path] if name]
                raise UserError(
                    f"train.trainable: {entry!r} names rows that {'.'.join(path)} does not have; it has "
                    f"{' and '.join(there) if there else 'no rows of tokens'}."
                )
            change = set(groups[path]) if rows is None else {rows}
            chosen[path] = chosen[path] - change if without else chosen[path] | change
    if not any(chosen.values()):
        raise UserError(f"train.trainable = {tuple(entries)!r} leaves nothing to train.")
    if len(floats) == len(leaves) and all(chosen[path] == set(groups[path]) for path in groups):
        return Trainable()
    return Trainable({path: _rows(path, names, groups[path]) for path, names in chosen.items() if names})


def _row_groups(path: tuple[str, ...], vocabulary: Vocabulary) -> dict[str, tuple[int, int]]:
    """Ranges of token rows of a leaf by name; one without a name for leaves that have none."""
    special, text = (0, vocabulary.text_start), (vocabulary.text_start, vocabulary.audio_start)
    if path == ("embed",):
        return {"special": special, "text": text, "audio": (vocabulary.audio_start, vocabulary.size)}
    return {"special": special, "text": text} if path == ("text_head",) else {"": (0, 0)}


def _rows(path: tuple[str, ...], names: set[str], groups: dict[str, tuple[int, int]]) -> Rows | None:
    if names == set(groups):
        return None
    return Rows({"embed": 0, "text_head": 1}[path[0]], tuple(groups[name] for name in groups if name in names))
