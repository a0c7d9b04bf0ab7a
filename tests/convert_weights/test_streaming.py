"""Large checkpoints pass through little memory: the largest tensor three times and one shard, whatever the size."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from helpers import random_qwen2

from ualm_jax.convert_weights.verify import verify
from ualm_jax.models.config import QWEN2_5

RUN = "import sys; from ualm_jax.cli.main import run; sys.exit(run(sys.argv[1:]))"


def convert(*arguments: str) -> float:
    """Runs `ualm convert` in a process of its own; the peak memory it reports, in bytes."""
    command = [sys.executable, "-c", RUN, "convert", *arguments]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(shown.strip())
    return float(re.search(r"peak memory (\S+) GB", shown).group(1)) * 1e9


@pytest.mark.slow
def test_importing_three_gigabytes_takes_little_memory(tmp_path, golden_dir):
    shard = 1 << 30
    source, out, back = tmp_path / "source", tmp_path / "out", tmp_path / "back"
    try:
        imports = convert("qwen2", str(golden_dir / "qwen2"), "--out", str(tmp_path / "small"))
        size = random_qwen2.save_large(source, QWEN2_5["1.5b"], 151936, shard)
        assert size > 3e9
        largest = 151936 * 1536 * 2
        assert convert("qwen2", str(source), "--out", str(out)) - imports < 3 * largest + shard
        peak = convert("export", "hf", str(out), "--out", str(back), "--shard-gb", "1")
        assert peak - imports < 3 * largest + shard
        assert verify(source, out, run=False).passed
        assert same_tensors(source, back)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)


def same_tensors(left: pathlib.Path, right: pathlib.Path) -> bool:
    import numpy as np

    from ualm_jax.weights.hf_folder import open_directory

    a, b = open_directory(left), open_directory(right)
    return set(a.tensors) == set(b.tensors) and all(np.array_equal(a.read(name), b.read(name)) for name in a.tensors)
