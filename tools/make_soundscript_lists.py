#!/usr/bin/env python3
"""Make the fixed lists of the SoundScript benchmark anew: python tools/make_soundscript_lists.py"""

import json
import pathlib

import ualm_jax.evaluate.soundscript
from ualm_jax.data.raw.soundscript import SoundScript2
from ualm_jax.evaluate.soundscript.benchmark import LISTS

COUNT = 256  # items of a list
TRAINED = 100_000  # sounds of seed 0 whose captions count as seen


def main() -> None:
    trained = SoundScript2(TRAINED, 0)
    seen = {trained.script(index).caption for index in range(TRAINED)}
    print(f"{len(seen)} different captions among {TRAINED} sounds of seed 0")
    lists = {}
    for name, (split, seed) in LISTS.items():
        source, taken, entries = SoundScript2(TRAINED, seed, split=split), set(), []
        for index in range(TRAINED):
            caption = source.script(index).caption
            if caption not in taken and (caption in seen) == (name == "seen"):
                taken.add(caption)
                entries.append({"id": f"{name}-{len(entries):03}", "index": index, "caption": caption})
            if len(entries) == COUNT:
                break
        lists[name] = entries
    path = pathlib.Path(ualm_jax.evaluate.soundscript.__file__).parent / "lists.json"
    text = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]" for name, entries in lists.items()
    )
    path.write_text(f"{{\n{text}\n}}\n")


if __name__ == "__main__":
    main()
