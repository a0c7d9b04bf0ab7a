"""Reports for people."""

from rich.table import Table

from ualm_jax.aot.compile import Report
from ualm_jax.models.flops import FORMULA

_GIB = 2**30


def report_table(report: Report) -> Table:
    """Everything one compilation showed."""
    mesh = " ".join(f"{axis}={size}" for axis, size in report.mesh.items())
    title = f"{report.topology}  {mesh}  {report.rows} rows x {report.length}, remat {report.remat}"
    title += ", products of 8 bits, for which no time is predicted" * (report.layer_products == "fp8")
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_row("parameters", f"{report.params:,}")
    if report.grad_accum_steps > 1:
        table.add_row("microbatches per step", str(report.grad_accum_steps))
    for kind, size in report.memory.items():
        table.add_row(f"memory per device: {kind}", _memory(size))
    if report.memory_limit is not None:
        table.add_row("memory of a device", f"{report.memory_limit / _GIB:.2f} GiB")
        table.add_row("fits", "yes" if report.problem is None else f"no: {report.problem}")
    for kind, found in report.collectives.items():
        table.add_row(f"{kind} per step", f"{found['count']:,.0f} times, {_sent(found['bytes'])} sent by a device")
    parts = ", ".join(f"{name} {_operations(report.flops[name])}" for name in ("layers", "heads", "attention"))
    table.add_row("operations per step", f"{_operations(report.flops['total'])} ({parts})")
    if report.roofline is not None:
        roof = report.roofline
        table.add_row(
            "time per step, predicted",
            f"at least {1e3 * roof.bound:.1f} ms ({roof.limit}); compute {1e3 * roof.compute:.1f}, memory "
            f"{1e3 * roof.memory:.1f}, network {1e3 * roof.network:.1f}; {1e3 * roof.serial:.1f} if nothing overlaps",
        )
        table.add_row("MFU at that bound", f"{roof.mfu(roof.bound):.1%} ({roof.mfu(roof.serial):.1%})")
    table.add_row("compiled in", f"{report.compile_seconds:.1f} s")
    table.caption = f"{FORMULA}; documents in a row: {report.documents}"
    return table


def _memory(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 8 else f"{size / 2**20:.2f} MiB"


def _operations(count: float) -> str:
    return f"{count / 1e12:,.1f} TFLOP" if count >= 1e12 else f"{count / 1e9:.1f} GFLOP"


def _sent(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def sweep_table(reports: list[Report]) -> Table:
    """One line per attempt, the fastest that fits first."""
    caption = (
        "parts: microbatches per step; GiB: peak per device; bound, serial: ms per step if all overlaps, if nothing"
    )
    table = Table(
        title=f"{reports[0].topology}, {reports[0].rows} rows x {reports[0].length}",
        title_justify="left",
        caption=caption,
    )
    columns = "data fsdp tensor parts remat GiB bound serial limit MFU"
    for column in columns.split():
        table.add_column(column, justify="left" if column in ("remat", "limit") else "right")

    def order(report: Report) -> tuple:
        return (report.problem is not None, report.roofline.serial if report.roofline else 0.0)

    for report in sorted(reports, key=order):
        roof, fits = report.roofline, report.problem is None
        cells = [*map(str, report.mesh.values()), str(report.grad_accum_steps), report.remat]
        cells.append(f"{report.memory['peak'] / _GIB:.2f}" if report.memory else "")
        if fits:
            cells += [f"{1e3 * roof.bound:.1f}", f"{1e3 * roof.serial:.1f}", roof.limit, f"{roof.mfu(roof.bound):.1%}"]
        else:
            cells += ["does not fit", "", "", ""]
        table.add_row(*cells)
    return table
