"""A session as a folder: session.json, and a sound file for every sound in it.

What goes into the model is in session.json (texts, ids, codes) and in the sounds that users gave, as float32. People
may edit it; whatever does not fit is named in one sentence when it is opened.
"""

import errno
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.audio.write import write_sound
from ualm_jax.errors import UserError
from ualm_jax.generate.parts import Parts
from ualm_jax.generate.said import Said, text_of
from ualm_jax.outputs import check_new_folder
from ualm_jax.tokens.types import Message, Modality, Role

log = logging.getLogger(__name__)

FILE = "session.json"
_FORMAT = 1
_LARGEST = 64 << 20  # bytes of session.json
_OWN = re.compile(r"\d{3,}\.wav")  # sounds of a session
_FIELDS = {
    "text": {"role", "text", "ids"},
    "sound": {"role", "sound"},
    "codes": {"role", "codes", "kind", "to_listen"},
}


def save(parts: Parts, said: Sequence[Said], seed: int, folder: str | os.PathLike) -> None:
    """See `Session.save`. What else lies in the folder of a session stays there."""
    folder = Path(folder).absolute()
    if not (folder / FILE).is_file():
        check_new_folder(folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        _write(parts, said, seed, beside)
        if not folder.exists():
            beside.rename(folder)
            return
        _take_along(folder, beside)
        replaced = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        folder.rename(replaced)
        try:
            beside.rename(folder)
        except OSError:
            replaced.rename(folder)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        reason = "there is no room left" if error.errno == errno.ENOSPC else error.strerror or error
        raise UserError(f"{folder}: the session can not be saved ({reason}).") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_session(parts: Parts, folder: str | os.PathLike) -> tuple[list[Said], int]:
    """The conversation that was saved in `folder`, and the seed of its replies.

    Raises UserError where there is none, or where a field of it does not fit this model.
    """
    file = Path(folder) / FILE
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError(f"{file}: is larger than a session can be; it was not written by a session.")
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: can not be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(f"{file}: expected a session of format {_FORMAT}; it was written by something else.")
    vocabulary = _vocabulary(parts)
    if content.get("vocabulary") != vocabulary:
        raise UserError(
            f"{file}: was made with the vocabulary {content.get('vocabulary')}, the model has {vocabulary}."
        )
    saved = content.get("model")
    weights = saved.get("weights") if isinstance(saved, dict) else None
    if weights and weights != dict(parts.made_by.weights):
        log.warning("%s: was saved with other weights than these; the model may reply otherwise", file)
    if unknown := content.keys() - {"format", "model", "vocabulary", "seed", "messages"}:
        raise UserError(f"{file}: a session has no field {min(unknown)!r}; remove it.")
    seed, entries = content.get("seed"), content.get("messages")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UserError(f"{file}: seed must be a whole number from 0 to 2**32 - 1, found {seed!r}.")
    if not isinstance(entries, list):
        raise UserError(f"{file}: messages must be a list, found {type(entries).__name__}.")
    return [_read(parts, file, index, entry) for index, entry in enumerate(entries)], seed


def _take_along(folder: Path, beside: Path) -> None:
    """What is no part of the session in `folder`, such as sounds that `ualm chat` left there, lies in `beside`, too."""

    def own(path: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(path) == folder and (name == FILE or _OWN.fullmatch(name))]

    shutil.copytree(folder, beside, symlinks=True, ignore=own, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _write(parts: Parts, said: Sequence[Said], seed: int, folder: Path) -> None:
    entries = [_entry(parts, each, f"{index:03}", folder) for index, each in enumerate(said)]
    head = {
        "format": _FORMAT,
        "model": {**parts.made_by.to_mapping(), "weights": dict(parts.made_by.weights)},
        "vocabulary": _vocabulary(parts),
        "seed": seed,
    }
    # A line for each message: codes would otherwise take a line for each number.
    lines = ",\n".join("    " + json.dumps(entry, ensure_ascii=False) for entry in entries)
    text = json.dumps(head, indent=2)[:-2] + f',\n  "messages": [\n{lines}\n  ]\n}}\n'
    (folder / FILE).write_text(text, encoding="utf-8")


def _entry(parts: Parts, said: Said, name: str, folder: Path) -> dict[str, Any]:
    message = said.message
    entry: dict[str, Any] = {"role": message.role.value}
    if message.modality == Modality.TEXT:
        entry["text"] = text_of(parts, message)
        if message.role == Role.ASSISTANT:  # which may have spelt its words otherwise than the tokenizer does
            entry["ids"] = message.content.tolist()
    elif message.modality == Modality.CLIP:
        entry["sound"] = f"{name}.wav"
        _write_exactly(folder / entry["sound"], said.samples)
    else:
        codec = parts.part("codec")
        entry |= {"kind": message.audio_tag, "to_listen": f"{name}.wav", "codes": message.content.tolist()}
        write_sound(folder / entry["to_listen"], codec.decode(message.content), codec.sample_rate)
    return entry


def _write_exactly(path: Path, samples: np.ndarray) -> None:
    import soundfile

    content = io.BytesIO()
    soundfile.write(content, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    path.write_bytes(content.getbuffer())  # libsndfile does not say that a disk is full


def _read(parts: Parts, file: Path, index: int, entry: Any) -> Said:
    def wrong(found: str) -> UserError:
        return UserError(f"{file}: message {index} {found}.")

    if not isinstance(entry, dict):
        raise wrong(f"must be a group of fields, found {type(entry).__name__}")
    try:
        role = Role(entry.get("role"))
    except ValueError:
        raise wrong(f"must have the role system, user or assistant, found {entry.get('role')!r}") from None
    kinds = [name for name in ("text", "sound", "codes") if name in entry]
    if len(kinds) != 1:
        raise wrong(f"must hold one of text, sound and codes, found {' and '.join(kinds) or 'none'}")
    if unknown := entry.keys() - _FIELDS[kinds[0]]:
        raise wrong(f"has a field {min(unknown)!r}, which means nothing beside {kinds[0]}; remove it")
    value = entry[kinds[0]]
    if kinds == ["text"]:
        return Said(_read_text(parts, role, value, entry.get("ids"), wrong))
    if kinds == ["codes"]:
        if role != Role.ASSISTANT or entry.get("kind") not in ("audio", "speech"):
            raise wrong("holds codes, so it must be the assistant's, of the kind audio or speech")
        return Said(Message(role, Modality.AUDIO, _read_codes(parts, value, wrong), entry["kind"]))
    # A path that somebody has written is not to lead out of the folder.
    if role != Role.USER or not isinstance(value, str) or value in ("", ".", "..") or set("/\\\0") & set(value):
        raise wrong(f"must name a sound file of a user in the same folder, found {value!r}")
    if (file.parent / value).is_symlink():
        raise wrong(f"names {value}, which is a link; put the file itself there")
    samples = read_audio(file.parent / value, sample_rate=SAMPLE_RATE)
    message, heard = parts.sound_message(samples)
    return Said(message, samples, heard)


def _read_text(parts: Parts, role: Role, text: Any, ids: Any, wrong) -> Message:
    if not isinstance(text, str):
        raise wrong(f"must have a text, found {type(text).__name__}")
    if role != Role.ASSISTANT and not text.strip():
        raise wrong("has an empty text")
    if ids is None:
        return parts.text_message(text, role)
    size = parts.part("model").architecture.vocabulary.text_size
    if not isinstance(ids, list) or not all(type(value) is int and 0 <= value < size for value in ids):
        raise wrong(f"must have ids from 0 to {size - 1}")
    message = Message(role, Modality.TEXT, np.array(ids, np.int32))
    if text_of(parts, message) != text:
        raise wrong("has a text that its ids do not spell; remove the ids where the text was edited")
    return message


def _read_codes(parts: Parts, codes: Any, wrong) -> np.ndarray:
    vocabulary = parts.part("model").architecture.vocabulary
    wanted = f"frames of {vocabulary.num_codebooks} codes from 0 to {vocabulary.codebook_size - 1}"
    if not isinstance(codes, list) or not codes or not all(isinstance(frame, list) for frame in codes):
        raise wrong(f"must have {wanted}, found {type(codes).__name__}")
    for place, frame in enumerate(codes):
        whole = all(type(code) is int and 0 <= code < vocabulary.codebook_size for code in frame)
        if not whole or len(frame) != vocabulary.num_codebooks:
            raise wrong(f"must have {wanted}, but frame {place} is not")
    return np.array(codes, np.int32)


def _vocabulary(parts: Parts) -> dict[str, int]:
    vocabulary = parts.part("model").architecture.vocabulary
    return {name: getattr(vocabulary, name) for name in ("text_size", "codebook_size", "num_codebooks")}
