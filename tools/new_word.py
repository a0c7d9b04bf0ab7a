"""Sounds for a word that the model in the box has never seen, with captions: what the demo teaches it.

A doorbell is a tone at E5, and right after it one at C5.
"""

import itertools
import json
import pathlib

import soundfile

from ualm_jax.data.raw.soundscript import Event, Scene
from ualm_jax.data.raw.soundscript.plan import MIDI, STRUCK_SECONDS, WITHIN
from ualm_jax.data.raw.soundscript.render import render

RATE = 16000
BELL = ("E5", "C5")
BELL_SECONDS, BELL_GAP, GAP = 0.35, 0.1, 0.25
OTHERS = ("click", "kick", "snare", "clap")
NUMBERS = ("a {}", "two {}s", "three {}s")


def write_doorbells(folder: pathlib.Path, count: int) -> pathlib.Path:
    """`count` sounds in `folder`, each with a doorbell alone, before or after others; returns their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [(None, 0, True), *itertools.product(OTHERS, (1, 2, 3), (True, False))]
    lines = []
    for index in range(count):
        kind, number, first = kinds[index % len(kinds)]
        parts = ["a doorbell"] + ([NUMBERS[number - 1].format(kind)] if kind else [])
        scene = _scene(kind, number, first, index)
        name = f"{index:03d}.wav"
        soundfile.write(folder / name, render(scene, RATE), RATE)
        lines.append({"audio": name, "caption": ", then ".join(parts if first else parts[::-1])})
    manifest = folder / "captions.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def _scene(kind: str | None, number: int, bell_first: bool, seed: int) -> Scene:
    at, events = 0.1, []

    def bell() -> None:
        nonlocal at
        for note in BELL:
            hertz = 440.0 * 2 ** ((MIDI[note] - 69) / 12)
            events.append(Event("tone", at, BELL_SECONDS, -26.0, pitch_hz=hertz))
            at += BELL_SECONDS + BELL_GAP
        at += GAP - BELL_GAP

    def others() -> None:
        nonlocal at
        for _ in range(number):
            events.append(Event(kind, at, STRUCK_SECONDS[kind], -26.0))
            at += STRUCK_SECONDS[kind] + WITHIN
        at += GAP - WITHIN

    for part in (bell, others) if bell_first else (others, bell):
        part()
    return Scene(at, tuple(events), seed)
