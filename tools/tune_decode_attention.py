"""Times blocks and splits of the attention kernel for decoding, for the constants in models/attention/decode_kernel.py.

python tools/tune_decode_attention.py --json tune.json

On an NVIDIA GPU, for 12 (2) heads of 128, with as many sequences as one prompt, 8 and 64 have with guidance, and caches
of two sizes, filled to three fifths. Beside them the same in plain XLA, of which "furthest" is the largest difference.
The cache lies in the GPU's own cache from call to call, as it does not between two steps of a model.
"""

import functools
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ualm_jax.cli.arguments import Parser, output_file
from ualm_jax.models.attention import cache, decode_kernel
from ualm_jax.models.rope import apply_rope, rope_tables

SHAPES = [(2, 320), (2, 2000), (16, 320), (128, 320)]  # sequences, positions
# positions, warps, stages; then how large a part of the cache a program takes at least where positions are split
BLOCKS = [(64, 4, 3), (64, 4, 2), (64, 4, 4), (64, 2, 3), (64, 8, 3), (32, 4, 4), (32, 2, 4), (128, 4, 2), (128, 8, 2)]
SHARES = [256, 128, 64, 512]
_CALLS = 200
_K, _G, _H = 2, 6, 128


def candidates() -> list[decode_kernel._Blocks]:
    """Every block with the usual share, every share with the usual block."""
    usual = decode_kernel._BLOCKS
    blocks = [usual._replace(positions=size, warps=warps, stages=stages) for size, warps, stages in BLOCKS]
    return blocks + [usual._replace(share=share) for share in SHARES if share != usual.share]


def main() -> None:
    parser = Parser("tune_decode_attention.py", description=__doc__)
    parser.add_argument("--json", type=output_file(), metavar="FILE", help="write every figure")
    args = parser.parse_args()
    reason = decode_kernel.unable(jax.default_backend(), _H, "bfloat16")
    if reason is not None:
        sys.exit(f"tune_decode_attention.py: there is nothing to time: {reason}")
    rows: list[dict[str, Any]] = []
    for B, T in SHAPES:
        rng = np.random.default_rng(0)
        shapes = [(B, 1, _K, _G, _H), (B, 1, _K, _H), (B, 1, _K, _H), (B, _K, T, _H), (B, _K, T, _H)]
        q, k, v, *kept = (jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16) for shape in shapes)
        length = jnp.full(B, 3 * T // 5)
        new = q, k, v, *rope_tables(length[:, None], _H, 1e6)
        seconds, wanted = _seconds(_plain, new, kept, length)
        rows.append({"sequences": B, "capacity": T, "blocks": "xla", "microseconds": 1e6 * seconds})
        print(rows[-1], flush=True)
        for blocks in candidates():
            decode_kernel._BLOCKS = blocks
            row = {"sequences": B, "capacity": T, "blocks": blocks._asdict(), "splits": blocks.splits(B * _K, T)}
            try:
                seconds, found = _seconds(cache.attend_in_one_kernel, new, kept, length)
            except Exception as error:  # what does not fit a multiprocessor
                row["problem"] = str(error).partition("\n")[0][:200]
            else:
                furthest = float(np.max(list(map(_furthest, found, wanted))))  # NaN, too, is seen
                row |= {"microseconds": 1e6 * seconds, "furthest": furthest}
            rows.append(row)
            print(row, flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"device": jax.devices()[0].device_kind, "rows": rows}, indent=2) + "\n")


def _plain(q, k, v, cos, sin, *rest):
    return cache._attend(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, *rest)


def _seconds(function, new, kept, length):
    """Seconds of a call, of many in one program, where nothing waits for the host; and what one returns."""

    @functools.partial(jax.jit, static_argnums=2)
    def many(new, kept, calls):
        def step(_, carry):
            attended, keys, values = carry
            # From call to call something changes, so that no part of the work is done once for all.
            return function(attended, *new[1:], keys, values, length)

        return jax.lax.fori_loop(0, calls, step, (new[0], *kept))

    once = jax.block_until_ready(many(new, kept, 1))
    jax.block_until_ready(many(new, kept, _CALLS))
    found = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(many(new, kept, _CALLS))
        found.append((time.perf_counter() - start) / _CALLS)
    return min(found), once


def _furthest(one: jax.Array, two: jax.Array) -> float:
    return float(jnp.max(jnp.abs(one.astype(jnp.float32) - two.astype(jnp.float32))))


if __name__ == "__main__":
    sys.exit(main())
