"""How configurations name parameters: by path, `decoder.layers.mlp.up`, or by a pattern of one."""

import fnmatch
from collections.abc import Callable
from typing import Any

import jax


def matches(pattern: str, path: str) -> bool:
    """Whether `path`, or a group that it lies in, has the pattern: "adapter", "decoder.*.mlp", "*_bias"."""
    return any(fnmatch.fnmatchcase(group, pattern) for group in _groups(path))


def map_with_paths(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function(path, leaf, ...)` of every leaf of a tree of parameters, and of trees of the same form."""
    return jax.tree_util.tree_map_with_path(lambda keys, *leaves: function(path_of(keys), *leaves), tree, *others)


def path_of(keys: tuple[Any, ...]) -> str:
    """`jax.tree_util`'s keys of a leaf as a path; the `value` of a Flax variable has no name of its own."""
    return ".".join(str(key.key) for key in keys if hasattr(key, "key"))


def _groups(path: str) -> list[str]:
    names = path.split(".")
    return [".".join(names[: count + 1]) for count in range(len(names))]
