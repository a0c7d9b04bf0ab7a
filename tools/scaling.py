"""How bytes on the wire, memory and predicted time grow with the mesh: a table and a plot.

The work grows with the mesh, one row of 4 096 positions per chip. TPU slices are compiled ahead of time, so their
times are predictions; meshes of virtual CPU devices (a tiny model, two rows each) show that the same programs' bytes
grow alike, and say nothing of time.

  python tools/scaling.py --json docs/results/scaling.json --png docs/scaling.png
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from ualm_jax.cli.arguments import Parser, output_file

ROOT = pathlib.Path(__file__).parents[1]
SLICES = {16: "v5p:2x2x4", 64: "v5p:4x4x4", 256: "v5p:4x8x8", 512: "v5p:8x8x8"}
MODELS = {"1.5B": ("configs/pretrain_1_5b.py", 8), "7B": ("configs/pretrain_7b.py", 16)}  # file, fsdp
VIRTUAL = (1, 2, 4, 8)


def main() -> None:
    parser = Parser("scaling.py", description=__doc__)
    parser.add_argument("--json", type=output_file(".json"), required=True, metavar="FILE")
    parser.add_argument("--png", type=output_file(".png"), required=True, metavar="FILE")
    args = parser.parse_args()
    rows = [row for devices in VIRTUAL for row in compiled("tiny", "configs/tiny.py", devices, None, devices, 2)]
    for name, (config, fsdp) in MODELS.items():
        for chips, topology in SLICES.items():
            rows += compiled(name, config, chips, topology, fsdp, 1)
    args.json.write_text(json.dumps({"kind": "predicted: compiled ahead of time, not run", "rows": rows}, indent=1))
    print_table(rows)
    plot([row for row in rows if "step_ms" in row], args.png)


def compiled(name: str, config: str, devices: int, topology: str | None, fsdp: int, rows_each: int) -> list[dict]:
    """What `ualm compile` reports, per device and token; a process each, for compilers do not share one."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "report.json"
        words = ["--config", config, "--topology", topology or f"cpu:{devices}", "--json", str(out)]
        words += [f"--config.mesh.fsdp={fsdp}", f"--config.data.batch_size={rows_each * devices}"]
        program = "import sys; from ualm_jax.cli.main import run; sys.exit(run(sys.argv[1:]))"
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", program, "compile", *words]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        (report,) = json.loads(out.read_text())
    tokens = rows_each * report["length"]
    row: dict[str, Any] = {
        "model": name,
        "devices": devices,
        "topology": report["topology"],
        "mesh": report["mesh"],
        "memory_gib": (report["memory"]["arguments"] + report["memory"]["temporaries"]) / 2**30,
        "bytes_per_token": {kind: found["bytes"] / tokens for kind, found in report["collectives"].items()},
        "compile_seconds": report["compile_seconds"],
    }
    if report["roofline"] is not None:
        roof = report["roofline"]
        row |= {part + "_ms": 1e3 * roof[part] for part in ("compute", "memory", "network", "bound", "serial")}
        row |= {"step_ms": 1e3 * roof["serial"], "limit": roof["limit"], "mfu": roof["mfu_at_serial"]}
    print(json.dumps(row), flush=True)
    return [row]


def print_table(rows: list[dict[str, Any]]) -> None:
    """As docs/performance.md shows it."""
    print("| model | devices | data x fsdp | GiB | KB sent per token | compute, memory, network ms | limit | MFU |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        sent = sum(row["bytes_per_token"].values()) / 1e3
        times = ", ".join(f"{row[part]:.0f}" for part in ("compute_ms", "memory_ms", "network_ms") if part in row)
        mfu = f"{row['mfu']:.0%}" if "mfu" in row else ""
        mesh = f"{row['mesh']['data']} x {row['mesh']['fsdp']}"
        cells = (row["model"], row["devices"], mesh, f"{row['memory_gib']:.3g}", f"{sent:.0f}", times)
        print("|", *(f"{cell} |" for cell in (*cells, row.get("limit", ""), mfu)))


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    for color, model in zip(("C0", "C1"), MODELS, strict=True):
        mine = [row for row in rows if row["model"] == model]
        chips = [row["devices"] for row in mine]
        axes[0].plot(
            chips, [sum(row["bytes_per_token"].values()) / 1e3 for row in mine], "o-", color=color, label=model
        )
        axes[1].plot(chips, [row["memory_gib"] for row in mine], "o-", color=color, label=model)
        axes[2].plot(chips, [row["serial_ms"] for row in mine], "o-", color=color, label=f"{model}, nothing overlaps")
        axes[2].plot(chips, [row["bound_ms"] for row in mine], "o--", color=color, label=f"{model}, all overlaps")
    labels = (
        "KB sent by a chip per token of its own",
        "GiB of a chip, arguments and temporaries",
        "predicted ms per step",
    )
    for axis, label in zip(axes, labels, strict=True):
        axis.set(xscale="log", xlabel="v5p chips, a row of 4 096 each", ylabel=label, ylim=(0, None))
        axis.set_xticks(list(SLICES), [str(chips) for chips in SLICES])
        axis.minorticks_off()
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
