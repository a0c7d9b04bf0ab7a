"""Times blocks and Triton's settings of our attention kernels, for the constants in models/attention/pallas.py.

python tools/tune_attention.py --json tune.json

On an NVIDIA GPU, for arrays [4, 4096, 12 (2), 128], with 8 documents in a row and with a mixture.
"""

import concurrent.futures
import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ualm_jax.bench.attention import segment_ids
from ualm_jax.cli.arguments import Parser, output_file
from ualm_jax.models.attention import pallas
from ualm_jax.models.attention.spec import segment_ranges

# queries, keys, warps, stages
CANDIDATES = {
    "_FORWARD": [(128, 64, 8, 2), (128, 64, 4, 2), (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 2),
                 (64, 64, 4, 3), (64, 128, 4, 2), (128, 32, 4, 3)],
    "_QUERIES": [(64, 64, 4, 2), (64, 64, 4, 3), (128, 64, 8, 2), (128, 64, 8, 3), (128, 32, 8, 2), (128, 32, 4, 2),
                 (64, 32, 4, 3), (128, 128, 8, 2)],
    "_KEYS": [(64, 64, 8, 2), (64, 64, 4, 2), (64, 64, 8, 3), (32, 64, 4, 2), (32, 64, 4, 3), (64, 128, 8, 2),
              (32, 128, 8, 2), (32, 128, 4, 2), (128, 64, 8, 2), (64, 32, 4, 2), (128, 32, 4, 2)],
}  # fmt: skip
_CALLS, _ROUNDS = 20, 5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings of one of the three kernels; the others keep theirs."""

    kernel: str
    blocks: tuple[int, int, int, int]


def main() -> None:
    parser = Parser("tune_attention.py", description=__doc__)
    parser.add_argument("--json", type=output_file(), metavar="FILE", help="write every figure")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    B, T, K, G, H = 4, 4096, 2, 6, 128
    q, k, v, dout = (
        jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16)
        for shape in ((B, T, K, G, H), (B, T, K, H), (B, T, K, H), (B, T, K, G, H))
    )
    ranges = {
        documents: pallas._ranges(
            *segment_ranges(jnp.asarray(np.stack([segment_ids(documents, T, rng) for _ in range(B)]))), causal=True
        )
        for documents in ("8", "mixture")
    }
    forward = jax.jit(functools.partial(pallas._forward, interpret=False))
    kept = {documents: forward(q, k, v, each)[1] for documents, each in ranges.items()}
    candidates = [Candidate(kernel, blocks) for kernel, every in CANDIDATES.items() for blocks in every]
    lowered = [(one, _lower(one, q, k, v, ranges["8"], kept["8"], dout)) for one in candidates]
    rows: list[dict[str, Any]] = []
    usual: dict[tuple[str, str], Any] = {}
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        programs = [(one, threads.submit(program.compile)) for one, program in lowered]
    for one, program in programs:
        row: dict[str, Any] = {"kernel": one.kernel, "blocks": one.blocks}
        if program.exception() is not None:
            row["problem"] = str(program.exception()).partition("\n")[0][:200]
        else:
            for documents, each in ranges.items():
                arrays = (q, k, v, each) if one.kernel == "_FORWARD" else (kept[documents], dout)
                call = functools.partial(program.result(), *arrays)
                row[documents] = _seconds(call)
                first = usual.setdefault((one.kernel, documents), call())
                row["furthest"] = max(row.get("furthest", 0.0), *map(_furthest, *map(jax.tree.leaves, (first, call()))))
        rows.append(row)
        print(row, flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"device": jax.devices()[0].device_kind, "rows": rows}, indent=2) + "\n")


def _lower(one: Candidate, q, k, v, ranges, kept, dout) -> jax.stages.Lowered:
    """The forward pass, or both kernels of the backward pass, of which one has these settings."""
    before = getattr(pallas, one.kernel)
    setattr(pallas, one.kernel, pallas._Blocks(*one.blocks))
    try:
        if one.kernel == "_FORWARD":
            return jax.jit(lambda *arrays: pallas._forward(*arrays, interpret=False)[0]).lower(q, k, v, ranges)
        return jax.jit(lambda kept, dout: pallas._backward(False, kept, dout)[:3]).lower(kept, dout)
    finally:
        setattr(pallas, one.kernel, before)


def _seconds(call: Callable[[], Any]) -> float:
    """Seconds of one call: the median over rounds, each of which waits for several calls together."""
    jax.block_until_ready(call())
    found = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        for _ in range(_CALLS):
            made = call()
        jax.block_until_ready(made)
        found.append((time.perf_counter() - start) / _CALLS)
    return statistics.median(found)


def _furthest(one: jax.Array, two: jax.Array) -> float:
    """The largest difference, of the largest number."""
    one, two = one.astype(jnp.float32), two.astype(jnp.float32)
    return float(jnp.max(jnp.abs(one - two)) / jnp.max(jnp.abs(one)))


if __name__ == "__main__":
    sys.exit(main())
