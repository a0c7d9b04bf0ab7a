"""What needs all shards at once: duplicates are found in the order of the source, and everything is added up."""

import dataclasses
from collections import Counter

import numpy as np
from jaxtyping import Int32, Int64

from ualm_jax.data.dataset.records import id_in
from ualm_jax.data.prepare.filters import Filters, duplicates
from ualm_jax.data.prepare.partial import PartialDataset
from ualm_jax.data.prepare.reports import Rejected, ShardReport
from ualm_jax.data.raw.sound_source import LeftOut

_REASONS = {
    "duplicate-caption": "an earlier conversation has the same caption",
    "duplicate-audio": "an earlier conversation has the same sound",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """The sums over a dataset's shards.

    lengths: positions of each record. clips: 16 kHz samples of all clips, one after the other. clips_of: how many
    each record has. totals: "samples" behind the codes, "speech" among these, "text_tokens", "bytes", "pairs".
    shards: "name", "records" and "sha256" of each. filters: how many records each found. rejected: in the order of the
    source. unused: what else of the source was not used.
    """

    lengths: Int32[np.ndarray, "R"]
    clips: Int32[np.ndarray, "C"]
    clips_of: Int64[np.ndarray, "R"]
    totals: dict[str, int]
    shards: list[dict]
    filters: dict[str, int]
    rejected: list[Rejected]
    unused: list[LeftOut]


def deduplicate(work: PartialDataset, filter: str, filters: Filters) -> Tally:
    """Makes all written shards part of the dataset, without duplicates if `filters` drops them, and adds them up.

    filter: the name of the one whose hashes the reports hold. Can be repeated after an interruption.
    """
    leave_out = filter in filters.drop
    counts = [report.records for report in work.reports()]
    hashes = (value for report in work.reports() for value in report.columns["hash"])
    found = duplicates(hashes, sum(counts))
    flagged, totals, unused = Counter({filter: int(found.sum())}), Counter(), Counter()
    lengths, clips, clips_of, shards, rejected = [], [], [], [], []
    for report, found_here in zip(work.reports(), np.split(found, np.cumsum(counts)[:-1]), strict=True):
        for measures in report.measures():
            flagged.update(list(filters.find(measures)))
        unused.update(report.unused)
        rejected += report.rejected(filters)
        sha256, size = report.sha256, report.bytes
        keep = ~found_here if leave_out else np.ones(report.records, bool)
        if keep.all():
            work.keep_shard(report.shard)
        else:
            sha256, size, dropped = work.keep_shard_without(report.shard, set(np.flatnonzero(~keep).tolist()))
            rejected += [_reject(report, place, data, filter) for place, data in dropped.items()]
        columns = {name: [values[place] for place in np.flatnonzero(keep)] for name, values in report.columns.items()}
        lengths.append(np.array(columns["length"], np.int32))
        clips.append(np.array([samples for record in columns["clips"] for samples in record], np.int32))
        clips_of.append(np.array([len(record) for record in columns["clips"]], np.int64))
        totals.update(samples=sum(columns["samples"]), text_tokens=sum(columns["text_tokens"]), bytes=size)
        totals.update(pairs=sum(columns["pair"]), speech=sum(columns["speech"]))
        shards.append({"name": work.shard_name(report.shard), "records": int(keep.sum()), "sha256": sha256})
    return Tally(
        np.concatenate(lengths),
        np.concatenate(clips),
        np.concatenate(clips_of),
        dict(totals),
        shards,
        dict(flagged),
        sorted(rejected, key=lambda each: each.index),
        [LeftOut(f"field {name!r}", "this field is not used", count) for name, count in sorted(unused.items())],
    )


def _reject(report: ShardReport, place: int, data: bytes, filter: str) -> Rejected:
    index, id = report.columns["index"][place], id_in(data)
    return Rejected(id, index, filter, f"record {index + 1} (id {id}): {_REASONS[filter]}")
