"""How much memory a loader's processes take, and whether it grows. Linux only: it reads /proc."""

import multiprocessing
import os
import pathlib
import re
import time
from concurrent.futures import ProcessPoolExecutor

from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader
from ualm_jax.tokens.vocabulary import Vocabulary


def watch(config: DataConfig, vocabulary: Vocabulary, records: int) -> dict[str, float | int]:
    """Opens a loader in a new process, reads that many records, and says what its processes held.

    seconds: to open it. opened_bytes: resident memory that opening took, in the process that plans.
    grown_bytes: how much more memory of its own (not of mapped files) a process held at the end than after a tenth of
    the records. resident_bytes, files: held at the end. Of whichever process has most.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as new:
        return new.submit(_watch, config, vocabulary, records).result()


def _watch(config: DataConfig, vocabulary: Vocabulary, records: int) -> dict[str, float | int]:
    before = _memory(os.getpid())["VmRSS"]
    start = time.perf_counter()
    loader = make_loader(config, vocabulary)
    seconds = time.perf_counter() - start
    opened = _memory(os.getpid())["VmRSS"] - before
    read, early = 0, None
    while read < records:
        batch, _ = next(loader)
        read += int(batch.segment_ids.max(axis=1).sum())
        if early is None and read >= records / 10:
            early = _own_memory()
    late = _own_memory()
    held = [_memory(pid)["VmRSS"] for pid in late]
    files = [len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir())) for pid in late]
    loader.close()
    return {
        "seconds": seconds,
        "opened_bytes": opened,
        "grown_bytes": max(late[pid] - early[pid] for pid in late),
        "resident_bytes": max(held),
        "files": max(files),
    }


def _own_memory() -> dict[int, int]:
    """The memory of this process and of its workers, by process id."""
    pids = (os.getpid(), *(child.pid for child in multiprocessing.active_children()))
    return {pid: _memory(pid)["RssAnon"] for pid in pids}


def _memory(pid: int) -> dict[str, int]:
    """What the kernel says of a process, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {name: 1024 * int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}
