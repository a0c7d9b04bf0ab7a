"""A run of the benchmark as JSON and as one HTML page that needs nothing beside it."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from ualm_jax.audio import page
from ualm_jax.data.raw.soundscript import Event
from ualm_jax.data.raw.soundscript.plan import LABELS
from ualm_jax.evaluate.soundscript.benchmark import RATE, Item
from ualm_jax.evaluate.soundscript.judge import TRACKS, Verdict
from ualm_jax.evaluate.soundscript.tally import Share, Tally, confusions


@dataclasses.dataclass(frozen=True)
class Judged:
    """An item, what was heard of it, and whether that is right. wav: 16 kHz."""

    item: Item
    heard: tuple[Event, ...]
    verdict: Verdict
    wav: Float32[np.ndarray, "N"]


def to_json(system: str, tables: dict[str, Tally], judged: Sequence[Judged]) -> dict[str, Any]:
    """system: what was judged, in words. tables: tallies by what they are of."""
    confused = confusions([each.verdict for each in judged])
    return {
        "benchmark": "soundscript-2",
        "system": system,
        "tables": {name: table.to_dict() for name, table in tables.items()},
        "confusions": [[asked, heard, count] for (asked, heard), count in sorted(confused.items())],
        "items": [
            {
                "id": each.item.id,
                "caption": each.item.caption,
                "right": each.verdict.right,
                "tracks": each.verdict.tracks,
                "heard": [describe(event) for event in each.heard],
            }
            for each in judged
        ],
    }


def to_html(system: str, tables: dict[str, Tally], judged: Sequence[Judged], worst: int = 12) -> str:
    """Tables, confusions, and the `worst` examples with picture and player."""
    wrong = [each for each in judged if not each.verdict.right]
    wrong.sort(key=lambda each: (sum(right is not False for right in each.verdict.tracks.values()), each.item.id))
    return _PAGE.format(
        system=html.escape(system),
        shares=_table(["", "all", *TRACKS], [_shares(name, table) for name, table in tables.items()]),
        errors=_table(["", *_ERRORS], [_errors(name, table) for name, table in tables.items()]),
        confusions=_confusions([each.verdict for each in judged]),
        worst="".join(map(_example, wrong[:worst])) or "<p>None is wrong.</p>",
    )


def describe(event: Event) -> str:
    """ "tone at 0.10 s for 0.35 s, 440 Hz, -26 dB"."""
    text = f"{event.label} at {event.start:.2f} s for {event.duration:.2f} s"
    if event.pitch_hz is not None:
        text += f", {event.pitch_hz:.0f} Hz" + (f" to {event.end_pitch_hz:.0f} Hz" if event.end_pitch_hz else "")
    return f"{text}, {event.loudness_db:.0f} dB"


_ERRORS = ("pitch, cents", "duration, ms", "gap, ms")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SoundScript: {system}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; margin: 1em 0 }} td, th {{ padding: .25em .7em; border-bottom: 1px solid #ddd }}
td {{ text-align: right }} td:first-child, th {{ text-align: left }} small {{ color: #777; display: block }}
.example {{ display: grid; grid-template-columns: 26em 1fr; gap: 1em; border-top: 1px solid #ddd; padding: 1em 0 }}
img {{ width: 100%; height: 9em; image-rendering: pixelated }} audio {{ width: 100% }}
</style></head><body>
<h1>SoundScript</h1><p>{system}</p>
<h2>Right, of what was asked</h2><p>Per cent of captions, with 95 % confidence intervals (Wilson).</p>{shares}
<h2>Errors of paired events</h2><p>Median and 90th percentile of the absolute error.</p>{errors}
<h2>Asked for (rows), heard as (columns)</h2>{confusions}
<h2>Worst</h2>{worst}
</body></html>
"""


def _shares(name: str, table: Tally) -> list[str]:
    def cell(share: Share | None) -> str:
        if share is None:
            return ""
        low, high = share.interval
        return f"{100 * share.value:.1f}<small>{100 * low:.1f} to {100 * high:.1f} of {share.asked}</small>"

    return [html.escape(name), cell(table.all), *(cell(table.tracks.get(track)) for track in TRACKS)]


def _errors(name: str, table: Tally) -> list[str]:
    found = [table.errors.get(kind) for kind in _ERRORS]
    return [html.escape(name), *("" if each is None else f"{each[0]:.1f}, {each[1]:.1f}" for each in found)]


def _confusions(verdicts: Sequence[Verdict]) -> str:
    found = confusions(verdicts)
    seen = {name for pair in found for name in pair}
    names = [name for name in (*LABELS, "pink", "nothing") if name in seen]
    rows = [[asked, *(str(found.get((asked, heard), "")) for heard in names)] for asked in names]
    return _table(["", *names], rows)


def _example(each: Judged) -> str:
    tracks = ", ".join(name for name, right in each.verdict.tracks.items() if right is False)
    heard = "".join(f"<li>{html.escape(describe(event))}</li>" for event in each.heard) or "<li>nothing</li>"
    picture = ""
    if len(each.wav):
        picture = page.picture(each.wav, RATE) + page.player(each.wav, RATE)
    caption = html.escape(each.item.caption)
    return (
        f'<div class="example"><div><b>{caption}</b><small>{each.item.id}; wrong: {tracks}</small>'
        f"Heard:<ul>{heard}</ul></div><div>{picture}</div></div>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
