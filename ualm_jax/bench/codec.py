"""How fast X-codec encodes and decodes, beside `transformers` on the same device; or how fast a codec learns."""

import argparse
import pathlib
import tempfile
from functools import partial
from typing import Any

import numpy as np

from ualm_jax.bench.result import Bars, BenchResult, number, seconds, text
from ualm_jax.bench.timing import time_in_turn
from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.init import init_random
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.errors import UserError


def run(args: argparse.Namespace) -> BenchResult:
    """Encodes and decodes with the full-size X-codec, random weights, float32: a row per batch, direction and side.

    Both sides are checked to give the same codes and waves before they are timed. With `args.training`, a codec's
    configuration: its training steps (`codec_training.measure`).
    """
    if args.training is not None:
        return _training(args)
    batches, length = args.batch or [1, 8], args.seconds or 10.0
    with tempfile.TemporaryDirectory() as folder:
        save_directory(init_random(XCodecConfig(), seed=0), XCodecConfig(), folder)
        codec = XCodec.from_directory(folder)
        theirs = _Torch(pathlib.Path(folder)) if args.against == "torch" else None
    rng = np.random.default_rng(0)
    samples = round(length * codec.sample_rate) // codec.hop * codec.hop
    rows: list[dict[str, Any]] = []
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
            timings = time_in_turn(runs, args.repeats)
            for side, timing in timings.items():
                row = {"work": name, "batch": batch, "side": side, "seconds": timing.to_mapping()}
                row["audio_per_second"] = batch * length / timing.median
                if side != "ours":
                    row["ratio"] = timing.median / timings["ours"].median
                rows.append(row)
    return BenchResult(
        title=f"X-codec, {length:g} s clips, float32",
        columns=(
            text("work", "work"),
            text("batch", "clips"),
            text("side", "side"),
            seconds("seconds", "time"),
            number("audio_per_second", "audio s/s", ".1f"),
            number("ratio", "ours is faster by", ".2f"),
        ),
        rows=rows,
        bars=(
            Bars(
                "seconds of audio per second",
                {f"{row['work']} {row['batch']} {row['side']}": row["audio_per_second"] for row in rows},
            ),
        ),
        again=partial(codec.encode_batch, wavs),
    )


def _training(args: argparse.Namespace) -> BenchResult:
    from ualm_jax.bench.codec_training import measure

    config, rows = args.training, args.batch or [args.training.data.batch_size]
    if config.codec.semantic or config.quantizer.fixed:
        raise UserError("--training measures codecs that learn whole: without codec.semantic and quantizer.fixed.")
    if len(rows) > 1:
        raise UserError("--training measures one batch at a time: give --batch one number.")
    frames = config.data.frames
    if args.seconds is not None:
        codec = config.codec.trainable().config
        frames = max(round(args.seconds * codec.sample_rate / codec.hop), 1)
    return measure(config, rows[0], frames, args.repeats, torch=args.against == "torch")


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
