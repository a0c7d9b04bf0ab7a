"""The arrays of a run with low-rank adapters, as if it had none."""

import numpy as np
from jaxtyping import Shaped

from ualm_jax.buckets import Folder
from ualm_jax.models.lora import LoraConfig
from ualm_jax.weights.arrays import ArrayStore, Index


class AdaptedStore(ArrayStore):
    """`ArrayStore` whose adapted kernels are read with their adapters merged, in the dtype of the embedding.

    parts: the arrays as they are stored.
    """

    def __init__(self, directory: Folder, lora: LoraConfig):
        super().__init__(directory)
        self.parts, self._lora = ArrayStore(directory), lora
        self._adapted = {f"decoder.layers.{part}.{name}" for part, name, _ in lora.kernels()}

    @property
    def paths(self) -> set[str]:
        kept = {path for path in super().paths if not any(path.startswith(f"{kernel}.") for kernel in self._adapted)}
        return kept | self._adapted

    def shape(self, path: str) -> tuple[int, ...]:
        return self.parts.shape(self._base(path)) if path in self._adapted else super().shape(path)

    def dtype(self, path: str) -> np.dtype:
        return super().dtype("embed" if path in self._adapted else path)

    def read(self, path: str, index: Index = ()) -> Shaped[np.ndarray, "..."]:
        if path not in self._adapted:
            return super().read(path, index)
        layers, rest = (index[:1] or (slice(None),)), index[1:]
        if isinstance(layers[0], slice):
            merged = np.stack([self._merged(path, layer) for layer in range(self.shape(path)[0])[layers[0]]])
            return merged[(slice(None), *rest)]
        return self._merged(path, layers[0])[rest]

    def _merged(self, path: str, layer: int) -> Shaped[np.ndarray, "..."]:
        def read(name: str) -> np.ndarray:
            return self.parts.read(name, (layer,)).astype(np.float32)

        base = read(self._base(path))
        if self._lora.int8_base:
            base = base * read(f"{path}.base.scale")
        product = np.tensordot(read(f"{path}.lora_a"), read(f"{path}.lora_b"), 1)
        return (base + np.float32(self._lora.scale) * product).astype(self.dtype(path))

    def _base(self, path: str) -> str:
        return f"{path}.base.values" if self._lora.int8_base else f"{path}.base"
