"""A Qwen2 folder of Hugging Face as a UALM: its text rows are copied, what it lacks is drawn."""

import dataclasses
import logging
import math
import pathlib

import numpy as np

from ualm_jax.errors import UserError
from ualm_jax.models.config import Architecture
from ualm_jax.models.hf_names import QWEN2, Format, hf_shapes
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.weights.arrays import ArrayInfo, Piece
from ualm_jax.weights.hf_config import Qwen2Folder, read_qwen2
from ualm_jax.weights.hf_folder import open_directory
from ualm_jax.weights.hf_to_ours import CHUNK_BYTES, InitialValues, array_infos, pieces
from ualm_jax.weights.tensor_files import TensorFiles

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Extension:
    """What is added to a text model: codebooks, and rows that are drawn from normal(0, std) with `seed`."""

    codebook_size: int = 1024
    num_codebooks: int = 8
    seed: int = 0
    std: float = 0.02

    def __post_init__(self):
        for name, least in (("codebook_size", 1), ("num_codebooks", 1), ("seed", 0)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.std < math.inf:
            raise UserError(f"--std must be a finite number of at least 0, got {self.std}.")


DEFAULT_EXTENSION = Extension()


class Qwen2Plan:
    """A Qwen2 folder, checked, and how it becomes our arrays.

    form: its tensors; a head of None where the embedding serves as head. param_dtype: that holds all of them.
    """

    def __init__(self, folder: Qwen2Folder, architecture: Architecture, files: TensorFiles, initial: InitialValues):
        self.architecture, self.files, self.kept = architecture, files, folder.kept
        self.form, unread = qwen2_form(folder, architecture, files)
        files.check(hf_shapes(self.form, architecture), files.files[0].parent, unread=unread)
        self.infos: dict[str, ArrayInfo] = array_infos(self.form, architecture, files)
        self.pieces: list[Piece] = pieces(self.form, architecture, files, self.infos, initial)
        narrow = all(info.dtype.name == "bfloat16" for info in self.infos.values())
        self.param_dtype = "bfloat16" if narrow else "float32"


def plan_qwen2(
    source: pathlib.Path, extension: Extension = DEFAULT_EXTENSION, feature_width: int | None = None
) -> Qwen2Plan:
    """Raises UserError where `source` is no whole Qwen2 model."""
    folder = read_qwen2(source)
    vocabulary = Vocabulary(folder.text_size, extension.codebook_size, extension.num_codebooks)
    architecture = Architecture(folder.decoder, vocabulary, feature_width)
    return Qwen2Plan(folder, architecture, open_directory(source), InitialValues(extension.seed, extension.std))


def qwen2_form(folder: Qwen2Folder, architecture: Architecture, files: TensorFiles) -> tuple[Format, frozenset[str]]:
    """The tensors that make the model, and those that lie there and are not read.

    A tied model may still have a head of its own in its files: transformers takes it, and so do we.
    """
    buffers = frozenset(name for name in files.tensors if name.endswith(".rotary_emb.inv_freq"))  # old transformers
    if not folder.tied:
        return QWEN2, buffers
    if QWEN2.head not in files.tensors or _equal(files, QWEN2.embed, QWEN2.head):
        return QWEN2._replace(head=None), buffers | {QWEN2.head}
    log.warning("%s: is tied by its config.json, but has a head of its own, which is taken", files.files[0].parent)
    return QWEN2, buffers


def _equal(files: TensorFiles, left: str, right: str) -> bool:
    """Whether two tables hold the same numbers; one that is missing is found later."""
    if left not in files.tensors or files.tensors[left].shape != files.tensors[right].shape:
        return left not in files.tensors
    rows, width = files.tensors[left].shape
    step = max(1, CHUNK_BYTES // (4 * width))
    blocks = (slice(start, min(start + step, rows)) for start in range(0, rows, step))
    return all(np.array_equal(files.read(left, block), files.read(right, block)) for block in blocks)
