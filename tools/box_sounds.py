"""Sounds of SoundScript that the model in the box learns from, and that no dataset of one task holds."""

import itertools
import json
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np

from ualm_jax.audio.write import write_sound
from ualm_jax.codecs.base import Codec
from ualm_jax.data.raw.soundscript import Event, Scene, SoundScript2, render
from ualm_jax.data.raw.soundscript.conversations import ScriptConversations

CONVERSATIONS = "conversations.jsonl"
SEED = 401  # of scenes that no other dataset of the box holds
_BATCH = 64


def hard_sounds(folder: pathlib.Path, count: int) -> None:
    """Sounds that are rich in what a codec finds hardest and few scenes have: of ten three are of one kind and pitch
    alone, mostly buzzes, and one is a scene in which something sounds over a tone. The others are as they come."""
    if folder.exists():
        return
    beside, index = folder.with_name(f"{folder.name}.new"), -1
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    source, draws = SoundScript2(1_000 * count, seed=77), np.random.default_rng(77)
    for place in range(count):
        if place % 10 < 3:
            wav = render(_alone(draws), source.sample_rate)
        else:
            index += 1
            while place % 10 == 3 and not _at_once(source.script(index).scene):
                index += 1
            wav = source[index].wav
        write_sound(beside / f"{place:05d}.wav", wav, source.sample_rate)
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


def _alone(draws: np.random.Generator) -> Scene:
    """As many as begin within 0.7 s, of one kind, one note from F#3 to B5, one length and level."""
    kind = str(draws.choice(("buzz", "buzz", "buzz", "tone", "pluck")))
    pitch = 440 * 2 ** (int(draws.integers(-15, 15)) / 12)
    seconds, level = (float(draws.choice(choices)) for choices in ((0.15, 0.35, 0.8), (-32, -26, -20)))
    if kind == "pluck":
        seconds = 0.6  # always
    events, start = [], float(draws.uniform(0.1, 0.2))
    while start < 0.7:
        events.append(Event(kind, start, seconds, level, pitch))
        start += seconds + float(draws.choice((0.1, 0.15, 0.25)))
    return Scene(events[-1].end + 0.1, tuple(events), noise_seed=0)


def _at_once(scene: Scene) -> bool:
    return any(after.start < before.end for before, after in itertools.pairwise(scene.events))
