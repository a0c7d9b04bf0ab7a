"""What stands beside the shards of a finished dataset: for us, and for TensorFlow Datasets."""

import dataclasses
import importlib.metadata
import io
import json
from collections import Counter
from typing import Any

import numpy as np
from google.protobuf import json_format

import ualm_jax
from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.codecs.base import Codec
from ualm_jax.data.dataset import FORMAT
from ualm_jax.data.gates import GATES, Gates, Seen
from ualm_jax.data.lengths import CLIP_ENDS, CLIPS, ROWS
from ualm_jax.data.partial import PartialDataset
from ualm_jax.data.records import record_features
from ualm_jax.tokens.vocabulary import Vocabulary


def write_description(work: PartialDataset, vocabulary: Vocabulary, codec: Codec, gates: Gates) -> None:
    """Lengths, TFDS' files and, last, dataset.json. Nothing in them depends on when or where they were made."""
    rows, clips, clips_of, shards, totals = [], [], [], [], Counter()
    for report in work.reports():
        rows.append(np.array(report.rows, np.int32))
        clips.append(np.array([samples for record in report.clips for samples in record], np.int32))
        clips_of.append(np.array([len(record) for record in report.clips], np.int64))
        shards.append({"name": report.name, "records": report.records, "sha256": report.sha256})
        totals.update(
            quarantined=len(report.rejected),
            samples=report.samples,
            heard=report.heard,
            text_tokens=report.text_tokens,
            bytes=report.bytes,
        )
    rows, clips = np.concatenate(rows), np.concatenate(clips)
    _write_array(work, ROWS, rows)
    _write_array(work, CLIPS, clips)
    # Nothing to look up where nothing is heard.
    _write_array(work, CLIP_ENDS, np.cumsum(np.concatenate(clips_of)) if len(clips) else np.zeros(0, np.int64))
    _write_tfds(work, vocabulary, totals["bytes"], [shard["records"] for shard in shards])
    packages = ("array_record", "grain", "tensorflow-datasets")
    description = {
        "format": FORMAT,
        "made_from": work.made_from,
        "counts": {
            "records": len(rows),
            "quarantined": totals["quarantined"],
            "gates": _gate_counts(work, gates),
            "audio_hours": totals["samples"] / codec.sample_rate / 3600,
            "heard_hours": totals["heard"] / SAMPLE_RATE / 3600,
            "text_tokens": totals["text_tokens"],
            "rows": int(rows.sum(dtype=np.int64)),
            "longest": int(rows.max()),
        },
        "vocabulary": dataclasses.asdict(vocabulary),
        "audio": {"sample_rate": codec.sample_rate, "frame_rate": codec.frame_rate},
        "shards": shards,
        "versions": {"ualm_jax": ualm_jax.__version__}
        | {package: importlib.metadata.version(package) for package in packages},
    }
    work.write("dataset.json", _json(description))


def _gate_counts(work: PartialDataset, gates: Gates) -> dict[str, int]:
    """How many conversations each gate found, left out or not."""
    counts = dict.fromkeys(GATES, 0)
    seen = Seen()
    for report in work.reports():
        for gate, count in report.flagged.items():
            counts[gate] += count
        for each in report.rejected:
            if each.gate.startswith("duplicate"):
                counts[each.gate] += 1
        for hashes in report.hashes:
            for gate in seen.find(*hashes):
                counts[gate] += 1
            seen.add(*hashes)
    return counts


def _write_tfds(work: PartialDataset, vocabulary: Vocabulary, num_bytes: int, records: list[int]) -> None:
    """`tfds.builder_from_directory` finds the split "train" in these two files."""
    features = json_format.MessageToJson(record_features(vocabulary.num_codebooks).to_proto(), sort_keys=True)
    work.write("features.json", features.encode())
    info = {
        "name": "ualm",
        "version": f"{FORMAT}.0.0",
        "description": "Conversations in tokens, prepared by ualm_jax.",
        "fileFormat": "array_record",
        "splits": [
            {
                "name": "train",
                "filepathTemplate": "{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(num_bytes),
                "shardLengths": [str(count) for count in records],
            }
        ],
    }
    work.write("dataset_info.json", _json(info))


def _write_array(work: PartialDataset, name: str, values: np.ndarray) -> None:
    file = io.BytesIO()
    np.save(file, values)
    work.write(name, file.getvalue())


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
