"""Sounds of SoundScript that the model in the box learns from, and that no dataset of one task holds."""

import pathlib
import shutil

from ualm_jax.audio.write import write_sound
from ualm_jax.data.raw.soundscript import SoundScript2


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
