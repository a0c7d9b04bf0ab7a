"""The decoder of a model's codec learns to make sound of the codes that the model writes (docs/codec.md).

python tools/own_codes.py --model soundscript --sounds sounds/hard --out own-codes

The codes that a model writes are not quite those of any sound. What it meant is known all the same where a caption of
SoundScript was obeyed in number and time: that caption's scene, in which what the caption leaves open is as it was
heard. Half of each batch are such codes and scenes, half the sounds of a folder and their own codes. Encoder and
codebooks stay as they are. OUT becomes a codec, whose decoder is the mean of that before and that after: it keeps what
true codes sounded like (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from demo import say
from jaxtyping import Array, Float, Int

import ualm_jax
from ualm_jax.audio.io import read_audio
from ualm_jax.cli.arguments import Parser, input_directory, integer, output_directory
from ualm_jax.codecs import losses
from ualm_jax.codecs.base import Codec
from ualm_jax.codecs.xcodec.rvq import dequantize
from ualm_jax.codecs.xcodec.trainable import SMALLEST_ALPHA, Trainable
from ualm_jax.codecs.xcodec.weights import read_directory, save_directory
from ualm_jax.data.raw.soundscript import Event, Scene, SoundScript2, render
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript import hear
from ualm_jax.evaluate.soundscript.claims import claims_of
from ualm_jax.evaluate.soundscript.judge import Claim
from ualm_jax.outputs import check_new_folder
from ualm_jax.weights.opener import open_weights

FRAMES, ROWS = 24, 8  # of a crop; crops of each half of a batch
WINDOWS = (2048, 512, 128, 32)
LATE, EXACT = 0.06, 0.012  # seconds that an event may be off at all, and be taken as on time
KINDS = {"buzz": 0.45, "pluck": 0.2, "at once": 0.1, "any": 0.25}  # of the captions, by what is in them

Pair = tuple[Int[np.ndarray, "T Q"], Float[np.ndarray, "N"]]
"""Codes, and the sound that shall come of them, as long."""


def main() -> None:
    parser = Parser("own_codes.py", description=__doc__)
    parser.add_argument("--model", required=True, help="whose codes and codec: a run, a converted checkpoint, a name")
    parser.add_argument("--sounds", type=input_directory, required=True, help="folder of WAVs")
    parser.add_argument("--out", type=output_directory, required=True, help="folder to make, of the codec")
    parser.add_argument("--captions", type=integer(at_least=4), default=1500, help="that the model answers (1500)")
    parser.add_argument("--steps", type=integer(at_least=100), default=3500, help="of training (3500)")
    args = parser.parse_args()
    try:
        out = check_new_folder(args.out)
        model = ualm_jax.load(args.model, slots=32)
        meant = list(own_pairs(model, args.captions))
        say(f"{len(meant)} of {args.captions} captions were obeyed in number and time")
        pools = [list(true_pairs(model.codec, sorted(args.sounds.glob("*.wav")))), meant]
        train(open_weights(args.model).parts["codec"], pools, args.steps, out)
    except UserError as error:
        sys.exit(f"own_codes.py: {error}")


def own_pairs(model: Any, count: int, seed: int = 0) -> Iterator[Pair]:
    """The codes that `model` writes for captions, and the scenes that it meant."""
    source = SoundScript2(2**31, seed)
    chosen = [source.script(index) for index in _rich(source, count)]
    chosen.sort(key=lambda script: script.scene.seconds)  # those of one length are made side by side
    settings = {"temperature": 0.3, "cfg_scale": 1.2}  # as the model in the box is used
    for first in range(0, len(chosen), 64):
        scripts = chosen[first : first + 64]
        clips = model.generate([script.caption for script in scripts], seed=first, **settings)
        for index, (script, clip) in enumerate(zip(scripts, clips, strict=True)):
            scene = meant(script.scene.events, claims_of(script.plan), hear(clip.samples))
            if scene is not None:
                seconds = max(event.end for event in scene) + len(clip.samples) / clip.rate
                wav = render(Scene(seconds, scene, noise_seed=first + index), clip.rate)
                yield clip.codes, wav[: len(clip.samples)].astype(np.float32)


def _rich(source: SoundScript2, count: int) -> list[int]:
    """Indices of captions in the shares of KINDS, each under the first kind that has room."""
    room, found, index = {kind: math.ceil(count * share) for kind, share in KINDS.items()}, [], -1
    while len(found) < count:
        index += 1
        events = source.script(index).scene.events
        holds = {
            "buzz": any(event.kind == "buzz" and event.pitch_hz > 380 for event in events),
            "at once": any(after.start < before.end for before, after in zip(events, events[1:], strict=False)),
            "pluck": any(event.kind == "pluck" for event in events),
            "any": True,
        }
        kind = next((kind for kind, held in holds.items() if held and room[kind]), None)
        if kind is not None:
            room[kind] -= 1
            found.append(index)
    return found


def meant(wanted: Sequence[Event], claims: Sequence[Claim], heard: Sequence[Event]) -> tuple[Event, ...] | None:
    """`wanted` with what its caption leaves open as it was `heard`; None where number, times or notes are others."""
    if len(heard) != len(wanted):
        return None
    events = []
    for event, claim, found in zip(wanted, claims, heard, strict=True):
        if abs(found.start - event.start) > LATE:
            return None
        start = event.start if abs(found.start - event.start) < EXACT else found.start
        pitch, end_pitch = event.pitch_hz, event.end_pitch_hz
        if pitch is not None:
            if found.pitch_hz is None or (end_pitch is None) != (found.end_pitch_hz is None):
                return None
            if claim.pitch_hz is None or claim.pitch_hz[0] < claim.pitch_hz[1]:
                # Notes are exact; where a sweep begins and ends is drawn from all frequencies.
                near = 440 * 2 ** (round(12 * math.log2(found.pitch_hz / 440)) / 12)
                pitch, end_pitch = (near, None) if end_pitch is None else (found.pitch_hz, found.end_pitch_hz)
            if abs(1200 * math.log2(found.pitch_hz / pitch)) > 50:
                return None
        events.append(dataclasses.replace(event, start=start, pitch_hz=pitch, end_pitch_hz=end_pitch))
    return tuple(events)


def true_pairs(codec: Codec, files: Sequence[pathlib.Path]) -> Iterator[Pair]:
    for file in files:
        wav = read_audio(file, sample_rate=codec.sample_rate)
        wav = wav[: len(wav) // codec.hop * codec.hop]
        yield np.asarray(codec.encode(wav)), wav


def train(given: pathlib.Path, pools: Sequence[Sequence[Pair]], steps: int, out: pathlib.Path) -> None:
    """Adam with a rate that rises to 6e-4 and falls along a cosine, and a moving average of what it learns.

    pools: true pairs, of which the waveform counts too, and the model's own, of which spectra alone do.
    Raises UserError where a pool holds nothing of FRAMES frames.
    """
    config, params = read_directory(given)
    hop, trainable, draws = config.hop, Trainable(config, linear_ends=True), np.random.default_rng(0)
    pools = [[pair for pair in pool if len(pair[0]) >= FRAMES] for pool in pools]
    if not all(pools):
        raise UserError(f"there is no sound of {FRAMES} frames to learn from, of the folder or of the model")
    narrowed, codebooks = trainable.narrowed(params), jnp.asarray(params["codebooks"])
    decoder = {name: narrowed[name] for name in ("acoustic_decoder", "fc2")}

    def crop(pool: Sequence[Pair]) -> Pair:
        codes, wav = pool[draws.integers(len(pool))]
        first = int(draws.integers(len(codes) - FRAMES + 1))
        return codes[first : first + FRAMES], wav[first * hop : (first + FRAMES) * hop]

    def cost(decoder: Any, codes: Int[Array, "B T Q"], wav: Float[Array, "B N"]) -> Float[Array, ""]:
        made, total = trainable.waveform(narrowed | decoder, dequantize(codebooks, codes)), 0.0
        for rows in (slice(0, ROWS), slice(ROWS, None)):
            linear, log, silent = losses.spectral(made[rows], wav[rows], WINDOWS, config.sample_rate)
            total += linear + 5.0 * log + silent
        absolute, squared = losses.waveform(made[:ROWS], wav[:ROWS])
        return total + 0.1 * absolute + 0.05 * squared + 0.2 * losses.phase(made[:ROWS], wav[:ROWS], WINDOWS)

    rate = optax.warmup_cosine_decay_schedule(0.0, 6e-4, min(50, steps // 2), steps, 1e-5)
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(rate, b2=0.99))

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, codes: Array, wav: Array) -> tuple[Any, Array]:
        decoder, moments, average = state
        value, gradient = jax.value_and_grad(cost)(decoder, codes, wav)
        updates, moments = optimizer.update(gradient, moments)
        decoder = optax.apply_updates(decoder, updates)
        decoder = trainable.with_alphas(
            decoder, lambda alpha: jnp.copysign(jnp.maximum(jnp.abs(alpha), SMALLEST_ALPHA), alpha)
        )
        return (decoder, moments, optax.incremental_update(decoder, average, 0.01)), value

    state = jax.tree.map(jnp.array, (decoder, optimizer.init(decoder), decoder))
    for number in range(1, steps + 1):
        codes, wavs = zip(*(crop(pool) for pool in pools for _ in range(ROWS)), strict=True)
        state, value = step(state, np.stack(codes), np.stack(wavs))
        if number % 250 == 0 or number == steps:
            say(f"step {number}/{steps}  loss {float(value):.3f}")
    mean = jax.tree.map(lambda before, after: (before + after) / 2, decoder, state[2])
    learnt = trainable.widened(jax.device_get(narrowed | mean), params["codebooks"])
    beside = out.with_name(f".{out.name}.partial")
    save_directory(learnt, config, beside)
    beside.rename(out)


if __name__ == "__main__":
    main()
