"""What a traced program spent its time on: the kernels of a device by name and by kind."""

import collections
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from jax.profiler import ProfileData

from ualm_jax.bench.result import markdown
from ualm_jax.errors import UserError

KINDS = {
    "communication": r"nccl|all-?_?(reduce|gather|to-?_?all)|reduce-?_?scatter|collective-?_?permute",
    "attention": r"attention|flash|fmha|mosaic",
    "matrix products": r"gemm|nvjet|cutlass|cublas|splitk|matmul|(^|_)dot|convolution|(^|_)conv(_|\.|$)|^ynn",
    "sorting": r"sort|top_?k|radix",
    "copies": (
        r"^memcpy|^memset|^(wrapped_|loop_|input_)?(bitcast_|slice_)*(copy|transpose|concatenate|pad|broadcast|gather|"
        r"slice|dynamic[_-]slice|dynamic[_-]update[_-]slice)(_bitcast|_slice|_copy)*(_fusion|_kernel)?$"
    ),
    "elementwise and reductions": r"fusion|wrapped_|loop_|input_|reduce|triton|^(add|multiply|convert|select|compare)",
}
"""Kind -> what a kernel's name has in it: names of cuBLAS, XLA, Triton, Mosaic and NCCL. The first that fits counts."""
OTHER = "other"
_LONGEST = 60  # characters of a name in a table

_CONTAINERS = re.compile(r"^(while|call|conditional|ThunkExecutor|end: )|::")
_NUMBER = re.compile(r"(\.\d+)+$")


def kind_of(kernel: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), OTHER)


def summary(folder: pathlib.Path, runs: int, most: int = 20) -> dict[str, Any]:
    """Of the newest trace in `folder`, per run of `runs`: kinds, and the `most` costly kernels; ready for JSON.

    seconds: the sum of kernels on the first device. On a CPU that is the time of all threads together.
    Raises UserError where there is no trace.
    """
    traces = sorted(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not traces:
        raise UserError(f"{folder}: holds no trace (*.xplane.pb); make one with `ualm bench PART --profile {folder}`.")
    seconds, calls = collections.Counter(), collections.Counter()
    for name, duration in _kernels(ProfileData.from_file(str(traces[-1]))):
        seconds[name] += duration / 1e9 / runs
        calls[name] += 1 / runs
    by_kind, calls_by_kind = collections.Counter(), collections.Counter()
    for name in seconds:
        by_kind[kind_of(name)] += seconds[name]
        calls_by_kind[kind_of(name)] += calls[name]
    return {
        "seconds": sum(seconds.values()),
        "kinds": [
            {"kind": kind, "seconds": spent, "calls": calls_by_kind[kind]} for kind, spent in by_kind.most_common()
        ],
        "kernels": [
            {"kernel": name, "kind": kind_of(name), "seconds": spent, "calls": calls[name]}
            for name, spent in seconds.most_common(most)
        ],
    }


def table(found: dict[str, Any]) -> str:
    """Kinds and the most costly kernels of a summary, as two Markdown tables."""

    def lines(rows: list[dict[str, Any]], names: tuple[str, ...]) -> str:
        cells = [[*names, "ms", "share", "calls"]]
        for row in rows:
            share = row["seconds"] / found["seconds"] if found["seconds"] else 0.0
            figures = [f"{1e3 * row['seconds']:,.3f}", f"{share:.1%}", f"{row['calls']:,.1f}"]
            cells.append([*(row[name][:_LONGEST] for name in names), *figures])
        return markdown(cells)

    return lines(found["kinds"], ("kind",)) + "\n\n" + lines(found["kernels"], ("kernel", "kind"))


def _kernels(trace: ProfileData) -> Iterator[tuple[str, float]]:
    """Name, without the number that XLA gives it, and nanoseconds of every kernel of the first device."""
    planes = {plane.name: plane for plane in trace.planes}
    devices = sorted(name for name in planes if name.startswith("/device:") and list(planes[name].lines))
    lines = list(planes[devices[0] if devices else "/host:CPU"].lines)
    # GPU: streams; TPU: operations; CPU: threads of XLA. Other lines show the same time once more, by other names.
    prefixes = ("Stream", "XLA Ops") if devices else ("tf_XLA",)
    for line in lines:
        if line.name.startswith(prefixes):
            for event in line.events:
                name = _NUMBER.sub("", event.name)
                if not _CONTAINERS.search(name):
                    yield name, event.duration_ns
