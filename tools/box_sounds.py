"""Sounds of SoundScript that the model in the box learns from, and that no dataset of one task holds."""

import json
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np

from ualm_jax.audio.write import write_sound
from ualm_jax.codecs.base import Codec
from ualm_jax.data.raw.soundscript import SoundScript2, render
from ualm_jax.data.raw.soundscript.conversations import ScriptConversations

CONVERSATIONS = "conversations.jsonl"
SEED = 401  # of scenes that no other dataset of the box holds
_BATCH = 64


def rich_in_buzzes(folder: pathlib.Path, count: int) -> None:
    """Scenes of which three in ten hold a buzz above 380 Hz and nothing else of a pitch, and three a buzz of any: the
    partials that a codec finds hardest, and that few scenes have."""
    if folder.exists():
        return
    beside, index = folder.with_name("buzzes.new"), -1
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    source = SoundScript2(1_000 * count, seed=77)
    for place in range(count):
        found = False
        while not found:
            index += 1
            events = source.script(index).scene.events
            buzzes = [event.pitch_hz for event in events if event.kind == "buzz"]
            others = any(event.kind in ("tone", "sweep", "pluck") for event in events)
            found = (buzzes and max(buzzes) > 380 and not others, buzzes, True)[min(place % 10 // 3, 2)]
        write_sound(beside / f"{place:05d}.wav", source[index].wav, source.sample_rate)
    beside.rename(folder)


def through_codec(folder: pathlib.Path, codec: Codec, counts: Mapping[str, int]) -> None:
    """Sounds as the codec leaves them, which is how a model hears what it has made, and what is said of them: WAVs and
    `CONVERSATIONS` in the raw format "understanding". counts: conversations of each task."""
    if folder.exists():
        return
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    with open(beside / CONVERSATIONS, "w") as file:
        for task, count in counts.items():
            conversations = ScriptConversations(SoundScript2(count, SEED, codec.sample_rate), task)
            for first in range(0, count, _BATCH):
                indices = range(first, min(first + _BATCH, count))
                items, scenes = zip(*map(conversations.item, indices), strict=True)
                wavs = [render(scene, codec.sample_rate) for scene in scenes]
                codes = codec.encode_batch([wav[: len(wav) // codec.hop * codec.hop] for wav in wavs])
                for index, item, wav in zip(indices, items, codec.decode_batch(codes), strict=True):
                    name = f"{task}-{index:05d}.wav"
                    write_sound(beside / name, np.asarray(wav, np.float32), codec.sample_rate)
                    said = (("human", f"{item.user}<sound>"), ("gpt", item.answer))
                    turns = [{"from": speaker, "value": text} for speaker, text in said]
                    file.write(json.dumps({"id": name, "sound": name, "conversations": turns}) + "\n")
    beside.rename(folder)
