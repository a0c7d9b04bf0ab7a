"""One shard of a dataset, made from its range of the source in any process."""

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path

from ualm_jax.data.dataset.records import to_bytes
from ualm_jax.data.prepare.ahead import map_ahead
from ualm_jax.data.prepare.examples import RawReader, Ready, condition_hash
from ualm_jax.data.prepare.partial import PartialDataset, Rejected, ShardReport, Stored
from ualm_jax.tokens.types import Modality

_READERS = 8  # threads
_READ_AHEAD = 32  # conversations in memory


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """Makes shard n, in any process that sees `work`'s folder, independently of all other shards.

    shard_size: records of the source per shard.
    """

    work: PartialDataset
    reader: RawReader
    shard_size: int

    def run(self, shard: int) -> ShardReport:
        """Write the shard, unless it is written and all of its unusable records are still unusable."""
        report = self.work.report(shard)
        if report is not None and all(isinstance(self.reader.read(bad.index), Rejected) for bad in report.bad):
            return report
        return self.work.write_shard(shard, self._outcomes(self.inputs(shard)))

    def inputs(self, shard: int) -> range:
        """Which records of the source belong to a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, len(self.reader.source)))

    def save(self) -> Path:
        """Write the job to a file for other processes to open with `open_job`."""
        self.work.write("progress/job.pickle", pickle.dumps(self))
        return self.work.progress / "job.pickle"

    def _outcomes(self, indices: range) -> Iterator[tuple[tuple[str, ...], Stored | Rejected]]:
        for ready in map_ahead(self.reader.read, indices, threads=_READERS, ahead=_READ_AHEAD):
            if isinstance(ready, Rejected):
                yield (), ready
            elif (dropped := self.reader.dropped(ready, ready.flags)) is not None:
                yield tuple(ready.flags), dropped
            else:
                stored, too_long = self._stored(ready)
                yield tuple(ready.flags | too_long), self.reader.dropped(ready, too_long) or stored

    def _stored(self, ready: Ready) -> tuple[Stored, dict[str, str]]:
        record, too_long = self.reader.record(ready)
        of = {each: [m.content for m in record.messages if m.modality == each] for each in Modality}
        stored = Stored(
            data=to_bytes(record, None),
            index=ready.index,
            length=record.length,
            samples=sum(of[Modality.AUDIO]),
            text_tokens=sum(map(len, of[Modality.TEXT])),
            clips=of[Modality.CLIP],
            hash=condition_hash(ready.raw),
            unused=ready.raw.unused,
        )
        return stored, too_long


def open_job(path: Path) -> ShardJob:
    return pickle.loads(path.read_bytes())
