"""What tools/proof.py found: one JSON, one table, one picture."""

import collections
import json
import pathlib
from typing import Any

import numpy as np

from ualm_jax.audio.write import write_whole
from ualm_jax.evaluate.soundscript.tally import Share

Shares = dict[str, list[Share]]  # of each seed, by name
EXPECTED = {
    "guidance": "without guidance fewer captions are obeyed, and the best scale lies between the smallest and largest",
    "data": "the fewer the sounds, the higher the loss of held-out ones ends, and the further above that of training",
    "convergence": "understanding comes to nine tenths of its end before generation does",
    "unified": "one model of all tasks is no worse at any of them than a model of that task alone",
    "alignment": "with a stage of alignment first, more of what the model knew of texts is kept",
    "twice": "drawing generation twice as often makes it better",
    "pattern": "codes one after the other, at a step for each, are obeyed no better than by the delay pattern",
}
FAMILIES = ("generation", "understanding", "text")
_LOSSES = ("eval/loss", "loss")
_GAP = 0.1  # nats a frame


def write_report(folder: pathlib.Path, results: pathlib.Path) -> None:
    """proof.json, proof.md and proof.png in `results`, of what stands in FOLDER/found."""
    found = folder / "found"
    measured = {name: MEASURES[name](found / name) for name in EXPECTED if (found / name).is_dir()}
    measured = {name: content for name, content in measured.items() if content}
    content = {
        "settings": json.loads((folder / "settings.json").read_text()),
        "experiments": {name: {"expected": EXPECTED[name], **each} for name, each in measured.items()},
    }
    rows = [f"| {name} | {EXPECTED[name]} | {_told(each)} | {each['agrees']} |" for name, each in measured.items()]
    table = "\n".join(["| | expected | measured | agrees |", "|---|---|---|---|", *rows]) + "\n"
    write_whole(
        {
            results / "proof.json": (json.dumps(content, indent=1) + "\n").encode(),
            results / "proof.md": table.encode(),
        }
    )
    _draw(measured, results / "proof.png")


def _guidance(found: pathlib.Path) -> dict[str, Any]:
    judged = {scale: [seed for seed in _each(scale) if (seed / "report.json").exists()] for scale in _each(found)}
    shares = {float(scale.name): _pooled([_right(seed) for seed in seeds]) for scale, seeds in judged.items()}
    shares = dict(sorted((scale, share) for scale, share in shares.items() if share))
    if len(shares) < 3:
        return {}
    best = max(shares, key=lambda scale: shares[scale].value)
    if best in (min(shares), max(shares)):
        agrees = "no"
    else:
        agrees = _better(shares[best], max(shares[min(shares)], shares[max(shares)], key=lambda share: share.value))
    return {"shares": _told_shares(shares), "best": best, "agrees": agrees}


def _data(found: pathlib.Path) -> dict[str, Any]:
    ends, curves = {}, {}
    for fraction in sorted(_each(found), key=lambda path: int(path.name[2:])):
        name = fraction.name.replace("-", "/")
        curves[name] = [json.loads(path.read_text()) for path in sorted(fraction.glob("*.json"))]
        last = [[[row[loss] for row in curve if loss in row][-1:] for loss in _LOSSES] for curve in curves[name]]
        ends[name] = [(held_out, trained) for (held_out,), (trained,) in last]
    means = [np.mean(each, axis=0) for each in ends.values() if each]
    if len(means) < 2:
        return {}
    held_out, gaps = [mean[0] for mean in means], [mean[0] - mean[1] for mean in means]
    agrees = held_out == sorted(held_out) and gaps[-1] - gaps[0] > _GAP
    return {"ends": ends, "curves": curves, "agrees": _word(agrees)}


def _convergence(found: pathlib.Path) -> dict[str, Any]:
    shares: dict[str, dict[int, list[Share]]] = {family: collections.defaultdict(list) for family in FAMILIES}
    for seed in _each(found):
        for step in _each(seed):
            for family, share in _judged(step).items():
                shares[family][int(step.name)].append(share)
    pooled = {
        family: {step: _pooled(each) for step, each in sorted(by_step.items())} for family, by_step in shares.items()
    }
    if any(len(each) < 2 for each in pooled.values()):
        return {}
    reached = {
        family: min(step for step, share in each.items() if share.value >= 0.9 * list(each.values())[-1].value)
        for family, each in pooled.items()
    }
    told = {family: _told_shares(each) for family, each in pooled.items()}
    return {"shares": told, "reached": reached, "agrees": _word(reached["understanding"] < reached["generation"])}


def _unified(found: pathlib.Path) -> dict[str, Any]:
    shares = _by_name(found)
    if set(shares) != {"all", *FAMILIES}:
        return {}
    pairs = {family: (shares["all"][family], shares[family][family]) for family in FAMILIES}
    worse = [family for family, (one, alone) in pairs.items() if one.interval[1] < alone.interval[0]]
    told = {family: {"unified": one.to_dict(), "alone": alone.to_dict()} for family, (one, alone) in pairs.items()}
    return {"shares": told, "agrees": _word(not worse)}


def _alignment(found: pathlib.Path) -> dict[str, Any]:
    shares = _by_name(found)
    if not {"text", "with", "without"} <= set(shares):
        return {}
    text = {name: each["text"] for name, each in shares.items()}
    return {"shares": _told_shares(text), "agrees": _better(text["with"], text["without"])}


def _twice(found: pathlib.Path) -> dict[str, Any]:
    shares = _by_name(found)
    if set(shares) != {"twice", "once"}:
        return {}
    generation = {name: each["generation"] for name, each in shares.items()}
    return {"shares": _told_shares(generation), "agrees": _better(generation["twice"], generation["once"])}


def _pattern(found: pathlib.Path) -> dict[str, Any]:
    shares = _by_name(found)
    if set(shares) != {"delay", "flattened"}:
        return {}
    generation = {name: each["generation"] for name, each in shares.items()}
    better = generation["flattened"].interval[0] > generation["delay"].interval[1]
    return {"shares": _told_shares(generation), "agrees": _word(not better)}


MEASURES = {
    "guidance": _guidance,
    "data": _data,
    "convergence": _convergence,
    "unified": _unified,
    "alignment": _alignment,
    "twice": _twice,
    "pattern": _pattern,
}


def _each(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _by_name(found: pathlib.Path) -> dict[str, dict[str, Share]]:
    """NAME/SEED/ to the shares of each name by family, seeds together."""
    shares = {}
    for name in _each(found):
        judged = [_judged(seed) for seed in _each(name)]
        families = {family for each in judged for family in each}
        shares[name.name] = {
            family: _pooled([each[family] for each in judged if family in each]) for family in families
        }
    return shares


def _judged(folder: pathlib.Path) -> dict[str, Share]:
    """By family, as far as it was judged. Of generation the kinds of events count: models this small, trained this
    short, hardly get everything right that the benchmark asks for."""
    found = {}
    if (folder / "generation" / "report.json").exists():
        found["generation"] = _right(folder / "generation", "class")
    for family in ("understanding", "text"):
        if (folder / f"{family}.json").exists():
            told = json.loads((folder / f"{family}.json").read_text())["tables"]["all"]
            found[family] = Share(told["right"], told["asked"])
    return found


def _right(folder: pathlib.Path, track: str | None = None) -> Share:
    """Captions that are right on this track; None: on every one."""
    items = json.loads((folder / "report.json").read_text())["items"]
    return Share(sum(item["right"] if track is None else item["tracks"][track] for item in items), len(items))


def _pooled(shares: list[Share]) -> Share | None:
    return Share(sum(each.right for each in shares), sum(each.asked for each in shares)) if shares else None


def _told_shares(shares: dict[Any, Share]) -> dict[str, dict]:
    return {str(name): share.to_dict() for name, share in shares.items()}


def _better(one: Share, other: Share) -> str:
    """Whether one share is larger than the other by more than their intervals."""
    if one.interval[0] > other.interval[1]:
        return "yes"
    return "no" if one.interval[1] < other.interval[0] else "within chance"


def _word(agrees: bool) -> str:
    return "yes" if agrees else "no"


def _told(measured: dict[str, Any]) -> str:
    """A line of the table."""
    if "ends" in measured:
        means = {name: np.mean(each, axis=0) for name, each in measured["ends"].items()}
        return ", ".join(f"{name}: {mean[0]:.2f} held out, {mean[1]:.2f} in training" for name, mean in means.items())
    if "reached" in measured:
        return ", ".join(f"{family} at step {step}" for family, step in measured["reached"].items())

    def told(name: str, share: dict) -> str:
        if "value" not in share:
            return f"{name}: " + " / ".join(f"{key} {each['value']:.0%}" for key, each in share.items())
        low, high = share["interval"]
        return f"{name}: {share['value']:.0%} ({low:.0%} to {high:.0%})"

    return ", ".join(told(name, share) for name, share in measured["shares"].items())


def _draw(measured: dict[str, Any], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    if not measured:
        return
    figure = Figure(figsize=(5 * len(measured), 4), layout="constrained")
    for axes, (name, each) in zip(np.ravel(figure.subplots(1, len(measured))), measured.items(), strict=True):
        axes.set_title(name)
        if name == "data":
            for number, (fraction, curves) in enumerate(each["curves"].items()):
                for seed, curve in enumerate(curves):
                    rows = [row for row in curve if "eval/loss" in row]
                    label = fraction if seed == 0 else None
                    axes.plot([r["step"] for r in rows], [r["eval/loss"] for r in rows], f"C{number}", label=label)
            axes.set(xlabel="step", ylabel="held-out loss")
            axes.legend()
        elif name == "convergence":
            for family, shares in each["shares"].items():
                axes.plot(list(map(int, shares)), [share["value"] for share in shares.values()], label=family)
            axes.set(xlabel="step", ylabel="share right", ylim=(0, 1))
            axes.legend()
        else:
            flat = {
                f"{key} {inner}".strip(): share
                for key, value in each["shares"].items()
                for inner, share in (value.items() if "value" not in value else [("", value)])
            }
            value, low, high = np.array([[s["value"], *s["interval"]] for s in flat.values()]).T
            axes.bar(range(len(flat)), value, yerr=[value - low, high - value], capsize=3)
            axes.set_xticks(range(len(flat)), list(flat), rotation=30, ha="right")
            axes.set(ylabel="share right", ylim=(0, 1))
    figure.savefig(path, dpi=120)
