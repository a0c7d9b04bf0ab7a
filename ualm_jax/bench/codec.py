"""How fast X-codec encodes and decodes, beside `transformers` on the same device."""

import pathlib
import tempfile
from functools import partial
from typing import Any

import numpy as np

from ualm_jax.bench.timing import time_in_turn
from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory


def bench_codec(*, seconds: float, batches: tuple[int, ...], repeats: int, against_torch: bool) -> list[dict[str, Any]]:
    """One row per batch and direction of the full-size X-codec with random weights, float32.

    Rows hold median and spread in seconds of ours (and of torch), seconds of audio per second, and the ratio of the
    medians. Both sides are checked to give the same codes and waves before they are timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_directory(init_random(XCodecConfig(), seed=0), XCodecConfig(), folder)
        codec = XCodec.from_directory(folder)
        theirs = _Torch(pathlib.Path(folder)) if against_torch else None
    rng = np.random.default_rng(0)
    samples = round(seconds * codec.sample_rate) // codec.hop * codec.hop
    rows = []
    for batch in batches:
        wavs = [rng.normal(0, 0.1, samples).astype(np.float32) for _ in range(batch)]
        codes = codec.encode_batch(wavs)
        if theirs is not None:
            theirs.check(codec, wavs, codes)
        work = {
            "encode": {"ours": partial(codec.encode_batch, wavs)},
            "decode": {"ours": partial(codec.decode_batch, codes)},
        }
        if theirs is not None:
            work["encode"]["torch"] = partial(theirs.encode, wavs)
            work["decode"]["torch"] = partial(theirs.decode, codes)
        for name, runs in work.items():
            timings = time_in_turn(runs, repeats)
            row = {"work": name, "batch": batch, "audio_per_second": batch * seconds / timings["ours"].median}
            for side, timing in timings.items():
                row[side] = {"median": timing.median, "min": timing.spread[0], "max": timing.spread[1]}
            if theirs is not None:
                row["ratio"] = timings["torch"].median / timings["ours"].median
            rows.append(row)
    return rows


class _Torch:
    """`transformers`' X-codec from the same weights."""

    def __init__(self, folder: pathlib.Path):
        import torch
        from transformers import XcodecModel

        self._torch = torch
        self._model = XcodecModel.from_pretrained(folder).eval()

    def encode(self, wavs: list[np.ndarray]) -> np.ndarray:
        with self._torch.inference_mode():
            stacked = self._torch.from_numpy(np.stack(wavs))[:, None]
            return self._model.encode(stacked).audio_codes.mT.numpy()

    def decode(self, codes: list[np.ndarray]) -> np.ndarray:
        with self._torch.inference_mode():
            stacked = self._torch.from_numpy(np.stack(codes)).long().mT
            return self._model.decode(stacked).audio_values[:, 0].numpy()

    def check(self, codec: XCodec, wavs: list[np.ndarray], codes: list[np.ndarray]) -> None:
        """Raises ValueError unless both sides do the same work (a near tie in a thousand frames may differ)."""
        differing = np.mean(self.encode(wavs[:1])[0] != codes[0])
        wave = np.abs(self.decode(codes[:1])[0] - codec.decode(codes[0])).max()
        if differing > 1e-3 or wave > 1e-4:
            raise ValueError(f"the two codecs differ: {differing:.2%} of the codes, {wave:.2e} in the wave")
