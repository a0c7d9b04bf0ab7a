"""What a device can do: the matrix product and the copy that every other figure is compared with."""

import argparse
from typing import Any

import jax

from ualm_jax.bench import machine
from ualm_jax.bench.result import Bars, BenchResult, number, text
from ualm_jax.errors import UserError
from ualm_jax.models.config import DTYPES
from ualm_jax.parallel.hardware import peak_of
from ualm_jax.parallel.startup import start


def run(args: argparse.Namespace) -> BenchResult:
    """A row per dtype: operations and bytes per second of one device, measured, beside its maker's figures."""
    start(keep_programs=False)
    device = jax.devices()[0]
    try:
        peak = peak_of(device.device_kind)
    except UserError:
        peak = None
    rows: list[dict[str, Any]] = []
    for dtype in DTYPES:
        row = {"dtype": dtype, "flops_per_second": machine.matmul_flops(dtype)}
        row["bytes_per_second"] = machine.copy_bandwidth(dtype)
        if peak is not None:
            row["of_bandwidth"] = row["bytes_per_second"] / peak.memory_bandwidth
            row["of_peak"] = row["flops_per_second"] / peak.flops if dtype == "bfloat16" else None
        rows.append(row)
    return BenchResult(
        title=f"one {device.device_kind}: the best square matrix product and the best copy",
        columns=(
            text("dtype", "dtype"),
            number("flops_per_second", "matmul TFLOP/s", ",.2f", 1e-12),
            number("of_peak", "of peak", ".1%"),
            number("bytes_per_second", "copy GB/s", ",.1f", 1e-9),
            number("of_bandwidth", "of its bandwidth", ".1%"),
        ),
        rows=rows,
        notes=("copy: bytes read and written; the maker's figures are in ualm_jax/parallel/hardware.py",),
        bars=(
            Bars("matmul, TFLOP/s", {row["dtype"]: row["flops_per_second"] / 1e12 for row in rows}),
            Bars("copy, GB/s", {row["dtype"]: row["bytes_per_second"] / 1e9 for row in rows}),
        ),
    )
