"""What needs all shards at once: duplicates are left out, in the order of the source, and everything is added up."""

import dataclasses
from collections import Counter

import numpy as np
from jaxtyping import Int32, Int64

from ualm_jax.data.dataset.records import id_in
from ualm_jax.data.prepare.filters import repeated
from ualm_jax.data.prepare.partial import PartialDataset, Rejected, ShardReport

_REASONS = {
    "duplicate-caption": "an earlier conversation has the same caption",
    "duplicate-audio": "an earlier conversation has the same sound",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """A dataset's shards added up.

    rows: of each record; clips: 16 kHz samples of all clips, one after the other; clips_of: how many each record has.
    totals: "samples" behind the codes, "text_tokens", "bytes". shards: "name", "records" and "sha256" of each.
    gates: how many records each found. rejected: in the order of the source.
    """

    rows: Int32[np.ndarray, "R"]
    clips: Int32[np.ndarray, "C"]
    clips_of: Int64[np.ndarray, "R"]
    totals: dict[str, int]
    shards: list[dict]
    gates: dict[str, int]
    rejected: list[Rejected]


def settle(work: PartialDataset, gate: str, leave_out: bool) -> Tally:
    """All shards, once they are written. `gate` is the one whose hashes the reports hold; `leave_out`: what it finds.

    Done again after an interruption, it shows nothing of it.
    """
    counts = [report.records for report in work.reports()]
    hashes = (value for report in work.reports() for value in report.columns["hash"])
    found = repeated(hashes, sum(counts))
    flagged, totals = Counter({gate: int(found.sum())}), Counter()
    rows, clips, clips_of, shards, rejected = [], [], [], [], []
    for report, found_here in zip(work.reports(), np.split(found, np.cumsum(counts)[:-1]), strict=True):
        flagged.update(report.flagged)
        rejected += report.rejected
        sha256, size = report.sha256, report.bytes
        keep = ~found_here if leave_out else np.ones(report.records, bool)
        if keep.all():
            work.place_whole(report.shard)
        else:
            sha256, size, dropped = work.place_without(report.shard, set(np.flatnonzero(~keep).tolist()))
            rejected += [_reject(report, position, data, gate) for position, data in dropped.items()]
        columns = {
            name: [values[position] for position in np.flatnonzero(keep)] for name, values in report.columns.items()
        }
        rows.append(np.array(columns["rows"], np.int32))
        clips.append(np.array([samples for record in columns["clips"] for samples in record], np.int32))
        clips_of.append(np.array([len(record) for record in columns["clips"]], np.int64))
        totals.update(samples=sum(columns["samples"]), text_tokens=sum(columns["text_tokens"]), bytes=size)
        shards.append({"name": work.shard_name(report.shard), "records": int(keep.sum()), "sha256": sha256})
    return Tally(
        np.concatenate(rows),
        np.concatenate(clips),
        np.concatenate(clips_of),
        dict(totals),
        shards,
        dict(flagged),
        sorted(rejected, key=lambda each: each.index),
    )


def _reject(report: ShardReport, position: int, data: bytes, gate: str) -> Rejected:
    index, id = report.columns["index"][position], id_in(data)
    return Rejected(id, index, gate, f"record {index} (id {id}): {_REASONS[gate]}")
