"""The folder of a run: one process at a time writes it, and nothing is written before every check has passed."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ualm_jax.data.dataset.folder import DatasetInfo
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import read_settings
from ualm_jax.outputs import lock
from ualm_jax.weights.fingerprints import parts_of
from ualm_jax.weights.opener import notes_of
from ualm_jax.weights.run_folder import kept_notes, write_notes

Parts = Mapping[str, pathlib.Path]
"""Folders of "tokenizer", "codec" and "encoder", those that there are."""


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of `workdir`. Folders made for it go again if nothing has come to lie in them.

    Raises UserError where another process has it.
    """
    missing = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with lock(workdir):
            yield
    finally:
        if missing and [entry.name for entry in workdir.iterdir()] == ["lock"]:
            (workdir / "lock").unlink()
            for folder in missing:
                folder.rmdir()


def parts_of_run(source: pathlib.Path, encoder: str | None, workdir: pathlib.Path) -> Parts:
    """What a run reads sounds and texts with: the tokenizer and codec of its data or its model, and its encoder.

    The encoder may have moved since the run began; its copy in `workdir` then stands for it.
    """
    parts = {name: source / name for name in ("tokenizer", "codec")}
    if encoder is not None:
        given = pathlib.Path(encoder)
        parts["encoder"] = parts_of(given).get("encoder", given)
        if not parts["encoder"].is_dir() and (workdir / "encoder").is_dir():
            parts["encoder"] = workdir / "encoder"
    for name, source in parts.items():
        if not source.is_dir():
            raise UserError(f"There is no folder {source} to take the {name} from.")
    return parts


def write_workdir(
    config: Mapping[str, Any], parts: Parts, workdir: pathlib.Path, *, sources: Sequence[DatasetInfo], resumed: bool
) -> None:
    """What must lie beside the checkpoints to use them. Called when every check has passed.

    config: of the run, as `to_mapping` makes it.
    sources: what the run learns from; none where it learns from its own answers.
    resumed: the parts belong to checkpoints that are there, and were compared; otherwise they are replaced.
    """
    for name, source in parts.items():
        target = workdir / name
        if source.resolve() == target.resolve() or (resumed and target.is_dir()):
            continue
        beside = workdir / f".{name}.partial"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source, beside)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(beside, target)
    begun_with = config["train"]["init_from"]
    notes = kept_notes(workdir) if resumed else None if begun_with is None else notes_of(begun_with)
    write_notes(workdir, (notes or {}) | {"speech": _has_seen_speech(notes, sources)})
    _keep_settings(workdir / "encoder")
    (workdir / "checkpoints").mkdir(exist_ok=True)
    beside = workdir / ".config.json.partial"
    beside.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(beside, workdir / "config.json")


def _has_seen_speech(notes: Mapping[str, Any] | None, sources: Sequence[DatasetInfo]) -> bool | None:
    """Whether the assistant speaks in `sources`, or spoke in what came before (its `notes`); None: not known."""
    known = [] if notes is None else [notes.get("speech")]
    known += [None if info.speech_hours is None else info.speech_hours > 0 for info in sources]
    return True if True in known else None if None in known else False


def _keep_settings(encoder: pathlib.Path) -> None:
    """Of a run of version 0.1 they stood in its config.json, which is written anew."""
    if encoder.is_dir() and not (encoder / "settings.json").exists() and (settings := read_settings(encoder)):
        (encoder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
