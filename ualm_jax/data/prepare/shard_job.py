"""One shard of a dataset, made from its range of the source in any process."""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

from ualm_jax.data.dataset.pairs import conversations_of
from ualm_jax.data.dataset.records import to_bytes
from ualm_jax.data.prepare.ahead import map_ahead
from ualm_jax.data.prepare.examples import RawReader, Ready, condition_hash
from ualm_jax.data.prepare.filters import Filters, Measures
from ualm_jax.data.prepare.partial import PartialDataset
from ualm_jax.data.prepare.reports import Filtered, Rejected, ShardReport, Stored
from ualm_jax.tokens.types import Modality

_READERS = 8  # threads
_READ_AHEAD = 16  # conversations in memory

Advance = Callable[[int, float], None]  # told of more conversations, and the seconds of sound in them


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """Makes shard n, in any process that sees `work`'s folder, independently of all other shards.

    shard_size: records of the source per shard.
    """

    work: PartialDataset
    reader: RawReader
    filters: Filters
    shard_size: int

    def run(self, shard: int, advance: Advance) -> ShardReport:
        """Write the shard, unless it is finished."""
        report = self.work.report(shard)
        if report is not None and self.is_finished(report):
            advance(len(self.inputs(shard)), 0.0)
            return report
        return self.work.write_shard(shard, self.made_of(shard), self._outcomes(self.inputs(shard), advance))

    def is_finished(self, report: ShardReport) -> bool:
        """Whether a written shard is what `run` would write: source, filters and unusable records are the same."""
        same = report.made_of == self.made_of(report.shard) and report.fits(self.filters)
        return same and all(isinstance(self.reader.read(bad.index), Rejected) for bad in report.bad)

    def made_of(self, shard: int) -> str:
        """Identifies the shard's part of the source; for sources that can not tell it apart, the whole source."""
        source = self.reader.source
        digest = getattr(source, "digest", None)
        origin = source.fingerprint() if digest is None else digest(self.inputs(shard))
        return hashlib.sha256(json.dumps(origin).encode()).hexdigest()

    def inputs(self, shard: int) -> range:
        """Which records of the source belong to a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, len(self.reader.source)))

    def save(self) -> Path:
        """Write the job to a file for other processes to open with `open_job`."""
        self.work.write("progress/job.pickle", pickle.dumps(self))
        return self.work.progress / "job.pickle"

    def _outcomes(self, indices: range, advance: Advance) -> Iterator[Stored | Filtered | Rejected]:
        for ready in map_ahead(self.reader.read, indices, threads=_READERS, ahead=_READ_AHEAD):
            if isinstance(ready, Rejected):
                advance(1, 0.0)
                yield ready
                continue
            advance(1, sum((sound.seconds for sound in ready.sounds), 0.0))
            measures = Measures(ready.sounds)
            if self.filters.dropped_by(measures) is None:
                stored = self._stored(ready)
                measures = stored.measures
                if self.filters.dropped_by(measures) is None:
                    yield stored
                    continue
            yield Filtered(ready.raw.id, ready.index, measures)

    def _stored(self, ready: Ready) -> Stored:
        record, measures = self.reader.record(ready)
        said = [message for one in conversations_of(record) for message in one.messages]
        of = {each: [message.content for message in said if message.modality == each] for each in Modality}
        return Stored(
            data=to_bytes(record, None),
            index=ready.index,
            length=record.length,
            samples=sum(of[Modality.AUDIO]),
            text_tokens=sum(map(len, of[Modality.TEXT])),
            clips=of[Modality.CLIP],
            hash=condition_hash(ready.raw),
            unused=ready.raw.unused,
            measures=measures,
            pair=record.pair is not None,
            speech=sum(message.content for message in said if message.is_speech),
        )


def open_job(path: Path) -> ShardJob:
    return pickle.loads(path.read_bytes())
