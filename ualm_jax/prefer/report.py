"""What a build of pairs found: counts and scores as JSON and Markdown, histograms, and examples to hear."""

import io
import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ualm_jax.audio.write import write_sound, write_whole
from ualm_jax.codecs.base import Codec
from ualm_jax.prefer.samples import Answered
from ualm_jax.prefer.select import REASONS, Chosen
from ualm_jax.tokens.tokenizer import Tokenizer


def summary(answered: Sequence[Answered], chosen: Sequence[Chosen], scorers: Sequence[str]) -> dict[str, Any]:
    """Counts and scores, ready for JSON."""
    dropped = Counter(reason for each in chosen for reason in each.dropped)
    dropped["failed"] = sum(each.error is not None for each in answered)
    pairs = [(a, pair) for a, c in zip(answered, chosen, strict=True) for pair in c.pairs]
    scores = {}
    for name in scorers:
        every = [s.scores[name] for a in answered for s in a.samples if s.scores[name] is not None]
        sides = {
            side: [a.samples[getattr(pair, side)].scores[name] for a, pair in pairs] for side in ("chosen", "rejected")
        }
        scores[name] = {side: _moments(values) for side, values in {"all": every, **sides}.items()}
    problems = Counter(s.problem for a in answered for s in a.samples if s.problem is not None)
    return {
        "prompts": len(answered),
        "answers": sum(len(each.samples) for each in answered),
        "pairs": len(pairs),
        "winners": sum(each.winner is not None for each in chosen),
        "dropped": {name: dropped[name] for name in REASONS if dropped[name]},
        "problems": dict(problems.most_common(20)),
        "errors": dict(Counter(each.error for each in answered if each.error is not None).most_common(20)),
        "scores": scores,
    }


def write_report(
    folder: pathlib.Path,
    answered: Sequence[Answered],
    chosen: Sequence[Chosen],
    found: dict[str, Any],
    codec: Codec | None,
    tokenizer: Tokenizer,
    examples: int,
) -> None:
    """report.json, report.md, scores.png and, of the first pairs, both answers: wav files, or texts in the report.

    codec: None for texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = _tables(found)
    shown = [(a, pair) for a, c in zip(answered, chosen, strict=True) for pair in c.pairs[:1]][:examples]
    for asked, pair in shown:
        lines += ["", f"**{asked.id}** {asked.prompt}", ""]
        for side in ("chosen", "rejected"):
            sample = asked.samples[getattr(pair, side)]
            scores = ", ".join(f"{name} {value:.4g}" for name, value in sample.scores.items())
            if codec is None:
                said = tokenizer.decode(sample.content.tolist())
            else:
                said = f"{asked.id}-{side}.wav"
                write_sound(folder / said, codec.decode(sample.content), codec.sample_rate)
            lines.append(f"- {side} ({scores}): {said}")
    write_whole(
        {
            folder / "report.json": (json.dumps(found, indent=1) + "\n").encode(),
            folder / "report.md": ("\n".join(lines) + "\n").encode(),
            folder / "scores.png": _histograms(answered, chosen, list(found["scores"])),
        }
    )


def _tables(found: dict[str, Any]) -> list[str]:
    lines = ["# Pairs", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {found[name]} |" for name in ("prompts", "answers", "pairs", "winners")]
    lines += [f"| dropped: {REASONS[name]} | {count} |" for name, count in found["dropped"].items()]
    lines += ["", "| score | of | mean | least | median | most |", "|---|---|---|---|---|---|"]
    for name, sides in found["scores"].items():
        for side, moments in sides.items():
            if moments:
                values = " | ".join(f"{moments[key]:.4g}" for key in ("mean", "least", "median", "most"))
                lines.append(f"| {name} | {side} ({moments['count']}) | {values} |")
    for kind in ("problems", "errors"):
        lines += ["", *[f"- {count} x {reason}" for reason, count in found[kind].items()]]
    return lines


def _moments(values: Sequence[float]) -> dict[str, int | float] | None:
    if not values:
        return None
    return {
        "count": len(values),
        "mean": float(np.mean(values)),
        "least": float(np.min(values)),
        "median": float(np.median(values)),
        "most": float(np.max(values)),
    }


def _histograms(answered: Sequence[Answered], chosen: Sequence[Chosen], scorers: Sequence[str]) -> bytes:
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    figure = Figure(figsize=(6 * len(scorers), 4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(scorers))), scorers, strict=True):
        every = [s.scores[name] for a in answered for s in a.samples if s.scores[name] is not None]
        if not every:
            axes.set(xlabel=name, title="no scores")
            continue
        bins = np.histogram_bin_edges(every, 40)
        axes.hist(every, bins=bins, color="lightgrey", label=f"all answers ({len(every)})")
        for side, colour in (("chosen", "tab:green"), ("rejected", "tab:red")):
            values = [
                a.samples[getattr(pair, side)].scores[name]
                for a, c in zip(answered, chosen, strict=True)
                for pair in c.pairs
            ]
            axes.hist(values, bins=bins, histtype="step", color=colour, label=f"{side} ({len(values)})")
        axes.set(xlabel=name, ylabel="answers")
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
