"""The shards of a job on the cores of this machine."""

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ualm_jax.data.prepare.partial import ShardReport
from ualm_jax.data.prepare.shard_job import ShardJob, open_job
from ualm_jax.errors import UserError
from ualm_jax.parallel.workers import worker_pool

_job: ShardJob | None = None  # of a worker process


def run_shards(job: ShardJob, shards: Sequence[int], workers: int) -> Iterator[ShardReport]:
    """Yields each shard's report when it is written. One worker, or one shard, runs in this process."""
    workers = min(workers, len(shards))
    if workers <= 1:
        yield from map(job.run, shards)
        return
    pool = worker_pool(workers, _start_worker, job.save())
    try:
        for future in as_completed([pool.submit(_run, shard) for shard in shards]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process has been killed, perhaps for lack of memory: what is finished is kept; "
            "run the same again, with fewer workers if need be"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(path: Path) -> None:
    global _job
    _job = open_job(path)


def _run(shard: int) -> ShardReport:
    return _job.run(shard)
