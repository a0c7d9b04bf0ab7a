"""Pairs to prepare: texts, sounds, plans with sounds, and answers about a sound that is heard."""

import json
from pathlib import Path

import numpy as np
import soundfile

from ualm_jax.data.raw.formats import JsonConversations


def write_pairs(folder: Path, count: int) -> Path:
    """A manifest of `count` pairs of all kinds, and the sounds that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        samples = 16 * int(rng.integers(5, 30))
        soundfile.write(folder / f"{number}.wav", rng.uniform(-0.5, 0.5, samples), 16000, subtype="PCM_16")
    soundfile.write(folder / "heard.wav", rng.uniform(-0.5, 0.5, 16000), 16000, subtype="PCM_16")
    records = [_record(number) | {"id": f"pair-{number}"} for number in range(count)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _record(number: int) -> dict:
    first, second = f"{number % 8}.wav", f"{(number + 3) % 8}.wav"
    kind = number % 3
    if kind == 0:
        return {"prompt": f"What is {number}?", "chosen": "x" * (1 + number % 5), "rejected": f"no {number}"}
    if kind == 1:
        prompt = [["user", "text", f"Make {number}."], ["assistant", "text", "What?"], ["user", "text", "That."]]
        return {
            "prompt": prompt,
            "chosen": [["assistant", "audio", first]],
            "rejected": [["assistant", "audio", second]],
        }
    planned = [["assistant", "text", f"plan {number}"], ["assistant", "audio", first]]
    return {"prompt": f"Make {number}.", "chosen": planned, "rejected": [["assistant", "audio", second]]}


def heard_pair() -> dict:
    """The audio input of this one stands in the prompt."""
    prompt = [["user", "audio", "heard.wav"], ["user", "text", "What is it?"]]
    return {"id": "heard", "prompt": prompt, "chosen": "A hiss.", "rejected": "A frog."}


def pair_source(path: Path) -> JsonConversations:
    return JsonConversations(path, "pair")
