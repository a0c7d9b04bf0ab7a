"""What tools/effects.py found, as JSON and as one picture."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ualm_jax.audio.write import write_whole
from ualm_jax.evaluate.soundscript.tally import Share

CURVES = ("loss", "ce", "drift", "margin", "accuracy", "reward", "kl", "log_prob/chosen", "log_prob/rejected")
MEASURES = ("right", "tracks")
AGAINST = (("dpo", "adapted"), ("dpo", "unadapted"), ("dpo", "no-ce"), ("grpo", "dpo"))
RESAMPLED = 10_000


def write_report(folders: Sequence[pathlib.Path], settings: dict[str, Any], arms: Sequence[str]) -> list[pathlib.Path]:
    """effects.json and effects.png, of the seeds' folders; returns both paths."""
    judged = {name: [_judged(folder, name) for folder in folders] for name in ("model", *arms)}
    curves = {name: [_curve(folder / name) for folder in folders] for name in arms}
    found = {
        "settings": settings | {"seeds": len(folders)},
        "obedience": {name: _obedience(seeds, judged["model"]) for name, seeds in judged.items()},
        "differences": {f"{a} - {b}": _differences(judged[a], judged[b]) for a, b in AGAINST},
        "beginnings": {name: [_beginning(curve) for curve in curves[name]] for name in ("dpo", "unadapted", "no-ce")},
        "pairs": [json.loads((folder / "prefer" / "report" / "report.json").read_text()) for folder in folders],
        "cpu_seconds": [json.loads((folder / "seconds.json").read_text()) for folder in folders],
        "curves": curves,
    }
    paths = [pathlib.Path(f"effects.{kind}") for kind in ("json", "png")]
    write_whole({paths[0]: (json.dumps(found, indent=1) + "\n").encode()})
    _draw(found, paths[1])
    return paths


def interval(differences: Float64[np.ndarray, " N"]) -> list[float]:
    """Mean, and the 95 % interval of it when captions are drawn again (percentile bootstrap)."""
    drawn = np.random.default_rng(0).integers(len(differences), size=(RESAMPLED, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    return [float(differences.mean()), float(low), float(high)]


def _judged(folder: pathlib.Path, name: str) -> dict[str, Float64[np.ndarray, " N"]]:
    rows = json.loads((folder / f"judged-{name}.json").read_text())
    return {measure: np.array([row[measure] for row in rows], np.float64) for measure in MEASURES}


def _curve(run: pathlib.Path) -> list[dict[str, float]]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {"step": row["step"]} | {name: row[name] for name in CURVES if name in row} for row in rows if "loss" in row
    ]


def _obedience(seeds: list[dict], base: list[dict]) -> dict[str, Any]:
    right = np.concatenate([seed["right"] for seed in seeds])
    return {
        "right": Share(int(right.sum()), len(right)).to_dict(),
        "tracks": interval(np.concatenate([seed["tracks"] for seed in seeds])),
        "by_seed": [{measure: float(seed[measure].mean()) for measure in MEASURES} for seed in seeds],
        "against_model": _differences(seeds, base),
    }


def _differences(one: list[dict], other: list[dict]) -> dict[str, list[float]]:
    """Caption by caption."""
    return {
        measure: interval(np.concatenate([a[measure] - b[measure] for a, b in zip(one, other, strict=True)]))
        for measure in MEASURES
    }


def _beginning(curve: list[dict[str, float]]) -> dict[str, float]:
    """Of preference learning: its cross-entropy at first, at most and at last, and how far it has drifted."""
    ce, drift = ([row[name] for row in curve] for name in ("ce", "drift"))
    return {
        "first_ce": ce[0],
        "highest_ce": max(ce),
        "last_ce": ce[-1],
        "highest_loss": max(row["loss"] for row in curve),
        "lowest_drift": min(drift),
        "last_drift": drift[-1],
    }


def _draw(found: dict[str, Any], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2)
    _bars(axes[0, 0], found["obedience"])
    _lines(axes[0, 1], found["curves"], ("dpo", "unadapted"), "ce", "nats a position", "Cross-entropy of the chosen")
    _lines(axes[1, 0], found["curves"], ("dpo", "no-ce"), "drift", "nats a position", "Drift of the chosen")
    _lines(axes[1, 1], found["curves"], ("grpo",), "reward", "share of tracks right", "Reward of GRPO")
    figure.savefig(path, dpi=120)


def _bars(axes, obedience: dict[str, Any]) -> None:
    names = list(obedience)
    for offset, measure in ((-0.2, "right"), (0.2, "tracks")):
        each = [obedience[name][measure] for name in names]
        rows = [[one["value"], *one["interval"]] if isinstance(one, dict) else one for one in each]
        value, low, high = np.array(rows).T
        axes.bar(np.arange(len(names)) + offset, value, 0.4, yerr=[value - low, high - value], capsize=3, label=measure)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="share", title="Held-out captions: all right, and share of tracks right", ylim=(0, 1))
    axes.legend()


def _lines(axes, curves: dict[str, Any], names: Sequence[str], metric: str, unit: str, title: str) -> None:
    for number, name in enumerate(names):
        for seed, curve in enumerate(curves[name]):
            rows = [row for row in curve if metric in row]
            label = name if seed == 0 else None
            axes.plot([r["step"] for r in rows], [r[metric] for r in rows], f"C{number}", label=label, alpha=0.8)
    axes.set(xlabel="step", ylabel=unit, title=title)
    axes.legend()
