"""The folder of a run: one process at a time writes it, and nothing is written before every check has passed."""

import contextlib
import json
import logging
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ualm_jax.bucket_lock import bucket_lock
from ualm_jax.buckets import Folder, here, in_bucket, open_folder, replace_folder, write
from ualm_jax.data.dataset.folder import DatasetInfo
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder import read_settings
from ualm_jax.outputs import lock
from ualm_jax.parallel.processes import from_all
from ualm_jax.weights.fingerprints import parts_of
from ualm_jax.weights.hf_folder import read_json
from ualm_jax.weights.opener import notes_of
from ualm_jax.weights.run_folder import kept_notes, parts_at, remove_uncommitted, write_notes
from ualm_jax.weights.shipped import located

log = logging.getLogger(__name__)

Parts = Mapping[str, pathlib.Path]
"""Folders of "tokenizer", "codec" and "encoder", those that there are."""

_SEEN_WITHIN = 60.0  # seconds, for which file systems of a network may keep what they have read of a folder


@contextlib.contextmanager
def claim(workdir: Folder) -> Iterator[None]:
    """Keeps other runs out of `workdir`. Folders made for it go again if nothing has come to lie in them.

    Raises UserError where another process has it.
    """
    if in_bucket(workdir):
        with bucket_lock(workdir):
            yield
        return
    missing = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with lock(workdir):
            yield
    finally:
        if missing and [entry.name for entry in workdir.iterdir()] == ["lock"]:
            (workdir / "lock").unlink()
            with contextlib.suppress(OSError):  # something has been put there, by another run that began meanwhile
                for folder in missing:
                    folder.rmdir()


def parts_of_run(source: Folder, encoder: str | None, workdir: Folder) -> Parts:
    """What a run reads sounds and texts with: the tokenizer and codec of its data or its model, and its encoder.

    The encoder may have moved since the run began; its copy in `workdir` then stands for it.
    """
    there = parts_at(source, None)
    for name in ("tokenizer", "codec"):
        if name not in there:
            raise UserError(f"There is no folder {source / name} to take the {name} from.")
    parts = {name: there[name] for name in ("tokenizer", "codec")}
    if encoder is not None:
        found = encoder_at(encoder) or parts_at(workdir, None).get("encoder")
        if found is None:
            raise UserError(f"There is no folder {encoder} to take the encoder from.")
        parts["encoder"] = found
    return parts


def encoder_at(path: str) -> pathlib.Path | None:
    """The encoder that `train.encoder` names: in the folder of an encoder, of a run or of a converted checkpoint."""
    given = open_folder(path)
    return (parts_of(given).get("encoder") or here(given)) if given.is_dir() else None


def check_begun_with(given: str | None, workdir: Folder) -> None:
    """What the run in `workdir` began with may be gone since. Raises UserError where `given`, a `train.init_from` that
    the run did not have, is not there."""
    if given is None or located(given).is_dir():
        return
    if given != _init_from(workdir):
        raise UserError(
            f"config.train.init_from = {given}: there is no such folder, and this run did not begin with it; leave the "
            "field as it was."
        )


def as_begun(config: Mapping[str, Any], workdir: Folder) -> dict[str, Any]:
    """The configuration of a run that goes on, with the `train.init_from` that the run in `workdir` began with: another
    one that is given now is not used, and must not be told of as if it had been. Without its config.json, as given."""
    if not (workdir / "config.json").exists():
        return {**config}
    given, begun_with = config["train"]["init_from"], _init_from(workdir)
    if given not in (None, begun_with):
        log.warning(
            "config.train.init_from = %s is not used: the run goes on from its checkpoint, and began with %s",
            given,
            begun_with or "random parameters",
        )
    return {**config, "train": {**config["train"], "init_from": begun_with}}


def _init_from(workdir: Folder) -> str | None:
    return read_json(workdir / "config.json").get("train", {}).get("init_from")


def write_workdir(
    config: Mapping[str, Any], parts: Parts, workdir: Folder, *, sources: Sequence[DatasetInfo], resumed: bool
) -> None:
    """What must lie beside the checkpoints to use them. Called when every check has passed.

    config: of the run, as `to_mapping` makes it.
    sources: what the run learns from; none where it learns from its own answers.
    resumed: the parts belong to checkpoints that are there, and were compared; otherwise they are replaced.
    """
    for name, source in parts.items():
        target = workdir / name
        itself = not in_bucket(target) and source.resolve() == target.resolve()
        if not itself and not (resumed and target.is_dir()):
            replace_folder(target, source)
    if resumed:
        config = as_begun(config, workdir)
    begun_with = config["train"]["init_from"]
    notes = kept_notes(workdir) if resumed else None if begun_with is None else notes_of(begun_with)
    write_notes(workdir, (notes or {}) | {"speech": _has_seen_speech(notes, sources)})
    if not in_bucket(workdir):
        _keep_settings(workdir / "encoder")
    (workdir / "checkpoints").mkdir(exist_ok=True)
    remove_uncommitted(workdir)
    write(workdir / "config.json", json.dumps(config, indent=2) + "\n")


def _has_seen_speech(notes: Mapping[str, Any] | None, sources: Sequence[DatasetInfo]) -> bool | None:
    """Whether the assistant speaks in `sources`, or spoke in what came before (its `notes`); None: not known."""
    known = [] if notes is None else [notes.get("speech")]
    known += [None if info.speech_hours is None else info.speech_hours > 0 for info in sources]
    return True if True in known else None if None in known else False


def _keep_settings(encoder: pathlib.Path) -> None:
    """Of a run of version 0.1 they stood in its config.json, which is written anew."""
    if encoder.is_dir() and not (encoder / "settings.json").exists() and (settings := read_settings(encoder)):
        (encoder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")


def check_shared(workdir: Folder) -> None:
    """Raises UserError, in every process, where one of them does not see what the first has written in `workdir`."""
    if jax.process_count() == 1:
        return
    path, deadline = workdir / "config.json", time.monotonic() + _SEEN_WITHIN
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    seen = np.ravel(from_all("see the work folder", np.array(path.is_file())))
    if not seen.all():
        blind = ", ".join(map(str, np.flatnonzero(~seen)))
        raise UserError(
            f"{workdir} is another folder for process {blind} than for process 0; give one that all processes share, "
            "or gs://BUCKET/PATH."
        )
