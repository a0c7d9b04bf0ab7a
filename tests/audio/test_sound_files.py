"""How long a sound is, whether it is whole and whether another one follows, is found out from what is there: no header
is believed that promises more, or less, and none can stop a job or make it take memory by what it says."""

import errno
import io
import struct

import numpy as np
import pytest
import soundfile
from helpers.sound_files import FORMATS, frames_of_mp3, heard, sound_file, tones

from ualm_jax.audio import io as audio_io
from ualm_jax.audio.io import BadAudio, read_audio
from ualm_jax.errors import UserError

RATE = 16000
NOISE = np.random.default_rng(0).uniform(-0.4, 0.4, 2 * RATE).astype(np.float32)


def read(data: bytes, **segment) -> np.ndarray:
    return read_audio("x", sample_rate=RATE, file=io.BytesIO(data), **segment)


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


SIX = (200, 300, 400, 500, 600, 700)
SILENCE_AND_SIX = np.concatenate([np.zeros(RATE, np.float32), tones(*SIX[1:])])  # a variable bit rate begins low
ID3 = b"ID3\x04\0\0\0\0\0\x0cTXXX\0\0\0\x02\0\0ab"


@pytest.mark.parametrize("rate", [22050, 44100])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("head", [b"", ID3, None], ids=["bare", "as-from-a-pipe", "with-information"])
def test_all_of_an_mp3_is_read_whether_or_not_it_says_how_long_it_is(rate, mode, head):
    wav = tones(*SIX, rate=rate)
    wav[:rate] = 0
    data = sound_file(wav, "MP3", rate, bitrate_mode=mode)
    if head is not None:
        data = head + b"".join(frames_of_mp3(data)[1:])
    sound = read(data)
    assert len(sound) / RATE == pytest.approx(6.0, abs=0.1) and heard(sound[: 6 * RATE])[1:] == list(SIX[1:])
    assert heard(read(data, start=4.2, end=5.2)) == [600]


def test_an_mp3_whose_information_counts_more_frames_than_there_are_is_truncated():
    frames = frames_of_mp3(sound_file(tones(*SIX), "MP3"))
    with pytest.raises(BadAudio, match=f"promises {len(frames) - 1} frames but {len(frames) - 6} are there"):
        read(b"".join(frames[:-5]))
    assert len(read(b"".join(frames[1:-5]))) / RATE == pytest.approx(6 - 5 * 576 / RATE, abs=0.1)
    with pytest.raises(BadAudio, match="truncated, the last 10 bytes of its last frame are missing"):
        read(b"".join(frames[1:])[:-10])
    with pytest.raises(BadAudio, match="damaged, the .* bytes from byte .* are neither sound nor a known tag"):
        read(b"".join(frames[1:20]) + bytes(range(1, 200)) + b"".join(frames[20:]))


@pytest.mark.parametrize("format", FORMATS)
def test_sounds_in_one_file_are_read_one_after_the_other(format):
    first, second = sound_file(tones(300, 400), format), sound_file(tones(500, 600, 700), format)
    both = read(first + second)
    np.testing.assert_array_equal(both, np.concatenate([read(first), read(second)]))
    assert heard(read(first + second, start=3.0, end=4.0)) == [600]
    np.testing.assert_allclose(read(first + second, start=1.5, end=3.5), both[24000:56000], atol=1e-6)


def test_what_cannot_be_one_sound_is_refused():
    wav = sound_file(tones(300))
    assert heard(read(wav + sound_file(tones(400), "FLAC"))) == [300, 400]
    with pytest.raises(BadAudio, match="sounds of 16000 Hz and of 8000 Hz, one after the other"):
        read(wav + sound_file(tones(300, rate=8000), rate=8000))
    with pytest.raises(BadAudio, match="the 99 bytes from byte 32044 on are neither sound nor a known tag"):
        read(wav + bytes(range(1, 100)))
    assert len(read(wav + bytes(70_000))) == len(read(wav + b"TAG" + bytes(125))) == RATE


UNKNOWN = {  # where a size of the sound stands, and how a pipe leaves it
    "WAV": (40, ["<I"], [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF]),
    "RF64": (28, ["<Q"], [0, 2**64 - 1]),
    "W64": (96, ["<Q"], [24, 2**63 - 1]),
    "AIFF": (42, [">I"], [0, 8, 0xFFFFFFFF]),
    "AU": (8, [">I"], [0, 0xFFFFFFFF]),
    "CAF": (4084, [">Q"], [4, 2**64 - 1]),
    "FLAC": (21, ["B", ">I"], [None]),
}


@pytest.mark.parametrize("format, size", [(name, size) for name, (_, _, sizes) in UNKNOWN.items() for size in sizes])
def test_a_length_that_a_writer_did_not_know_is_found_out(format, size):
    data = sound_file(NOISE, format)
    place, kinds, _ = UNKNOWN[format]
    new = bytes((data[place] & 0xF0, 0, 0, 0, 0)) if size is None else struct.pack(kinds[0], size)
    np.testing.assert_array_equal(read(patched(data, place, new)), read(data))
    assert len(read(patched(data, place, new), start=1.5)) == RATE // 2


@pytest.mark.parametrize("format", [name for name in UNKNOWN if name != "FLAC"])
def test_a_header_that_promises_less_than_there_is_is_refused(format):
    data = sound_file(NOISE, format)
    place, kinds, _ = UNKNOWN[format]
    with pytest.raises(BadAudio, match="are neither sound nor a known tag"):
        read(patched(data, place, struct.pack(kinds[0], RATE)))


def test_a_flac_that_promises_less_or_more_than_there_is_is_refused():
    data = sound_file(NOISE, "FLAC")
    for count, message in ((RATE, "promises 16000 samples, but more are there"), (2**35, "only 32000 can be decoded")):
        new = bytes(((data[21] & 0xF0) | count >> 32,)) + struct.pack(">I", count & 0xFFFFFFFF)
        with pytest.raises(BadAudio, match=message):
            read(patched(data, 21, new))


LONG_CHUNKS = {
    "WAV": lambda data: (
        data[:36] + b"".join(b"note" + struct.pack("<I", 20) + bytes(20) for _ in range(300)) + data[36:]
    ),
    "AIFF": lambda data: (
        data[:38] + b"".join(b"ANNO" + struct.pack(">I", 20) + b"a" * 20 for _ in range(300)) + data[38:]
    ),
}


@pytest.mark.parametrize("format", LONG_CHUNKS)
def test_a_long_header_hides_no_truncation(format):
    """libsndfile's own log, which tells of it, ends after 2 kB."""
    data = LONG_CHUNKS[format](sound_file(NOISE, format))
    assert len(read(data)) == len(NOISE)
    with pytest.raises(BadAudio, match=r"truncated, its header promises 6400\d bytes but 4400\d are there"):
        read(data[:-20_000])


def ogg_pages(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def test_an_ogg_whose_end_is_not_marked_is_read_and_one_that_is_cut_is_not():
    data = sound_file(np.tile(NOISE, 4), "OGG")
    pages = ogg_pages(data)
    assert len(pages) > 6 and pages[-1][5] & 4
    last = patched(pages[-1], 5, bytes((pages[-1][5] & ~4,)))
    crc = patched(last, 22, struct.pack("<I", ogg_checksum(patched(last, 22, bytes(4)))))
    for unmarked in (b"".join(pages[:-1]) + crc, data + bytes(70_000)):
        np.testing.assert_array_equal(read(unmarked), read(data))
    with pytest.raises(BadAudio, match="truncated, its last Ogg page begins at byte .* and does not end"):
        read(data[:-100])
    with pytest.raises(BadAudio, match="damaged, Ogg pages are missing before byte"):
        read(b"".join(pages[:4] + pages[5:]))


def test_an_ogg_that_ends_between_pages_but_inside_a_packet_is_truncated():
    """A packet goes on where the last length of a page is 255."""
    pages = ogg_pages(sound_file(np.tile(NOISE, 4), "OGG"))
    page, last = pages[-2], 26 + pages[-2][26]
    longer = page[:last] + b"\xff" + page[last + 1 :] + bytes(255 - page[last])
    with pytest.raises(BadAudio, match="truncated, the last packet of its last Ogg page does not end"):
        read(b"".join(pages[:-2]) + longer)


def ogg_checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)) & 0xFFFFFFFF
    return value


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_the_end_of_an_ogg_is_found_where_it_is(subtype):
    """Where libsndfile 1.2.2 seeks into the last page of Vorbis, it finds another place."""
    wav = np.random.default_rng(1).uniform(-0.4, 0.4, 100_000).astype(np.float32)
    data = sound_file(wav, "OGG", subtype=subtype)
    whole = read(data)
    for start in range(90_000, 100_000, 1111):
        np.testing.assert_allclose(read(data, start=start / RATE), whole[start:], atol=1e-5)


def test_reading_in_small_blocks_gives_the_same_samples(monkeypatch):
    data = sound_file(np.stack([NOISE, NOISE[::-1]], 1), "FLAC", rate=44100)
    whole = read(data), read(data, start=0.1, end=0.5)
    monkeypatch.setattr(audio_io, "_BLOCK", 1000)
    np.testing.assert_array_equal(read(data), whole[0])
    np.testing.assert_array_equal(read(data, start=0.1, end=0.5), whole[1])


def test_an_end_that_is_beyond_that_of_the_file_by_rounding_is_that_of_the_file():
    data = sound_file(NOISE)
    np.testing.assert_array_equal(read(data, start=1.0, end=2.003), NOISE_16[RATE:])
    with pytest.raises(BadAudio, match="1 s to 2.01 s is outside the file, which lasts 2 s"):
        read(data, start=1.0, end=2.01)


NOISE_16 = soundfile.read(io.BytesIO(sound_file(NOISE)), dtype="float32")[0]


@pytest.mark.parametrize("scale", [127, 2**15, 2**31])
def test_floats_at_the_scale_of_integers_are_refused(scale):
    with pytest.raises(BadAudio, match="where full scale is 1; perhaps integers stored as floats"):
        read(sound_file(NOISE * scale, subtype="FLOAT"))
    assert len(read(sound_file(NOISE * 5, subtype="FLOAT"))) == len(NOISE)  # 6 dB above full scale


def test_rates_that_are_mistakes_are_refused():
    data = sound_file(NOISE)
    for rate in (1, 999, 768_001, 2**31 - 1):
        with pytest.raises(BadAudio, match=f"its header says {rate} Hz, expected 1000 to 768000 Hz|not a readable"):
            read(patched(data, 24, struct.pack("<I", rate)))


def test_a_sound_of_hours_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(audio_io, "LONGEST", 1.5)
    assert len(read(sound_file(NOISE), start=0.5)) == 1.5 * RATE
    with pytest.raises(BadAudio, match="longer than 1.5 s"):
        read(sound_file(NOISE))


def test_too_many_open_files_are_not_the_sounds_fault(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(sound_file(NOISE))

    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match=r"a.wav: can not be opened, too many files are open; .*ulimit") as caught:
        read_audio(tmp_path / "a.wav", sample_rate=RATE)
    assert not isinstance(caught.value, BadAudio)


@pytest.mark.parametrize("format", [*FORMATS, "OPUS"])
def test_no_byte_of_a_header_ends_a_job_or_asks_for_memory(format):
    """Whatever stands there, the sound is refused in a sentence, or no longer than a low rate makes it."""
    subtype = "OPUS" if format == "OPUS" else None
    data = sound_file(NOISE[:2000], "OGG" if subtype else format, subtype=subtype)
    for place in range(min(len(data) - 8, 100)):
        for new in (b"\0", b"\xff", b"\x7f" + b"\xff" * 7):
            try:
                assert len(read(patched(data, place, new))) < 40_000
            except BadAudio as error:
                assert "\n" not in str(error)
