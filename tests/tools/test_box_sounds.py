"""The model in the box, made again: what its codec's decoder learns from, and its encoder."""

import itertools

import numpy as np
from helpers.tools import tool

import ualm_jax
from ualm_jax.audio.io import read_audio
from ualm_jax.cli.main import run
from ualm_jax.data.dataset.audio_input import from_flac
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.raw.soundscript import SoundScript2, render
from ualm_jax.data.raw.soundscript.conversations import ScriptConversations
from ualm_jax.evaluate.soundscript import hear
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Modality, Role
from ualm_jax.weights.shipped import located


def test_three_sounds_in_ten_are_of_one_kind_alone_and_one_holds_something_over_a_tone(tmp_path):
    box = tool("box_sounds")
    box.hard_sounds(tmp_path / "hard", 10)
    paths = sorted((tmp_path / "hard").iterdir())
    assert [path.name for path in paths] == [f"{number:05d}.wav" for number in range(10)]
    heard = [hear(read_audio(path, sample_rate=16000)) for path in paths]
    for events in heard[:3]:
        assert len({(event.kind, round(event.pitch_hz)) for event in events}) == 1
        assert events[0].kind in ("buzz", "tone", "pluck") and 180 < events[0].pitch_hz < 1000
    assert any(after.start < before.end for before, after in itertools.pairwise(heard[3]))
    before = [path.stat().st_mtime_ns for path in paths]
    box.hard_sounds(tmp_path / "hard", 10)
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_what_is_said_of_sounds_that_went_through_the_codec_is_what_is_said_of_the_originals(tmp_path):
    box, shipped = tool("box_sounds"), located("soundscript")
    counts = {"describe": 3, "question": 2}
    box.through_codec(tmp_path / "heard", ualm_jax.load(shipped / "codec").codec, counts)
    source = f"--source understanding --input {tmp_path / 'heard' / box.CONVERSATIONS} --root {tmp_path / 'heard'}"
    parts = f"--codec {shipped / 'codec'} --tokenizer {shipped / 'tokenizer'}"
    assert run(f"data prepare {source} {parts} --out {tmp_path / 'data'}".split()) == 0
    records = {record.id: record for record in open_records(open_dataset(tmp_path / "data"))}
    tokenizer = load_tokenizer(shipped / "tokenizer")
    for task, count in counts.items():
        conversations = ScriptConversations(SoundScript2(count, box.SEED, 16000), task)
        for index in range(count):
            (item, scene), record = conversations.item(index), records.pop(f"{task}-{index:05d}.wav")
            user, sound, answer = record.messages
            assert (user.role, sound.role, answer.role) == (Role.USER, Role.USER, Role.ASSISTANT)
            assert sound.modality == Modality.CLIP
            assert [user.content.tolist(), answer.content.tolist()] == list(
                map(tokenizer.encode, (item.user, item.answer))
            )
            wav, original = from_flac(record.clips[0]), render(scene, 16000)
            assert len(wav) == len(original) // 320 * 320 and np.abs(wav - original[: len(wav)]).max() > 1e-3
            assert [event.label for event in hear(wav)] == [event.label for event in hear(original)]
    assert not records
