"""The picture of a benchmark: a panel of bars for every quantity. Needs matplotlib, which nothing else here does."""

import pathlib
from collections.abc import Sequence

from ualm_jax.bench.result import Bars
from ualm_jax.errors import UserError


def draw(title: str, panels: Sequence[Bars], path: pathlib.Path) -> None:
    """Writes a PNG with a panel for each of `panels`. Raises UserError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("--png needs matplotlib, which is not installed: pip install matplotlib.") from error
    tallest = max(len(bars.values) for bars in panels)
    figure = Figure(figsize=(5.0 * len(panels), 1.4 + 0.4 * tallest), layout="constrained")
    figure.suptitle(title, fontsize=9)
    for axes, bars in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        drawn = axes.barh(list(bars.values), list(bars.values.values()))
        axes.bar_label(drawn, fmt="{:,.4g}", padding=3, fontsize=8)
        axes.set_title(bars.title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.2)
    figure.savefig(path, dpi=150)
