"""The model in the box, made again: what its codec's decoder hears."""

from helpers.tools import tool

from ualm_jax.audio.io import read_audio
from ualm_jax.evaluate.soundscript import hear


def test_three_scenes_in_ten_hold_high_buzzes_alone_and_three_a_buzz(tmp_path):
    box = tool("box_sounds")
    box.rich_in_buzzes(tmp_path / "buzzes", 10)
    paths = sorted((tmp_path / "buzzes").iterdir())
    assert [path.name for path in paths] == [f"{number:05d}.wav" for number in range(10)]
    heard = [hear(read_audio(path, sample_rate=16000)) for path in paths]
    buzzes = [[event.pitch_hz for event in events if event.kind == "buzz"] for events in heard]
    assert all(found and max(found) > 370 for found in buzzes[:3]) and all(buzzes[3:6])
    assert not any(event.kind in ("tone", "sweep", "pluck") for events in heard[:3] for event in events)
    before = [path.stat().st_mtime_ns for path in paths]
    box.rich_in_buzzes(tmp_path / "buzzes", 10)
    assert [path.stat().st_mtime_ns for path in paths] == before
