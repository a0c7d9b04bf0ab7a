"""Times blocks and splits of the attention kernel for decoding, for the constants in models/attention/decode_kernel.py.

python tools/tune_decode_attention.py --json tune.json

On an NVIDIA GPU, for 12 (2) heads of 128, with as many sequences as one prompt, 8 and 64 have with guidance, and caches
of two sizes, filled to three fifths. Beside them the same in plain XLA, of which "furthest" is the largest difference;
where that is more than rounding explains, a row says so, and the exit status is 1. The cache lies in the GPU's own
cache from call to call, as it does not between two steps of a model.
"""

import functools
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from ualm_jax.bench.decode_attention import TOLERANCE, arrays, furthest, plain
from ualm_jax.cli.arguments import Parser, output_file
from ualm_jax.models.attention import cache, decode_kernel
from ualm_jax.models.config import DecoderConfig
from ualm_jax.models.rope import rope_tables

SHAPES = [(2, 320), (2, 2000), (16, 320), (128, 320)]  # sequences, positions
# positions, warps, stages; then how large a part of the cache a program takes at least where positions are split
BLOCKS = [(64, 4, 3), (64, 4, 2), (64, 4, 4), (64, 2, 3), (64, 8, 3), (32, 4, 4), (32, 2, 4), (128, 4, 2), (128, 8, 2)]
SHARES = [256, 128, 64, 512]
_CALLS = 200
_DECODER = DecoderConfig(num_layers=1, width=1536, num_heads=12, num_kv_heads=2, mlp_dim=8960)  # as 1.5B has them


def candidates() -> list[decode_kernel._Blocks]:
    """Every block with the usual share, every share with the usual block."""
    usual = decode_kernel._BLOCKS
    blocks = [usual._replace(positions=size, warps=warps, stages=stages) for size, warps, stages in BLOCKS]
    return blocks + [usual._replace(share=share) for share in SHARES if share != usual.share]


def main() -> None:
    parser = Parser("tune_decode_attention.py", description=__doc__)
    parser.add_argument("--json", type=output_file(), metavar="FILE", help="write every figure")
    args = parser.parse_args()
    reason = decode_kernel.unable(jax.default_backend(), _DECODER.head_dim, "bfloat16")
    if reason is not None:
        sys.exit(f"tune_decode_attention.py: there is nothing to time: {reason}")
    rows: list[dict[str, Any]] = []
    wrong = 0
    for B, T in SHAPES:
        new, kept, _ = arrays(_DECODER, B, T)
        length = jnp.full(B, 3 * T // 5)
        new = *new, *rope_tables(length[:, None], _DECODER.head_dim, _DECODER.rope_theta)
        seconds, wanted = _seconds(plain, new, kept, length)
        rows.append({"sequences": B, "capacity": T, "blocks": "xla", "microseconds": 1e6 * seconds})
        print(rows[-1], flush=True)
        for blocks in candidates():
            decode_kernel._BLOCKS = blocks
            row = {
                "sequences": B,
                "capacity": T,
                "blocks": blocks._asdict(),
                "splits": blocks.splits(B * _DECODER.num_kv_heads, T),
            }
            try:
                seconds, found = _seconds(cache.attend_in_one_kernel, new, kept, length)
            except Exception as error:  # what does not fit a multiprocessor
                row["problem"] = str(error).partition("\n")[0][:200]
            else:
                far = furthest(found, wanted)
                row |= {"microseconds": 1e6 * seconds, "furthest": far}
                if not far <= TOLERANCE:  # NaN, too
                    row["problem"] = f"off by more than {TOLERANCE:g}"
                    wrong += 1
            rows.append(row)
            print(row, flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"device": jax.devices()[0].device_kind, "rows": rows}, indent=2) + "\n")
    if wrong:
        sys.exit(f"tune_decode_attention.py: {wrong} of the kernels that ran find something else than plain XLA")


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


if __name__ == "__main__":
    sys.exit(main())
