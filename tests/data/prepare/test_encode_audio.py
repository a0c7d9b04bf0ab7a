"""Sounds become codes on any number of devices and processes, and always the same ones."""

import io
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from helpers.fake_sounds import FakeCodec, FakeSource, encode_fake, prepare_fake_sounds
from helpers.folders import contents
from rich.console import Console

from ualm_jax.cli.main import run
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.codec_sound import PEAK, pack_sound, unpack_sound
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.dataset.sounds import open_sounds
from ualm_jax.data.prepare.encode_audio import encode_audio
from ualm_jax.errors import UserError


def test_preparing_and_encoding_apart_is_preparing_at_once(parts, sounds, dataset, tmp_path):
    encode_fake(sounds.directory, parts, tmp_path / "tokens")
    assert contents(tmp_path / "tokens") == contents(dataset.directory)


def test_what_is_left_out_on_the_way_is_told_at_the_end(parts, tmp_path):
    source = FakeSource(30, {0: "missing", 7: "nan"})
    sounds = prepare_fake_sounds(source, parts, tmp_path / "sounds", shard_size=8, max_bad_fraction=0.1)
    info = encode_fake(sounds.directory, parts, tmp_path / "tokens")
    assert (sounds.quarantined, info.quarantined, info.records) == (2, 2, 28)
    quarantines = [(folder / "quarantine.jsonl").read_text() for folder in (sounds.directory, info.directory)]
    assert quarantines[0] == quarantines[1] and quarantines[0].count("\n") == 2


def test_sounds_on_their_way_are_a_tfds_dataset(sounds):
    row = tfds.builder_from_directory(sounds.directory).as_data_source("train")[3]
    wav = FakeSource(100)[3].wav
    whole = len(wav) // FakeCodec.hop * FakeCodec.hop
    stored, rate = soundfile.read(io.BytesIO(row["clips"][0]), dtype="float32")
    assert rate == FakeCodec.sample_rate and row["id"] == b"clip-3" and "codes" not in row
    np.testing.assert_allclose(stored * PEAK, wav[:whole], rtol=0, atol=2**-23)


def test_sound_on_its_way_keeps_sixteen_bits_exactly_and_peaks_above_full_scale():
    rng = np.random.default_rng(0)
    exact = rng.integers(-(2**15), 2**15, 1000).astype(np.float32) / 2**15
    np.testing.assert_array_equal(unpack_sound(pack_sound(exact, 16000)), exact)
    loud = rng.uniform(-1.999, 1.999, 1000).astype(np.float32)
    np.testing.assert_allclose(unpack_sound(pack_sound(loud, 16000)), loud, rtol=0, atol=2**-22)
    with pytest.raises(ValueError, match="a peak of 2"):
        pack_sound(np.float32([0.0, 2.0]), 16000)


def test_training_says_that_sounds_are_not_codes_yet(sounds, dataset):
    with pytest.raises(UserError, match="not codes yet; run `ualm data encode"):
        open_dataset(sounds.directory)
    with pytest.raises(UserError, match="codes already"):
        open_sounds(dataset.directory)


def test_the_throughput_is_printed(parts, sounds, tmp_path):
    log = io.StringIO()
    encode_fake(sounds.directory, parts, tmp_path / "tokens", console=Console(file=log, width=40))
    assert log.getvalue().splitlines()[-1].startswith("codes: 100 of 100 conversations in ")
    assert "s of audio per second" in log.getvalue()


def test_the_work_is_only_continued_with_what_began_it(parts, sounds, tmp_path):
    class Broken(FakeCodec):
        def encode_batch(self, wavs):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ualm_jax.data.prepare.encode_audio.load_codec", lambda directory: Broken())
        encode_audio(sounds.directory, codec_dir=parts / "codec", out=tmp_path / "tokens")
    other = shutil.copytree(parts, tmp_path / "other")
    (other / "codec" / "more.json").write_text("{}")
    with pytest.raises(UserError, match="begun with another codec;"):
        encode_fake(sounds.directory, other, tmp_path / "tokens")
    smaller = prepare_fake_sounds(FakeSource(100), parts, tmp_path / "smaller", shard_size=10)
    with pytest.raises(UserError, match="begun with another shard_size, sounds;"):
        encode_fake(smaller.directory, parts, tmp_path / "tokens")


def test_a_codec_of_another_shape_is_refused(parts, sounds, golden_dir, tmp_path):
    with pytest.raises(UserError, match="a codec with hop 16, this one has 320; prepare it again with --codec"):
        encode_audio(sounds.directory, codec_dir=golden_dir / "xcodec", out=tmp_path / "tokens")


def test_a_damaged_shard_is_one_sentence(parts, sounds, tmp_path):
    copy = shutil.copytree(sounds.directory, tmp_path / "copy")
    shard = copy / sounds.shards[2].name
    shard.write_bytes(shard.read_bytes()[:-5000])
    with pytest.raises(UserError, match=f"{shard.name}: damaged"):
        encode_fake(copy, parts, tmp_path / "tokens")
    shutil.copy(sounds.shards[6], shard)
    with pytest.raises(UserError, match=f"{shard.name}: holds 10 records, expected 15"):
        encode_fake(copy, parts, tmp_path / "tokens")


@pytest.fixture(scope="module")
def real(golden_dir, tmp_path_factory):
    """Sounds for the codec of the released kind, of two lengths."""
    out = tmp_path_factory.mktemp("real") / "sounds"
    words = (
        "data prepare --source soundscript --count 8 --min-seconds 0.5 --max-seconds 0.55 --shard-size 3 --sounds-only"
    )
    assert run([*words.split(), "--codec", str(golden_dir / "xcodec"), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def real_tokens(real, golden_dir):
    return encode_audio(real, codec_dir=golden_dir / "xcodec", out=real.with_name("tokens"))


def test_codes_do_not_depend_on_how_many_devices_encode(real, real_tokens, golden_dir):
    codec = XCodec.from_directory(golden_dir / "xcodec")
    assert jax.local_device_count() == 8, "this is what encode_audio has used"
    sources = tfds.builder_from_directory(real).as_data_source("train")
    for row, record in zip(sources, open_records(real_tokens), strict=True):
        np.testing.assert_array_equal(record.messages[1].content, codec.encode(unpack_sound(row["clips"][0])))


def test_two_processes_make_the_same_dataset(real, real_tokens, golden_dir, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "ualm_jax.cli.main", "data", "encode", str(real), "--devices=2"]
    command += [f"--codec={golden_dir / 'xcodec'}", f"--out={tmp_path / 'tokens'}"]
    processes = [
        subprocess.Popen(
            [*command, f"--distributed={address},2,{index}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert contents(tmp_path / "tokens") == contents(real_tokens.directory)
    assert all("codes: " in output for output in outputs), "each has encoded a share"
