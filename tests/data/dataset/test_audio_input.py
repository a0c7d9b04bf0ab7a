"""Clips that are heard: stored without loss, turned into the encoder's windows, bounded in every row."""

import dataclasses
import itertools

import numpy as np
import pytest
from helpers.fake_sounds import FakeCodec, prepare_fake
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.audio.mel import MelFrontEnd, frames_out
from ualm_jax.data.dataset.audio_input import SHORTEST, clip_size, from_flac, to_flac
from ualm_jax.data.dataset.folder import open_records
from ualm_jax.data.dataset.lengths import Lengths
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.data.raw.conversation import CaptionedConversations, RawConversation, RawMessage, Waveform, sound_message
from ualm_jax.data.raw.soundscript import SoundScript
from ualm_jax.errors import UserError
from ualm_jax.tokens.types import Modality, Role

OMNI = MelFrontEnd(400, windowed=False, normalize=True, max_seconds=4.0)
AF_WHISPER = MelFrontEnd(200, windowed=True, normalize=True, max_seconds=600.0)


class Listening:
    """Conversations that hear 0 to 3 clips of 0.1 to 3 s and make a sound now and then."""

    name = "listening"
    left_out = ()

    def __len__(self):
        return 40

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        messages = [RawMessage(Role.USER, Modality.TEXT, f"question {index}")]
        for _ in range(index % 4):
            wav = rng.uniform(-0.5, 0.5, int(rng.integers(1600, 48000))).astype(np.float32)
            messages.append(sound_message(Role.USER, Waveform(wav, 16000)))
        messages.append(RawMessage(Role.ASSISTANT, Modality.TEXT, "yes"))
        if index % 5 == 0:
            wav = rng.uniform(-0.5, 0.5, 20 * FakeCodec.hop).astype(np.float32)
            messages.append(sound_message(Role.ASSISTANT, Waveform(wav, 16000)))
        return RawConversation(f"c-{index}", tuple(messages))

    def fingerprint(self):
        return {"kind": self.name}


@pytest.fixture(scope="module")
def dataset(parts, tmp_path_factory):
    return prepare_fake(Listening(), parts, tmp_path_factory.mktemp("listening") / "heard", shard_size=15)


@pytest.fixture(params=[OMNI, AF_WHISPER], ids=["omni", "af-whisper"])
def front_end(request) -> MelFrontEnd:
    return request.param


@pytest.fixture
def config(dataset) -> DataConfig:
    return DataConfig(
        directory=str(dataset.directory),
        seq_len=400,
        batch_size=2,
        seed=1,
        cfg_dropout=0.0,
        packing_bins=4,
        audio_slots=8,
    )


def batches(config, dataset, front_end, count):
    loader = make_loader(config, dataset.vocabulary, front_end)
    try:
        return list(itertools.islice(loader, count))
    finally:
        loader.close()


@pytest.mark.parametrize("front_end", [OMNI, AF_WHISPER])
@settings(deadline=None)
@given(samples=st.integers(SHORTEST, 4 * 16000))
def test_sizes_in_bulk_are_those_of_the_front_end(front_end, samples):
    frames = front_end.window_frames(samples)
    assert clip_size(front_end, samples) == (front_end.clip_length(samples), len(frames))
    assert clip_size(front_end, samples).length == sum(frames_out(count) for count in frames)
    several = clip_size(front_end, np.array([samples, 16000]))
    assert several.length[0] == front_end.clip_length(samples) and several.windows[0] == len(frames)


def test_stored_clips_lose_less_than_a_step_of_sixteen_bits():
    wav = np.random.default_rng(0).uniform(-1, 1, 20000).astype(np.float32)
    back = from_flac(to_flac(wav))
    assert back.dtype == np.float32 and np.abs(back - wav).max() < 1.01 / 32768
    assert to_flac(wav) == to_flac(wav)
    np.testing.assert_array_equal(from_flac(to_flac(back)), back)


def test_known_lengths_are_those_of_the_rows_made(dataset, config, front_end):
    lengths = Lengths(dataset.directory, front_end)
    seen = {}
    for batch, records in batches(config, dataset, front_end, 12):
        for row in range(len(records)):
            for segment in range(1, batch.segment_ids[row].max() + 1):  # one record may stand in a row twice
                (index,) = set(records[row][batch.segment_ids[row] == segment].tolist())
                seen[index] = int((batch.segment_ids[row] == segment).sum())
    assert len(seen) == dataset.records
    assert {index: lengths[index].length for index in seen} == seen
    assert lengths.total() == sum(seen.values())


def test_every_clip_is_heard_where_it_stands(dataset, config, front_end):
    records, frames = open_records(dataset), 400 if front_end is OMNI else 200
    width = frames // 4
    heard = 0
    for batch, numbers in batches(config, dataset, front_end, 8):
        assert batch.mels.shape == (2, 8, 128, frames) and batch.mels.dtype == np.float32
        assert batch.mel_frames.shape == (2, 8) and batch.feature_index.shape == (2, 400)
        for row in range(2):
            window = 0
            for segment in range(1, batch.segment_ids[row].max() + 1):
                here = batch.segment_ids[row] == segment
                record = records[int(numbers[row][here][0])]
                index = batch.feature_index[row][here]
                rows = iter(index[index >= 0])
                for clip in record.clips:
                    for mel in front_end.features(from_flac(clip)):
                        shown = batch.mels[row, window][:, : mel.mel.shape[1]]
                        np.testing.assert_array_equal(shown, mel.mel)
                        assert batch.mel_frames[row, window] == mel.frames
                        assert not batch.mels[row, window][:, mel.mel.shape[1] :].any()
                        for frame in range(frames_out(mel.frames)):
                            assert next(rows) == window * width + frame
                        window, heard = window + 1, heard + 1
                assert next(rows, None) is None
                assert (batch.tokens[row][here][index >= 0] == 0).all()
            assert (batch.mel_frames[row, window:] == 0).all() and not batch.mels[row, window:].any()
    assert heard > 40


def test_a_dropped_condition_is_not_heard(dataset, config, front_end):
    config = dataclasses.replace(config, cfg_dropout=1.0)
    records = open_records(dataset)
    for batch, numbers in batches(config, dataset, front_end, 10):
        for row in range(2):
            heard = set(numbers[row][batch.feature_index[row] >= 0].tolist())
            makes = [any(m.modality == Modality.AUDIO for m in records[index].messages) for index in heard]
            assert not any(makes)


def test_what_is_heard_survives_a_resumption_and_does_not_depend_on_workers(dataset, config, front_end):
    whole = batches(config, dataset, front_end, 6)
    num_workers = 2 if front_end is OMNI else 0
    loader = make_loader(dataclasses.replace(config, num_workers=num_workers), dataset.vocabulary, front_end)
    state = [next(loader) for _ in range(3)] and loader.get_state()
    loader.close()
    loader = make_loader(config, dataset.vocabulary, front_end)
    loader.set_state(state)
    for (batch, records), (other, others) in zip(itertools.islice(loader, 3), whole[3:], strict=True):
        np.testing.assert_array_equal(records, others)
        for left, right in zip(batch, other, strict=True):
            np.testing.assert_array_equal(left, right)
    loader.close()


def test_what_can_not_be_heard_is_refused_at_the_start(dataset, config):
    short = dataclasses.replace(OMNI, max_seconds=1.0)
    cases = [
        ({}, None, "set data.audio_slots"),
        ({"seq_len": 60}, AF_WHISPER, "conversation [0-9]+ has .* positions, data.seq_len is 60"),
        ({"audio_slots": 2}, AF_WHISPER, "mel windows, data.audio_slots is 2"),
        ({}, short, "raise max_seconds in its settings.json"),
    ]
    for change, front_end, message in cases:
        with pytest.raises(UserError, match=message):
            make_loader(dataclasses.replace(config, **change), dataset.vocabulary, front_end)


def test_captioned_sounds_can_be_listened_to(parts, tmp_path):
    sounds = SoundScript(count=6, seed=0, min_seconds=0.5, max_seconds=1.0)
    source = CaptionedConversations(sounds, "audio_to_caption", "What is this?")
    info = prepare_fake(source, parts, tmp_path / "out")
    question, clip, answer = open_records(info)[2].messages
    assert (question.role, clip.role, answer.role) == ("user", "user", "assistant")
    assert bytes(answer.content.tolist()).decode() == sounds[2].caption
    assert clip.content == len(sounds[2].wav) and info.audio_hours == 0
    with pytest.raises(UserError, match="task must be one of"):
        CaptionedConversations(sounds, "text_only")
