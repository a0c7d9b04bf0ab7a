"""Sounds made of nothing and a codec that is plain arithmetic, to prepare datasets from in no time.

As a program: prepares OUT from PARTS slowly enough to be killed (`python fake_sounds.py PARTS OUT`).
"""

import dataclasses
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

from ualm_jax.codecs.base import Codec
from ualm_jax.data.conversation import CaptionedConversations
from ualm_jax.data.manifest import Manifest
from ualm_jax.data.prepare import prepare
from ualm_jax.data.sound_source import BadRecord, CaptionedSound
from ualm_jax.tokens.tokenizer import save_byte_tokenizer


class FakeCodec(Codec):
    sample_rate, hop, frame_rate, codebook_sizes = 16000, 16, 1000.0, (32,) * 8

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def encode(self, wav):
        return np.floor((wav.reshape(-1, self.hop)[:, :8] + 1) * 15.9).astype(np.int32)

    def encode_batch(self, wavs):
        time.sleep(self.seconds)
        return [self.encode(wav) for wav in wavs]


@dataclasses.dataclass
class FakeSource:
    """Sound i has 3 to 40 codec frames and a few samples more; `faults` says what is wrong with some."""

    count: int
    faults: dict[int, str] = dataclasses.field(default_factory=dict)
    sample_rate: int = 16000
    name = "fake"

    def __post_init__(self):
        self.read = []  # which sounds were asked for

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> CaptionedSound:
        self.read.append(index)
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


def prepare_fake(source, parts: Path, out: Path, *, task="caption_to_audio", codec_seconds: float = 0.0, **options):
    """`prepare` with the FakeCodec. Captioned sounds become conversations of `task`."""
    codec = FakeCodec(codec_seconds)
    if isinstance(source, FakeSource | Manifest):
        source = CaptionedConversations(source, task)
    with mock.patch("ualm_jax.data.prepare._load_codec", lambda directory: codec):
        return prepare(source, tokenizer_dir=parts / "tokenizer", codec_dir=parts / "codec", out=out, **options)


if __name__ == "__main__":
    prepare_fake(FakeSource(100), Path(sys.argv[1]), Path(sys.argv[2]), codec_seconds=0.1, shard_size=15)
