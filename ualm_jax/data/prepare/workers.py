"""The shards of a job on the cores of this machine."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ualm_jax.data.prepare.reports import ShardReport
from ualm_jax.data.prepare.shard_job import Advance, ShardJob, open_job
from ualm_jax.errors import UserError
from ualm_jax.parallel.workers import worker_pool

_LOOK_EVERY = 0.2  # seconds between looks at how far the workers are

_job: ShardJob | None = None  # of a worker process
_counted: Any = None  # conversations, and seconds of sound, of all workers


def run_shards(job: ShardJob, shards: Sequence[int], workers: int, advance: Advance) -> Iterator[ShardReport]:
    """Yields each shard's report when it is written. One worker, or one shard, runs in this process."""
    workers = min(workers, len(shards))
    if workers <= 1:
        yield from (job.run(shard, advance) for shard in shards)
        return
    counted, told = multiprocessing.get_context("spawn").Array("d", 2), (0.0, 0.0)
    pool = worker_pool(workers, _start_worker, job.save(), counted)
    try:
        waiting = {pool.submit(_run, shard) for shard in shards}
        while waiting:
            done, waiting = wait(waiting, _LOOK_EVERY, FIRST_COMPLETED)
            if not counted.get_lock().acquire(timeout=_LOOK_EVERY):
                continue  # a worker was killed while it held the lock: the pool is about to say so
            now = tuple(counted)
            counted.get_lock().release()
            if now != told:
                advance(int(now[0] - told[0]), now[1] - told[1])
                told = now
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process has been killed, perhaps for lack of memory: what is finished is kept; "
            "run the same again, with fewer workers if need be"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(path: Path, counted: Any) -> None:
    global _job, _counted
    _job, _counted = open_job(path), counted


def _run(shard: int) -> ShardReport:
    return _job.run(shard, _advance)


def _advance(conversations: int, seconds: float) -> None:
    with _counted.get_lock():
        _counted[0] += conversations
        _counted[1] += seconds
