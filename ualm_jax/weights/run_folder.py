"""The work folder of a training run, as its readers see it, and the proof that a checkpoint is what was saved.

DIR/config.json                       how it is trained: what the last start asked for
DIR/tokenizer/, codec/, encoder/      what its weights were trained with; the encoder as the run began
DIR/source.json                       what an export of the weights that it began with needs; whether it has seen speech
DIR/checkpoints/STEP/state/           parameters and optimiser, as Orbax stores them
DIR/checkpoints/STEP/data/, identity/ where the data stands; the architecture, and what else may not change
DIR/checkpoints/STEP/encoder/         of a run that trains its encoder: the encoder at this step, as such a folder
DIR/checkpoints/STEP/checksums/SHA256SUMS   of all these but config.json: `cd STEP; sha256sum -c checksums/SHA256SUMS`

DIR may be a URL gs://BUCKET/PATH. There it is MD5SUMS, and Orbax's commit_success.txt in STEP makes it a checkpoint.
"""

import json
import logging
import pathlib
from typing import Any

from ualm_jax.buckets import COMMITTED, Folder, here, in_bucket, write
from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.models.config import Architecture, Execution, read_model, split_model
from ualm_jax.models.lora import LoraConfig
from ualm_jax.weights.checksums import first_change, read_sums
from ualm_jax.weights.hf_folder import json_text, read_json

PARTS = ("tokenizer", "codec", "encoder")
_SHA256, _MD5 = "checksums/SHA256SUMS", "checksums/MD5SUMS"
_NOTES = "source.json"
_METADATA = "_CHECKPOINT_METADATA"  # Orbax writes it into every checkpoint
log = logging.getLogger(__name__)


def saved_steps(workdir: Folder) -> list[int]:
    """Steps whose folders lie in `checkpoints`, whole or not, in order."""
    return sorted(int(entry.name) for entry in _step_folders(workdir) if not in_bucket(entry) or _committed(entry))


def remove_uncommitted(workdir: Folder) -> None:
    """Removes what a killed process has left of checkpoints in a bucket, where it was writing or removing them. On this
    machine Orbax does both under other names."""
    for entry in _step_folders(workdir):
        if in_bucket(entry) and not _committed(entry):
            entry.rmtree()


def _step_folders(workdir: Folder) -> list[Folder]:
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        return []
    return [entry for entry in directory.iterdir() if entry.name.isdigit() and entry.is_dir()]


def _committed(folder: Folder) -> bool:
    return (folder / COMMITTED).exists()


def parts_at(workdir: Folder, step: int | None) -> dict[str, pathlib.Path]:
    """Folders of "tokenizer", "codec" and "encoder" that belong to the weights of a step; None: as the run began.

    Copies on this machine where they lie in a bucket.
    """
    parts = {name: workdir / name for name in PARTS if (workdir / name).is_dir()}
    trained = workdir / "checkpoints" / str(step) / "encoder"
    if step is not None and trained.is_dir():
        parts["encoder"] = trained
    return {name: here(path) for name, path in parts.items()}


def choose_step(workdir: Folder, step: int | None) -> int:
    """`step` if it is there, or the newest. Raises UserError where there is none."""
    steps = saved_steps(workdir)
    if not steps:
        raise UserError(f"{workdir / 'checkpoints'} holds no finished checkpoint; train first, or give another folder.")
    if step is not None and step not in steps:
        raise UserError(f"{workdir} has no checkpoint of step {step}, only of {', '.join(map(str, steps))}.")
    return steps[-1] if step is None else step


def check_step(workdir: Folder, step: int, *, part: int = 0, parts: int = 1) -> None:
    """Raises UserError where a checkpoint, or what it was trained with, is not as it was saved.

    part, parts: which of so many equal shares of its files is read here, where several processes share the work.
    """
    problem = _damage(workdir, step, part, parts)
    if problem is not None:
        raise damaged(workdir, step, problem)


def damaged(workdir: Folder, step: int, problem: str) -> UserError:
    """The sentence about a checkpoint that cannot be used, with the newest one that can."""
    others = (other for other in reversed(saved_steps(workdir)) if other != step)
    whole = next((other for other in others if _damage(workdir, other, 0, 1) is None), None)
    advice = "no other checkpoint here is whole"
    if whole is not None:
        advice = f"the newest whole one is {whole}: read it with --step {whole}"
        if whole < step:
            advice += f", or remove {step} to train on from {whole}"
    return UserError(f"Checkpoint {workdir / 'checkpoints' / str(step)} is damaged, {problem}; {advice}.")


def read_run(workdir: Folder, step: int) -> tuple[Architecture, Execution]:
    """The architecture that a checkpoint was saved with, and how the last start computed it."""
    config, saved = read_json(workdir / "config.json"), _read_identity(workdir, step)["model"]
    try:
        stored = split_model(config["model"])[1] | config.get("execution", {})
        return read_model(saved | stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{workdir / 'config.json'}: is not the configuration of a run ({error!r}).") from None


def read_lora(workdir: Folder, step: int) -> LoraConfig | None:
    """The low-rank adapters that a checkpoint was saved with, None where it has none."""
    lora = from_mapping(LoraConfig, _read_identity(workdir, step).get("lora", {}), "lora")
    return lora if lora.rank else None


def read_notes(workdir: Folder) -> dict[str, Any]:
    """What an export needs beside the weights: as it came with those that the run began with.

    Positions that the weights have seen are those of its sequences, and of what it began with where that saw more.
    """
    length = "max_position_embeddings"
    notes = kept_notes(workdir)
    before = notes.get("config", {})
    seen = max(before.get(length, 0), read_json(workdir / "config.json")["data"]["seq_len"])
    return notes | {"config": before | {length: seen}}


def kept_notes(workdir: Folder) -> dict[str, Any]:
    """What `write_notes` has kept; empty where it has kept nothing."""
    return read_json(workdir / _NOTES) if (workdir / _NOTES).is_file() else {}


def write_notes(workdir: Folder, notes: dict[str, Any]) -> None:
    """Keeps the notes of the weights that a run begins with, and what it adds to them; the file is there whole."""
    write(workdir / _NOTES, json_text(notes))


def sums_name(folder: Folder) -> str:
    """The name of the file of sums in a checkpoint that is saved here."""
    return _MD5 if in_bucket(folder) else _SHA256


def _read_identity(workdir: Folder, step: int) -> dict[str, Any]:
    return read_json(workdir / "checkpoints" / str(step) / "identity" / "metadata")


def _damage(workdir: Folder, step: int, part: int, parts: int) -> str | None:
    """The fault of a checkpoint in words; None where none is known."""
    folder = workdir / "checkpoints" / str(step)
    try:
        items = json.loads((folder / _METADATA).read_text())["item_handlers"]
    except FileNotFoundError:
        return f"it has no {_METADATA}, so it was not saved by a run"
    except (ValueError, KeyError, TypeError, OSError):
        return f"{_METADATA} cannot be read"
    name = sums_name(folder)
    if not (folder / name).exists():  # written on this machine and copied to a bucket, or the other way round
        name = _SHA256 if name == _MD5 else _MD5
    if not (folder / name).exists():
        if "checksums" in items:
            return f"{sums_name(folder)} is missing"
        log.warning("%s has no checksums, as version 0.1 saved it: it is read unchecked", folder)
        return None
    try:
        sums = sorted(read_sums(folder / name).items())
    except UserError:
        return f"{name} cannot be read"
    return first_change(folder, dict(sums[part::parts]))
