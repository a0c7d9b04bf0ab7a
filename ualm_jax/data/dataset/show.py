"""Datasets and batches for the eye: tables, token grids in colour, pictures of lengths and of packed rows."""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from rich.table import Table
from rich.text import Text

from ualm_jax.data.dataset.folder import DatasetInfo
from ualm_jax.tokens.types import Batch, TokenGrid
from ualm_jax.tokens.vocabulary import NUM_SPECIAL, Vocabulary

_NOT_LEARNT, _PARTLY, _LEARNT = "dim cyan", "yellow", "bold green"  # weight 0, between, 1
_PADDING, _TEXT, _CODES, _HEARD = (255, 255, 255), (70, 110, 190), (235, 140, 50), (60, 160, 90)


def overview(infos: Sequence[DatasetInfo], positions: Sequence[int]) -> Table:
    """One line a dataset; `positions` are those of their token grids, with encoder frames."""
    table = Table(title="Datasets")
    for name in ("dataset", "records", "target h", "input h", "text ids", "positions", "share", "left out"):
        table.add_column(name, justify="left" if name == "dataset" else "right", overflow="fold")
    for info, count in zip(infos, positions, strict=True):
        hours = f"{info.audio_hours:.3f}", f"{info.heard_hours:.3f}"
        counts = f"{info.records:,}", *hours, f"{info.text_tokens:,}", f"{count:,}"
        table.add_row(info.name, *counts, f"{count / sum(positions):.1%}", f"{info.quarantined:,}")
    return table


def grid_in_colour(grid: TokenGrid, vocabulary: Vocabulary, width: int) -> Text:
    """Streams as lines, time to the right, `width` columns at a time; the colour is the loss weight.

    < a special token, t text, # a code, - a codec pad, ~ a frame that is heard, . nothing.
    """
    heard = np.zeros(len(grid.tokens), bool)
    for clip in grid.clips:
        heard[clip.start : clip.start + clip.length] = True
    text = Text()
    tokens, weights, heard = grid.tokens.tolist(), grid.loss_weights.tolist(), heard.tolist()
    for start in range(0, len(grid.tokens), width):
        for stream in range(vocabulary.num_streams):
            for time in range(start, min(start + width, len(grid.tokens))):
                weight = weights[time][stream]
                style = _NOT_LEARNT if weight == 0 else _LEARNT if weight == 1 else _PARTLY
                text.append(_symbol(tokens[time][stream], vocabulary, heard[time] and stream == 0), style)
            text.append("\n")
        text.append("\n")
    return text


def _symbol(token: int, vocabulary: Vocabulary, heard: bool) -> str:
    if token == 0:
        return "~" if heard else "."
    if token < NUM_SPECIAL:
        return "<"
    if token < vocabulary.audio_start:
        return "t"
    return "#" if (token - vocabulary.audio_start) % vocabulary.stream_size else "-"


def legend() -> Text:
    words = [("learnt fully", _LEARNT), ("learnt in part", _PARTLY), ("not learnt", _NOT_LEARNT)]
    text = Text("< special  t text  # code  - codec pad  ~ audio input  . nothing;  ")
    for word, style in words:
        text.append(word, style).append("  ")
    return text


def save_lengths_png(path: str | os.PathLike, lengths: dict[str, Int[np.ndarray, "_"]]) -> None:
    """Histogram of conversation lengths in positions, one curve a dataset."""
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    longest = max(int(values.max()) for values in lengths.values())
    bins = np.linspace(0, longest + 1, min(longest + 1, 60) + 1)
    for name, values in lengths.items():
        label = f"{name}: median {np.median(values):.0f}, longest {values.max()}"
        axes.hist(values, bins=bins, histtype="stepfilled", alpha=0.5, label=label)
    axes.set(xlabel="positions of a conversation", ylabel="conversations", title="Lengths")
    axes.legend()
    figure.savefig(path, format="png", dpi=100)


def save_batch_png(path: str | os.PathLike, batch: Batch, vocabulary: Vocabulary) -> None:
    """Every row of a batch as a band: what stands where, one conversation lighter and the next darker."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    first, segments = batch.tokens[:, :, 0], batch.segment_ids
    pixels = np.empty((*segments.shape, 3), np.float64)
    pixels[:] = _TEXT
    pixels[first >= vocabulary.audio_start] = _CODES
    if batch.feature_index is not None:
        pixels[batch.feature_index >= 0] = _HEARD
    pixels[segments % 2 == 0] *= 0.75
    pixels[segments == 0] = _PADDING
    figure = Figure(figsize=(12, 1.2 + 0.3 * len(segments)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(pixels / 255, aspect="auto", interpolation="nearest")
    filled, packed = (segments > 0).mean(), segments.max(axis=1).mean()
    title = f"{len(segments)} rows of {segments.shape[1]}: {filled:.1%} filled, {packed:.1f} conversations a row"
    axes.set(xlabel="position", ylabel="row", title=title, yticks=range(len(segments)))
    kinds = {"text": _TEXT, "codes": _CODES, "audio input": _HEARD, "padding": _PADDING}
    handles = [Patch(facecolor=np.array(colour) / 255, edgecolor="grey", label=name) for name, colour in kinds.items()]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, format="png", dpi=100)
