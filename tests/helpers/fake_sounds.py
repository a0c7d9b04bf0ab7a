"""Sounds made of nothing and a codec that is plain arithmetic, to prepare datasets from in no time."""

import dataclasses
import time
from pathlib import Path
from unittest import mock

import numpy as np

from ualm_jax.codecs.base import Codec
from ualm_jax.data.dataset.codec_sound import CodecShape
from ualm_jax.data.prepare.config import PrepareConfig
from ualm_jax.data.prepare.encode_audio import encode_audio
from ualm_jax.data.prepare.job import prepare, prepare_sounds
from ualm_jax.data.raw.conversation import CaptionedConversations
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.sound_source import BadRecord, CaptionedSound
from ualm_jax.tokens.tokenizer import save_byte_tokenizer


class FakeCodec(Codec):
    sample_rate, hop, frame_rate, codebook_sizes, context = 16000, 16, 1000.0, (32,) * 8, 0

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds  # that a clip takes

    def encode(self, wav):
        return np.floor((wav.reshape(-1, self.hop)[:, :8] + 1) * 15.9).astype(np.int32)

    def encode_batch(self, wavs):
        time.sleep(self.seconds * len(wavs))
        return [self.encode(wav) for wav in wavs]


@dataclasses.dataclass
class FakeSource:
    """Sound i has 3 to 40 codec frames and a few samples more; `faults` says what is wrong with some. seconds: that
    it takes to read one."""

    count: int
    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    sample_rate: int = 16000
    seconds: float = 0.0
    name = "fake"
    left_out = ()

    def __post_init__(self):
        self.read = []  # which sounds were asked for

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> CaptionedSound:
        self.read.append(index)
        time.sleep(self.seconds)
        rng = np.random.default_rng(index)
        samples = FakeCodec.hop * int(rng.integers(3, 41)) + index % 10
        wav = rng.uniform(-1, 1, samples).astype(np.float32)
        caption = f"sound {index} " + "x" * int(rng.integers(0, 30))
        fault = self.faults.get(index)
        if fault == "missing":
            raise BadRecord(f"clip-{index}.wav: there is no such file")
        if fault == "nan":
            wav[7] = np.nan
        if fault == "empty":
            caption = "  "
        if fault == "short":
            wav = wav[: FakeCodec.hop - 1]
        if fault == "surrogate":
            caption = "half a \ud800 pair"
        return CaptionedSound(f"clip-{index}", caption, wav, self.sample_rate, {"index": index})

    def fingerprint(self) -> dict:
        return {"kind": "fake", "count": self.count}


def save_parts(directory: Path) -> Path:
    """A byte tokenizer and what stands for a codec."""
    save_byte_tokenizer(directory / "tokenizer")
    (directory / "codec").mkdir()
    (directory / "codec" / "config.json").write_text("{}")
    return directory


def fake_config(parts: Path, out: Path, **options) -> PrepareConfig:
    shape = CodecShape.of(FakeCodec())
    return PrepareConfig(out=out, tokenizer_dir=parts / "tokenizer", codec_dir=parts / "codec", shape=shape, **options)


def prepare_fake(source, parts: Path, out: Path, *, task="caption_to_audio", console=None, **options):
    """`prepare` with the FakeCodec. Captioned sounds become conversations of `task`."""
    with fake_codec():
        config = fake_config(parts, out, **options)
        return prepare(conversations(source, task), config, console)


def prepare_fake_sounds(source, parts: Path, out: Path, *, console=None, **options):
    """`prepare_sounds`, as for the FakeCodec."""
    return prepare_sounds(conversations(source), fake_config(parts, out, **options), console)


def encode_fake(sounds: Path, parts: Path, out: Path, seconds: float = 0.0, **options):
    """`encode_audio` with the FakeCodec, which takes `seconds` for a clip."""
    with fake_codec(seconds):
        return encode_audio(sounds, codec_dir=parts / "codec", out=out, **options)


def conversations(source, task="caption_to_audio"):
    return CaptionedConversations(source, task) if isinstance(source, FakeSource | Manifest) else source


def fake_codec(seconds: float = 0.0):
    return mock.patch("ualm_jax.data.prepare.encode_audio.load_codec", lambda directory: FakeCodec(seconds))
