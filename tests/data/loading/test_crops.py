"""Crops of waveforms: what stands in a batch follows from the seed and the sounds alone."""

import numpy as np
import pytest
import soundfile
from helpers.fake_sounds import FakeSource
from helpers.sounds import sounds

from ualm_jax.cli.main import run
from ualm_jax.data.loading.clips import FolderClips, MemoryClips, render_clips
from ualm_jax.data.loading.crops import Crops
from ualm_jax.data.loading.dataset_clips import DatasetClips
from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2
from ualm_jax.errors import UserError
from ualm_jax.progress import Bar

RATE = 16000


@pytest.fixture
def clips():
    """Three clips whose samples say where they stand: clip i holds 1000 i + 1, 1000 i + 2, ..."""
    parts = [np.arange(1, length + 1) + 1000 * i for i, length in enumerate((100, 300, 50))]
    samples = np.concatenate(parts).astype(np.int16)[:, None]
    return MemoryClips(RATE, samples, np.cumsum([100, 300, 50]), "counted")


def crops_of(clips, **settings):
    return Crops(clips, **{"samples": 40, "batch_size": 8, "seed": 3} | settings)


def test_a_crop_is_a_stretch_of_one_clip_with_silence_beyond_its_ends(clips):
    crops, origins = crops_of(clips, batch_size=400).batch(0)
    for crop, origin in zip(np.rint(crops[..., 0] * 32768).astype(int), origins, strict=True):
        inside = np.flatnonzero(crop)
        assert len(inside) >= 20 and np.all(np.diff(inside) == 1)
        assert np.all(np.diff(crop[inside]) == 1) and set(crop[inside] // 1000) == {origin}
        if len(inside) < 40:  # silence stands where the clip ends
            first, last = crop[inside[0]] % 1000, crop[inside[-1]] % 1000
            assert (first == 1) != (inside[0] == 0) or (last == clips.lengths[origin]) != (inside[-1] == 39)
    assert abs(np.mean(origins == 1) - 300 / 450) < 0.1  # every moment is equally likely


def test_batches_are_a_function_of_seed_and_number(clips):
    first, again = crops_of(clips, flip=True, gain_db=(-6.0, 3.0)), crops_of(clips, flip=True, gain_db=(-6.0, 3.0))
    drawn = [next(first)[0] for _ in range(5)]
    np.testing.assert_array_equal(drawn[3], again.batch(3)[0])
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], crops_of(clips, seed=4, flip=True, gain_db=(-6.0, 3.0)).batch(0)[0])


def test_a_resumed_stream_repeats_nothing_and_skips_nothing(clips):
    whole, halves = crops_of(clips), crops_of(clips)
    wanted = [next(whole)[0] for _ in range(6)]
    got = [next(halves)[0] for _ in range(3)]
    resumed = crops_of(clips, threads=3)
    resumed.set_state(halves.get_state())
    got += [next(resumed)[0] for _ in range(3)]
    np.testing.assert_array_equal(got, wanted)


def test_processes_share_a_batch(clips):
    whole = crops_of(clips, flip=True).batch(7)[0]
    parts = [crops_of(clips, flip=True, rows=slice(start, start + 4)).batch(7)[0] for start in (0, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_gain_and_polarity_are_drawn_within_their_bounds(clips):
    plain = crops_of(clips, batch_size=200).batch(0)[0]
    changed = crops_of(clips, batch_size=200, flip=True, gain_db=(-6.0, 6.0)).batch(0)[0]
    ratio = changed.max(axis=(1, 2), where=plain != 0, initial=-9) / plain.max(axis=(1, 2))
    ratio = np.where(ratio > 0, ratio, changed.min(axis=(1, 2)) / plain.max(axis=(1, 2)))
    assert (ratio < 0).any() and (ratio > 0).any()
    assert np.all((np.abs(ratio) >= 10**-0.3 - 1e-3) & (np.abs(ratio) <= 10**0.3 + 1e-3))


@pytest.fixture
def folder(tmp_path):
    found = sounds(1.5)
    soundfile.write(tmp_path / "a.wav", found["melody"], RATE)
    soundfile.write(tmp_path / "b.flac", np.repeat(found["tone"][:, None], 2, axis=1), 48000)
    soundfile.write(tmp_path / "c.wav", found["sweep"][:4000], 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    soundfile.write(tmp_path / "short.wav", found["tone"][:100], RATE)
    (tmp_path / "notes.txt").write_text("not a sound")
    return tmp_path


def test_files_of_any_rate_and_channels_are_read_and_bad_ones_counted(folder, caplog):
    clips = FolderClips(folder, RATE)
    assert [clips.name(i).rsplit("/", 1)[1] for i in range(3)] == ["a.wav", "b.flac", "c.wav"]
    assert clips.lengths.tolist() == [24000, 8000, 8000]
    assert {reason: len(names) for reason, names in clips.left_out.items()} == {"unreadable": 1, "too short": 1}
    assert f"left out: 1 unreadable (as {folder}/broken.wav), 1 too short (as {folder}/short.wav)" in caplog.text


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_part_of_a_file_is_that_part_of_the_whole(folder, index):
    clips = FolderClips(folder, RATE)
    whole = clips.read(index, 0, int(clips.lengths[index]))
    for start, stop in ((0, 700), (1234, 3456), (7000, 8000)):
        np.testing.assert_allclose(clips.read(index, start, stop), whole[start:stop], atol=2e-3)


def test_no_more_of_a_file_is_read_than_the_crop_needs(folder, monkeypatch):
    clips, read = FolderClips(folder, RATE), []
    before = soundfile.SoundFile.read

    def counting(self, frames=-1, *args, **keywords):
        read.append(frames)
        return before(self, frames, *args, **keywords)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    clips.read(1, 4000, 4160)
    assert read and max(read) < 3 * 160 + 2 * 48000 * 0.02 + 10


def test_stereo_is_not_made_of_mono(folder):
    clips = FolderClips(folder, RATE, channels=2)
    assert clips.channels == 2 and len(clips.lengths) == 1 and len(clips.left_out["mono"]) == 2
    assert clips.read(0, 0, 100).shape == (100, 2)


def test_a_folder_without_sound_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected sounds .* found no file of these"):
        FolderClips(tmp_path, RATE)
    with pytest.raises(UserError, match="expected a folder of sounds, found none"):
        FolderClips(tmp_path / "nowhere", RATE)


def test_sounds_of_a_dataset_are_those_it_was_made_of(sounds, dataset):
    clips = DatasetClips(sounds.directory, RATE)
    assert len(clips.lengths) == 100 and clips.name(3).endswith("sound 0 of record 3")
    for index in (3, 99):
        wav = FakeSource(100)[index].wav[: clips.lengths[index]]
        np.testing.assert_allclose(clips.read(index, 0, len(wav))[:, 0], wav, atol=2**-22)
        np.testing.assert_array_equal(clips.read(index, 50, 200)[:, 0], clips.read(index, 0, len(wav))[50:200, 0])
    halved = DatasetClips(sounds.directory, RATE // 2)
    assert halved.lengths.tolist() == (clips.lengths // 2).tolist() and len(halved.read(0, 10, 90)) == 80
    assert halved.fingerprint() != clips.fingerprint()
    with pytest.raises(UserError, match="its records hold codes and texts, expected sounds"):
        DatasetClips(dataset.directory, RATE)


def test_audio_input_is_a_sound_too(parts, tmp_path):
    words = "data prepare --source soundscript --count 3 --task audio_to_caption --max-seconds 1 --out"
    assert run([*words.split(), str(tmp_path / "heard")]) == 0
    clips, source = DatasetClips(tmp_path / "heard", RATE), SoundScript(3, 0, RATE, max_seconds=1.0)
    for index in range(3):
        wav = source[index].wav
        np.testing.assert_allclose(clips.read(index, 0, len(wav))[:, 0], wav, atol=2**-15)


def test_a_clip_that_fails_later_is_left_out_and_counted(folder, caplog):
    crops = Crops(FolderClips(folder, RATE), samples=100, batch_size=16, seed=0)
    (folder / "a.wav").unlink()
    batch, origins = crops.batch(0)
    assert 0 not in origins and crops.progress() == {"data/unreadable_clips": 1.0}
    assert caplog.text.count("a.wav: not a readable") == caplog.text.count("; it is left out") == 1
    (folder / "b.flac").unlink()
    soundfile.write(folder / "c.wav", 3e4 * np.ones(4000), 8000, subtype="FLOAT")
    with pytest.raises(UserError, match="crops in a row could not be read"):
        crops.batch(1)
    with pytest.raises(UserError, match="c.wav: its samples reach 30000, where full scale is 1"):
        FolderClips(folder, RATE).read(0, 0, 100)


def test_generated_sounds_are_those_of_the_source_however_many_processes_make_them(monkeypatch):
    source = SoundScript2(40, 5, RATE)
    clips = render_clips(source, 40, workers=1)
    for index in (0, 17, 39):
        wav = clips.read(index, 0, int(clips.lengths[index]))[:, 0]
        np.testing.assert_allclose(wav, source[index].wav, atol=1 / 32768)
    told = []
    monkeypatch.setattr(Bar, "update", lambda self, done: told.append(done))
    spread = render_clips(source, 40, workers=2)
    assert told == [32, 40]
    np.testing.assert_array_equal(spread.samples, clips.samples)
    assert spread.fingerprint() == clips.fingerprint()
