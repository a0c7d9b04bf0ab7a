"""The shards of a job on other machines, by Apache Beam."""

from collections.abc import Sequence
from pathlib import Path

from ualm_jax.data.prepare.shard_job import ShardJob, open_job
from ualm_jax.errors import UserError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise UserError("several machines are used through Apache Beam, run `pip install '.[beam]'`") from error


def run_on_beam(job: ShardJob, shards: Sequence[int], options: Sequence[str]) -> None:
    """Write the shards with a pipeline of these options ("runner=DirectRunner", ...), and wait until it has ended.

    Its workers need ualm_jax installed, and must see the job's folder and the sources under the same paths as here.
    """
    pipeline = beam.Pipeline(options=PipelineOptions([f"--{option}" for option in options]))
    _ = (
        pipeline
        | "shards" >> beam.Create(list(shards))
        | "spread" >> beam.Reshuffle()
        | "write" >> beam.ParDo(_WriteShard(job.save()))
    )
    pipeline.run().wait_until_finish()


class _WriteShard(beam.DoFn):
    def __init__(self, path: Path):
        self._path = path

    def setup(self) -> None:
        self._job = open_job(self._path)

    def process(self, shard: int) -> None:
        self._job.run(shard, lambda conversations, seconds: None)
