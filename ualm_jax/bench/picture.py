"""The picture of a benchmark: a panel of bars for every quantity. Needs matplotlib, which nothing else here does."""

import pathlib

from ualm_jax.bench.result import BenchResult
from ualm_jax.errors import UserError


def draw(result: BenchResult, path: pathlib.Path) -> None:
    """Writes a PNG. Raises UserError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UserError("--png needs matplotlib, which is not installed: pip install matplotlib.") from error
    tallest = max(len(bars.values) for bars in result.bars)
    figure = Figure(figsize=(5.0 * len(result.bars), 1.4 + 0.4 * tallest), layout="constrained")
    figure.suptitle(result.title, fontsize=9)
    for axes, bars in zip(figure.subplots(1, len(result.bars), squeeze=False)[0], result.bars, strict=True):
        drawn = axes.barh(list(bars.values), list(bars.values.values()))
        axes.bar_label(drawn, fmt="{:,.4g}", padding=3, fontsize=8)
        axes.set_title(bars.title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.2)
    figure.savefig(path, dpi=150)
