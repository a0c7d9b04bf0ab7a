"""A model whose layers are arrays of their own, as generating reads them, and no stack beside them."""

import jax
from flax import nnx

from ualm_jax.models.ualm import UALM


def take_layers_apart(model: UALM) -> None:
    """Changes `model`: its layers one by one. No more than one stacked kernel is in memory twice at any time."""
    structure, stacked = nnx.split(model.decoder.layers)
    model.decoder.layers = None
    arrays, tree = jax.tree.flatten(stacked)
    del stacked
    for index in range(len(arrays)):
        arrays[index] = _rows(arrays[index])
    layers = [nnx.merge(structure, jax.tree.unflatten(tree, each)) for each in zip(*arrays, strict=True)]
    model.decoder.layers = nnx.List(layers)


@jax.jit
def _rows(array: jax.Array) -> list[jax.Array]:
    return [array[index] for index in range(len(array))]
