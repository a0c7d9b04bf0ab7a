"""The proof of a conversion: every tensor accounted for, and both sides run on the same input."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from ualm_jax.convert_weights.codec_and_encoder import KINDS
from ualm_jax.convert_weights.ours_to_hf import read_hf, tables_equal
from ualm_jax.convert_weights.ualm_reference import CODEC, HANDLERS, find_states
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder.weights import UNUSED
from ualm_jax.models.hf_names import Format, hf_shapes, reference
from ualm_jax.weights.audio_tower import encoder_shapes, open_tower, read_encoder_config
from ualm_jax.weights.checksums import sha256
from ualm_jax.weights.converted import read_card
from ualm_jax.weights.hf_config import read_qwen2
from ualm_jax.weights.hf_folder import open_directory
from ualm_jax.weights.hf_qwen2 import qwen2_form
from ualm_jax.weights.opener import open_weights
from ualm_jax.weights.tensor_files import TensorFiles

MODULE_LIMIT = 1e-5
MODEL_LIMIT = 1e-4
BF16_KL_LIMIT = 0.015
TOP_K = 5


class Row(NamedTuple):
    """A line of a report. limit: the largest value that passes; None where the value is only told."""

    name: str
    value: float
    limit: float | None

    @property
    def passed(self) -> bool:
        return self.limit is None or self.value <= self.limit  # so NaN fails


@dataclasses.dataclass
class Report:
    """tensors: what was compared byte by byte; problems: sentences; rows: what running both sides gave."""

    tensors: int = 0
    size: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    rows: list[Row] = dataclasses.field(default_factory=list)
    skipped: str | None = None

    @property
    def passed(self) -> bool:
        return not self.problems and all(row.passed for row in self.rows)


def verify(
    source: pathlib.Path, converted: pathlib.Path, *, base: pathlib.Path | None = None, run: bool = True
) -> Report:
    """Compares `converted` with the `source` it was made from; the importer is read from its card.

    base: the Qwen2 directory that a reference checkpoint, which knows no sizes, was trained from.
    run: also run both sides, if torch and transformers are installed; needs memory for two float32 models.
    """
    from ualm_jax.convert_weights import verify_run

    report = Report()
    card = read_card(converted)["source"]
    importer = card["importer"]
    runners: dict[str, Callable[[], Iterable[Row]]] = {}
    if importer in ("qwen2", "ualm-reference"):
        files, form = _language_model(report, importer, source, converted, base)
        runners[importer] = lambda: verify_run.language_model(source, converted, importer, files, form)
    elif importer == "xcodec":
        files = open_directory(source)
        _same(report, files, open_directory(converted / "codec"))
        runners[importer] = lambda: verify_run.codec(source, converted / "codec")
    elif importer in KINDS:
        files = open_tower(source)
        files.check(encoder_shapes(read_encoder_config(source / "config.json")), source, unread=UNUSED)
        _same(report, files, open_directory(converted / "encoder"))
        runners[importer] = lambda: verify_run.encoder(converted / "encoder", files)
    else:
        raise UserError(f"{converted}: was made by {importer!r}, which this version does not know.")
    _check_hashes(report, card["sha256"], files, converted)
    if not run:
        report.skipped = "not run, as asked"
    elif report.problems:
        report.skipped = "not run: the tensors differ"
    elif missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        report.skipped = f"not run: {' and '.join(missing)} not installed"
    else:
        report.rows = list(runners[importer]())
    return report


def _language_model(
    report: Report, importer: str, source: pathlib.Path, converted: pathlib.Path, base: pathlib.Path | None
) -> tuple[TensorFiles, Format]:
    weights = open_weights(converted)
    architecture, store = weights.architecture, weights.arrays()
    if importer == "qwen2":
        base = source
        files = open_directory(source)
        form, unread = qwen2_form(read_qwen2(source), architecture, files)
    else:
        files, form = TensorFiles([find_states(source)]), reference(architecture)
        unread = frozenset(name for name in files.tensors if name.startswith(HANDLERS))
    if base is not None:
        decoder = read_qwen2(base).decoder
        if decoder != architecture.decoder:
            report.problems.append(f"{base / 'config.json'} says {decoder}, {converted} {architecture.decoder}")
    files.check(hf_shapes(form, architecture), source, unread=unread)
    for name in hf_shapes(form, architecture):
        _compare(report, name, files.read(name), read_hf(form, architecture, store, name))
    if importer == "ualm-reference":
        for part, prefix in (("codec", CODEC), ("encoder", weights.notes.get("encoder_prefix"))):
            hf = TensorFiles(files.files, prefix) if prefix else None
            if hf and hf.tensors:
                _same(report, hf, open_directory(converted / part))
    if form.head is None and not tables_equal(form, architecture, store):
        report.problems.append("the source ties head and embedding, but their text rows differ here")
    return files, form


def _same(report: Report, hf: TensorFiles, ours: TensorFiles) -> None:
    for name in sorted(set(hf.tensors) ^ set(ours.tensors)):
        report.problems.append(f"tensor {name} is on one side only")
    for name in sorted(set(hf.tensors) & set(ours.tensors)):
        value, own = hf.read(name), ours.read(name)
        # Training may have rounded the codec; ours is the one that was rounded.
        _compare(report, name, value, own.astype(value.dtype))


def _compare(report: Report, name: str, hf: Shaped[np.ndarray, "..."], ours: Shaped[np.ndarray, "..."]) -> None:
    report.tensors += 1
    report.size += hf.nbytes
    if ours.dtype == np.float32:  # holds both 16-bit dtypes exactly, where layers that we stack differ in dtype
        hf = hf.astype(np.float32)
    if (hf.dtype, hf.shape) != (ours.dtype, ours.shape):
        report.problems.append(f"tensor {name} is {hf.dtype}{hf.shape} there, {ours.dtype}{ours.shape} here")
    elif not np.array_equal(_bits(hf), _bits(ours)):
        count = int((_bits(hf) != _bits(ours)).sum())
        report.problems.append(f"tensor {name} differs in {count} of {hf.nbytes} bytes")


def _bits(value: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def _check_hashes(report: Report, recorded: dict[str, str], files: TensorFiles, converted: pathlib.Path) -> None:
    own = {file.name: file for file in files.files}
    for name, expected in recorded.items():
        file = own.get(name, converted / name)
        if not file.is_file():
            report.problems.append(f"{name} is missing, which the checkpoint was made from")
        elif sha256(file) != expected:
            report.problems.append(f"{file} has another SHA-256 than when it was converted")
