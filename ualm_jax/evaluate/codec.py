"""What a codec keeps of sounds: measures at a growing number of codebooks, and a page to listen to."""

import dataclasses
import html
import os
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from ualm_jax.audio.page import picture, player
from ualm_jax.codecs.xcodec.config import bandwidths
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.errors import UserError
from ualm_jax.evaluate import pictures
from ualm_jax.evaluate.audio_metrics import codebook_use, log_spectral_distance, mel_distance, si_sdr

METRICS = ("si_sdr", "log_spectral_distance", "mel_distance")


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measures of one codec: means over the sounds by number of codebooks, and how much of each codebook is used.

    metrics: number of codebooks -> METRICS, si_sdr the median in dB over sounds that are not silent.
    use, perplexity: of each codebook, over all frames. seconds: of sound.
    """

    metrics: dict[int, dict[str, float]]
    use: tuple[float, ...]
    perplexity: tuple[float, ...]
    seconds: float


def with_codebooks(codec: XCodec, number: int) -> XCodec:
    """The same codec with its first `number` codebooks alone."""
    config = dataclasses.replace(
        codec.config, target_bandwidths=bandwidths(number, codec.config.codebook_size, codec.hop, codec.sample_rate)
    )
    quantizer = {name: codec.params[name] for name in ("codebooks", "projections") if name in codec.params}
    return XCodec(config, codec.params | jax.tree.map(lambda leaf: leaf[:number], quantizer))


def numbers_of(codec: XCodec) -> list[int]:
    """1, 2, 4, ... codebooks, and all of them."""
    most = len(codec.codebook_sizes)
    return sorted({2**i for i in range(most.bit_length()) if 2**i < most} | {most})


def decoded(
    codec: XCodec, wavs: Sequence[Float[np.ndarray, " _"]]
) -> tuple[list[Int[np.ndarray, "_ Q"]], dict[int, list[Float[np.ndarray, " _"]]]]:
    """Codes of sounds, and what they decode to with so many codebooks; as long as the sounds."""
    whole = [np.pad(wav, (0, -len(wav) % codec.hop)) for wav in wavs]
    codes = codec.encode_batch(whole)
    made = {}
    for number in numbers_of(codec):
        fewer = with_codebooks(codec, number)
        parts = fewer.decode_batch([np.ascontiguousarray(each[:, :number]) for each in codes])
        made[number] = [part[: len(wav)] for part, wav in zip(parts, wavs, strict=True)]
    return codes, made


def measure(
    codec: XCodec,
    wavs: Sequence[Float[np.ndarray, " _"]],
    codes: Sequence[Int[np.ndarray, "_ Q"]],
    made: dict[int, list[Float[np.ndarray, " _"]]],
) -> Measured:
    """The measures of what `decoded` gave. Raises UserError where all sounds are silent."""
    if not any(np.ptp(wav) for wav in wavs):
        raise UserError("the sounds are silent: there is nothing that a codec could keep of them.")
    metrics = {}
    for number, parts in made.items():
        pairs = list(zip(parts, wavs, strict=True))
        metrics[number] = {
            "si_sdr": float(np.nanmedian([si_sdr(a, b) for a, b in pairs])),
            "log_spectral_distance": float(np.mean([log_spectral_distance(a, b) for a, b in pairs])),
            "mel_distance": float(np.mean([mel_distance(a, b, codec.sample_rate) for a, b in pairs])),
        }
    use, perplexity = codebook_use(np.concatenate(codes), codec.codebook_sizes[0])
    seconds = sum(map(len, wavs)) / codec.sample_rate
    return Measured(metrics, tuple(use.tolist()), tuple(perplexity.tolist()), seconds)


def draw(
    path: str | os.PathLike,
    codec: XCodec,
    wavs: Sequence[Float[np.ndarray, " _"]],
    made: dict[int, list[Float[np.ndarray, " _"]]],
) -> None:
    """A picture of spectrograms: of each sound, and of what `decoded` gave of it, from few codebooks to all."""
    sounds = [
        {"original": wav} | {f"{number} codebooks": parts[index] for number, parts in made.items()}
        for index, wav in enumerate(wavs)
    ]
    pictures.draw(path, sounds, codec.sample_rate)


def page(
    title: str,
    measured: Measured,
    codec: XCodec,
    wavs: Sequence[Float[np.ndarray, " _"]],
    made: dict[int, list[Float[np.ndarray, " _"]]],
    names: Sequence[str],
    extra: Sequence[tuple[str, str]] = (),
) -> str:
    """A self-contained HTML page: the measures, and of each sound named the original and what was decoded of it.

    extra: further lines of the summary, as (what, value).
    """
    numbers = list(made)
    head = "".join(f"<th>{number} codebooks</th>" for number in numbers)
    rows = "".join(
        f"<tr><td>{metric.replace('_', ' ')}</td>"
        + "".join(f"<td>{measured.metrics[number][metric]:.3f}</td>" for number in numbers)
        + "</tr>"
        for metric in METRICS
    )
    books = "".join(
        f"<tr><td>{q + 1}</td><td>{share:.0%}</td><td>{perplexity:.1f}</td></tr>"
        for q, (share, perplexity) in enumerate(zip(measured.use, measured.perplexity, strict=True))
    )
    summary = "".join(f"<p>{html.escape(what)}: {html.escape(value)}</p>" for what, value in extra)
    examples = "".join(
        f"<h3>{html.escape(name)}</h3><div class=row>{_example('original', wavs[i], codec.sample_rate)}"
        + "".join(_example(f"{number} codebooks", made[number][i], codec.sample_rate) for number in numbers)
        + "</div>"
        for i, name in enumerate(names)
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p>{measured.seconds:.0f} seconds of sound. SI-SDR in dB (median); log-spectral "
        "distance of log10 power, windows of 2048 samples; mel distance summed over seven resolutions.</p>"
        f"{summary}<table><tr><th></th>{head}</tr>{rows}</table>"
        f"<table><tr><th>codebook</th><th>codes used</th><th>perplexity</th></tr>{books}</table>{examples}"
    )


_STYLE = (
    "body{font:15px sans-serif;margin:2em auto;max-width:70em}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #bbb;padding:.3em .7em;text-align:right}.row{display:flex;flex-wrap:wrap;gap:1em}"
    "figure{margin:0}audio{width:16em;display:block}img{width:16em;height:7em;image-rendering:auto;display:block}"
)


def _example(label: str, wav: np.ndarray, sample_rate: int) -> str:
    return (
        f"<figure><figcaption>{html.escape(label)}</figcaption>"
        f"{picture(wav, sample_rate)}{player(wav, sample_rate)}</figure>"
    )
