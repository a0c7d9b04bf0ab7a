"""The language model from our arrays to the tensors of a format, one tensor at a time."""

import numpy as np
from jaxtyping import Shaped

from ualm_jax.models.config import Architecture
from ualm_jax.models.hf_names import Format, hf_shapes, hf_tensors, to_hf, transpose
from ualm_jax.weights.arrays import ArrayStore
from ualm_jax.weights.hf_to_ours import CHUNK_BYTES


def read_hf(form: Format, architecture: Architecture, store: ArrayStore, name: str) -> Shaped[np.ndarray, "..."]:
    """One foreign tensor out of our arrays."""
    first, last = form.rows(architecture.vocabulary)
    if name == form.embed:
        return store.read("embed", (slice(first, last),))
    if name == form.head:
        start = architecture.vocabulary.audio_start
        text = transpose(store.read("text_head", (slice(None), slice(first, min(last, start)))))
        if last <= start:
            return text
        audio = store.read("audio_head")
        return np.concatenate([text, transpose(audio.reshape(len(audio), -1))])
    tensor, layer = hf_tensors(form, architecture)[name]
    return to_hf(tensor, store.read(tensor.ours, () if layer is None else (layer,)))


def hf_dtypes(
    form: Format, architecture: Architecture, store: ArrayStore
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every tensor that `read_hf` gives."""
    entries = hf_tensors(form, architecture)
    tables = {form.embed: "embed", form.head: "text_head"}
    return {
        name: (shape, store.dtype(tables[name] if name in tables else entries[name][0].ours))
        for name, shape in hf_shapes(form, architecture).items()
    }


def tables_equal(form: Format, architecture: Architecture, store: ArrayStore) -> bool:
    """Whether embedding and head hold the same bytes in the rows that `form` has."""
    first, last = form.rows(architecture.vocabulary)
    if store.dtype("embed") != store.dtype("text_head") or last > architecture.vocabulary.audio_start:
        return False
    step = max(1, CHUNK_BYTES // (architecture.decoder.width * store.dtype("embed").itemsize))
    return all(
        np.array_equal(
            store.read("embed", (slice(start, stop),)).view(np.uint8),
            transpose(store.read("text_head", (slice(None), slice(start, stop)))).view(np.uint8),
        )
        for start, stop in ((at, min(at + step, last)) for at in range(first, last, step))
    )
