"""How many streams a model serves without a gap, and how fast it works off a file of prompts, beside static batches.

How much faster than static batches slots can be is a matter of lengths alone: a batch of B takes as many steps as its
longest answer, so at most (mean of the longest of B) / (mean), which is 1 / (what a static batch is busy).
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ualm_jax.bench.result import Bars, BenchResult, Column, number, text
from ualm_jax.bench.sizes import SizedModel, model_config
from ualm_jax.bench.workload import open_mesh
from ualm_jax.codecs.xcodec.config import XCodecConfig
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.generate.engine import STEPS
from ualm_jax.generate.inputs import Prompt
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.models.int8 import round_layers
from ualm_jax.models.ualm import UALM
from ualm_jax.models.unstacked import take_layers_apart
from ualm_jax.tokens.tokenizer import load_tokenizer, save_byte_tokenizer

_FRAME_RATE = 50
_MEAN, _SHORTEST, _LONGEST = 7.6, 0.3, 30.0  # seconds: the clips of FSD50K (Fonseca et al. 2022)
_WORDS = 8, 20  # of an answer: a caption of Clotho (Drossos et al. 2020)
_TOKENS = 1.3  # of a word of English
_QUESTION = 270  # tokens: ten seconds of sound, at 25 positions a second, and what is asked about it
_WINDOW = 1600  # positions: the longest sound, its prompt and its end
_CFG_SCALE = 3.0


def run(args: argparse.Namespace) -> BenchResult:
    """A row for each concurrency; of sounds, and of sounds and answers, one for a job and one for static batches."""
    config = model_config(args, param_dtype=args.dtype)
    mesh = open_mesh(args, config, 1)
    pipeline = _pipeline(config, mesh, args.int8)
    rows = [_streams(pipeline, slots, args.requests) for slots in args.concurrency]
    for mix, answers in (("sounds", False), ("sounds and answers", True)):
        rows += _job_and_batches(pipeline, args.slots, _prompts(args.prompts, answers), mix)
    shape = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    return BenchResult(
        title=f"serving, {args.size} ({config.architecture.num_params() / 1e6:,.1f} M parameters), {args.dtype}"
        f"{', 8-bit layers' * args.int8}, mesh {shape}",
        columns=(
            text("side", "side"),
            text("mix", "of"),
            text("slots", "slots"),
            text("requests", "answers"),
            _spread("first_audio", "first audio, ms: mean, p50, p99", 1e3),
            _spread("real_time_factor", "real-time factor: mean, p50, p99", 1),
            number("underruns", "underruns"),
            number("audio_per_second", "audio s/s", ",.1f"),
            number("busy", "slots busy", ".1%"),
            number("ratio", "faster than static", ".2f"),
            number("ratio_of_steps", "in steps", ".2f"),
        ),
        rows=rows,
        notes=(
            f"sounds: spread exponentially with mean {_MEAN:g} s, cut to {_SHORTEST:g} to {_LONGEST:g} s; guidance "
            f"{_CFG_SCALE:g}; prompts of 10 to 60 tokens",
            f"answers: every second one, texts of {_WORDS[0]} to {_WORDS[1]} words of {_TOKENS:g} tokens, to questions "
            f"of {_QUESTION} tokens",
            "streams: so many listeners at any time, each asks for a sound when one is over; the first chunk has "
            "2 frames, each further one twice as many, up to 25; the next is made for whoever runs out first",
            "real-time factor: seconds from the request to the last chunk, by seconds of sound; under 1 keeps up",
            "underruns: chunks that came when all before them had been played",
            "static batches: the same programs, so many prompts at once, in their order, until the longest is done",
            f"codec: {'full' if _is_full(pipeline) else 'tiny'} size, random weights",
        ),
        bars=(
            Bars("seconds of audio per second", {_label(row): row["audio_per_second"] for row in rows}),
            Bars("slots busy (%)", {_label(row): 100 * row["busy"] for row in rows}),
        ),
        again=lambda: _streams(pipeline, args.concurrency[0], args.concurrency[0]),
    )


def _pipeline(config: SizedModel, mesh: Mesh, int8: bool) -> Pipeline:
    with jax.set_mesh(mesh):
        model = jax.jit(lambda: UALM(*config, nnx.Rngs(0)))()
        if int8:
            round_layers(model)
        take_layers_apart(model)
    sized = XCodecConfig() if config.architecture.decoder.num_layers > 8 else tiny_config()
    vocabulary = config.architecture.vocabulary
    kbits = _FRAME_RATE * vocabulary.num_codebooks * np.log2(vocabulary.codebook_size) / 1000
    codec = dataclasses.replace(sized, codebook_size=vocabulary.codebook_size, target_bandwidths=(float(kbits),))
    with tempfile.TemporaryDirectory() as folder:
        save_byte_tokenizer(folder)
        tokenizer = load_tokenizer(folder)
    return Pipeline(mesh=mesh, model=model, codec=XCodec(codec, init_random(codec, 0)), tokenizer=tokenizer)


def _is_full(pipeline: Pipeline) -> bool:
    return pipeline.codec.config.acoustic == XCodecConfig().acoustic


def _label(row: dict[str, Any]) -> str:
    return f"{row['side']} of {row['mix']}, {row['slots']}"


def _prompts(count: int, answers: bool = False) -> list[Prompt]:
    """Every call gives the same. answers: every second one is a question."""
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.exponential(_MEAN, count), _SHORTEST, _LONGEST)
    prompts = []
    for index, frames in enumerate(np.round(seconds * _FRAME_RATE).astype(int).tolist()):
        if answers and index % 2:
            tokens = round(_TOKENS * int(rng.integers(*_WORDS, endpoint=True)))
            words, params = _text(rng, _QUESTION), SamplingParams(max_tokens=tokens, seed=index)
        else:
            words = _text(rng, int(rng.integers(10, 60)))
            params = SamplingParams(min_frames=frames, max_frames=frames, cfg_scale=_CFG_SCALE, seed=index)
        prompts.append(Prompt(words, params, "text" if answers and index % 2 else "audio"))
    return prompts


def _text(rng: np.random.Generator, letters: int) -> str:
    return "".join(chr(97 + letter) for letter in rng.integers(0, 26, letters))


def _shortened(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts with so few frames that a few steps compile every program."""
    short = dict(min_frames=1, max_frames=2 * STEPS)
    return [dataclasses.replace(each, params=dataclasses.replace(each.params, **short)) for each in prompts]


def _streams(pipeline: Pipeline, slots: int, least: int) -> dict[str, Any]:
    """`slots` listeners, until they have had two sounds each, and all together at least `least`."""
    pipeline = dataclasses.replace(pipeline, slots=slots, window=_WINDOW)
    prompts = _prompts(max(least, 2 * slots))
    _listen(pipeline, _shortened(prompts[: 2 * slots]), slots)
    steps, made, began = pipeline.engine.steps, pipeline.engine.slot_steps, time.perf_counter()
    heard = _listen(pipeline, prompts, slots)
    seconds = time.perf_counter() - began
    audio = sum(each.audio for each in heard)
    return {
        "side": "streams",
        "mix": "sounds",
        "slots": slots,
        "requests": len(prompts),
        "first_audio": _summary([each.first for each in heard]),
        "real_time_factor": _summary([each.seconds / each.audio for each in heard]),
        "underruns": sum(each.underruns for each in heard),
        "with_underruns": sum(each.underruns > 0 for each in heard) / len(heard),
        "audio_per_second": audio / seconds,
        "busy": (pipeline.engine.slot_steps - made) / ((pipeline.engine.steps - steps) * slots),
        "seconds": seconds,
    }


@dataclasses.dataclass
class _Listener:
    """stream: what is iterated in `chunks`. due: when its sound runs out."""

    stream: Any
    chunks: Iterator[np.ndarray]
    began: float
    due: float = 0.0
    audio: float = 0.0
    seconds: float = 0.0
    first: float = 0.0
    underruns: int = 0


def _listen(pipeline: Pipeline, prompts: Sequence[Prompt], slots: int) -> list[_Listener]:
    waiting, active, over = list(prompts[::-1]), [], []
    while waiting or active:
        while waiting and len(active) < slots:
            stream = pipeline.stream_of(waiting.pop())
            active.append(_Listener(stream, iter(stream), time.perf_counter()))
        listener = min(active, key=lambda each: each.due)
        chunk = next(listener.chunks, None)
        now = time.perf_counter()
        if chunk is None:
            active.remove(listener)
            listener.first, listener.underruns = listener.stream.seconds_to_first, listener.stream.underruns
            over.append(listener)
            continue
        lasts = len(chunk) / pipeline.codec.sample_rate
        listener.due = max(listener.due, now) + lasts
        listener.audio, listener.seconds = listener.audio + lasts, now - listener.began
    return over


def _job_and_batches(pipeline: Pipeline, slots: int, prompts: Sequence[Prompt], mix: str) -> list[dict[str, Any]]:
    """The same prompts through slots, and in batches that each wait for their longest; codes alone, without a codec."""
    pipeline = dataclasses.replace(pipeline, slots=slots, window=_WINDOW)
    requests, engine = [pipeline.request(prompt) for prompt in prompts], pipeline.engine
    audio = sum(each.params.max_frames for each in prompts if each.modality == "audio") / _FRAME_RATE

    def job(requests) -> None:
        for _ in engine.run(requests):
            pass

    def static(requests) -> None:
        for start in range(0, len(requests), slots):
            batch = [engine.submit(request) for request in requests[start : start + slots]]
            while not all(each.done for each in batch):
                engine.advance()

    job([pipeline.request(prompt) for prompt in _shortened(prompts[: 4 * slots])])
    rows = []
    for side, work in (("job", job), ("static batches", static)):
        steps, made, began = engine.steps, engine.slot_steps, time.perf_counter()
        work(requests)
        seconds, steps, made = time.perf_counter() - began, engine.steps - steps, engine.slot_steps - made
        row = {"side": side, "mix": mix, "slots": slots, "requests": len(requests), "audio_per_second": audio / seconds}
        rows.append(row | {"busy": made / (steps * slots), "steps": steps, "seconds": seconds})
    ours, theirs = rows
    ours |= {"ratio": theirs["seconds"] / ours["seconds"], "ratio_of_steps": theirs["steps"] / ours["steps"]}
    return rows


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "p50": float(np.percentile(values, 50)),
        "p99": float(np.percentile(values, 99)),
    }


def _spread(key: str, heading: str, scale: float) -> Column:
    def cell(row) -> str:
        found = row.get(key)
        form = ",.0f" if scale != 1 else ",.2f"
        return "" if found is None else ", ".join(format(found[name] * scale, form) for name in ("mean", "p50", "p99"))

    return Column(heading, cell)
