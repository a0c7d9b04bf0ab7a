"""Draws the loss curve of a training run.

python tools/plot_run.py runs/tiny loss.png
"""

import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from ualm_jax.cli.arguments import Parser, input_directory, output_file
from ualm_jax.errors import UserError
from ualm_jax.train.metrics import read_metrics


def plot_run(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Loss (left) and accuracy of each stream (right) over steps, from metrics.jsonl.

    Raises UserError where no step has a loss.
    """
    path = workdir / "metrics.jsonl"
    found = read_metrics(path)
    rows = [row for row in found if "loss" in row]
    if not rows:
        raise UserError(f"{path}: expected steps with their loss, found none in {len(found)} steps; train on first.")
    steps = [row["step"] for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(steps, [row["loss"] for row in rows], label="training")
    held_out = [row for row in found if "eval/loss" in row]
    if held_out:
        left.plot([row["step"] for row in held_out], [row["eval/loss"] for row in held_out], "o-", label="held out")
        left.legend()
    left.set(xlabel="step", ylabel="loss (nats per position)", title="Loss")
    streams = sum(name.startswith("accuracy/") for name in rows[0])
    for stream in range(streams):
        values = [row[f"accuracy/stream_{stream}"] for row in rows]
        right.plot(steps, values, label=f"stream {stream}")
    right.set(xlabel="step", ylabel="share of tokens predicted right", title="Accuracy", ylim=(0, None))
    if streams:
        right.legend(fontsize="small", ncols=2)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = Parser("plot_run.py", description=__doc__)
    parser.add_argument("workdir", type=input_directory, metavar="WORKDIR", help="of `ualm train`")
    parser.add_argument("out", type=output_file(".png"), metavar="FILE.png", help="the picture to make")
    args = parser.parse_args()
    if not (args.workdir / "metrics.jsonl").is_file():
        parser.error(f"{args.workdir} has no metrics.jsonl: expected the --workdir of `ualm train`")
    try:
        plot_run(args.workdir, args.out)
    except UserError as error:
        sys.exit(f"plot_run.py: {error}")
