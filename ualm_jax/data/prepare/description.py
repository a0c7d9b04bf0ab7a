"""The files beside the shards of a finished dataset: ours, and those of TensorFlow Datasets."""

import dataclasses
import importlib.metadata
import io
import json
from typing import Any

import numpy as np
from google.protobuf import json_format

import ualm_jax
from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.data.dataset.folder import FORMAT
from ualm_jax.data.dataset.lengths import CLIP_ENDS, CLIPS, LENGTHS
from ualm_jax.data.dataset.records import record_features
from ualm_jax.data.prepare.deduplicate import Tally
from ualm_jax.data.prepare.filters import FILTERS
from ualm_jax.data.prepare.partial import PartialDataset
from ualm_jax.tokens.vocabulary import Vocabulary


def write_description(
    work: PartialDataset, tally: Tally, vocabulary: Vocabulary | None, audio: dict[str, int | float]
) -> None:
    """Writes quarantine, lengths, TFDS' files and, last, dataset.json. Nothing in them depends on time or place.

    vocabulary: None before sounds are encoded. audio: what is known of the codec, with "sample_rate".
    """
    work.write_quarantine(tally.rejected, tally.unused)
    _write_array(work, LENGTHS, tally.lengths)
    _write_array(work, CLIPS, tally.clips)
    # Without clips there is nothing to look up.
    _write_array(work, CLIP_ENDS, np.cumsum(tally.clips_of) if len(tally.clips) else np.zeros(0, np.int64))
    _write_tfds(work, tally, vocabulary)
    packages = ("array_record", "grain", "tensorflow-datasets")
    description = {
        "format": FORMAT,
        "made_from": work.made_from,
        "counts": {
            "records": len(tally.lengths),
            "quarantined": len(tally.rejected),
            "unused": sum(each.count for each in tally.unused),
            "filters": {name: tally.filters.get(name, 0) for name in FILTERS},
            "audio_hours": tally.totals["samples"] / audio["sample_rate"] / 3600,
            "speech_hours": tally.totals["speech"] / audio["sample_rate"] / 3600,
            "heard_hours": int(tally.clips.sum(dtype=np.int64)) / SAMPLE_RATE / 3600,
            "text_tokens": tally.totals["text_tokens"],
            "positions": int(tally.lengths.sum(dtype=np.int64)),
            "longest": int(tally.lengths.max()),
        }
        | ({"pairs": tally.totals["pairs"]} if tally.totals["pairs"] else {}),
        "vocabulary": None if vocabulary is None else dataclasses.asdict(vocabulary),
        "audio": audio,
        "shards": tally.shards,
        "versions": {"ualm_jax": ualm_jax.__version__}
        | {package: importlib.metadata.version(package) for package in packages},
    }
    work.write("dataset.json", _json(description))


def _write_tfds(work: PartialDataset, tally: Tally, vocabulary: Vocabulary | None) -> None:
    """`tfds.builder_from_directory` finds the split "train" in these two files."""
    columns = record_features(None if vocabulary is None else vocabulary.num_codebooks, tally.totals["pairs"] > 0)
    work.write("features.json", json_format.MessageToJson(columns.to_proto(), sort_keys=True).encode())
    info = {
        "name": "ualm",
        "version": f"{FORMAT}.0.0",
        "description": "Conversations, prepared by ualm_jax.",
        "fileFormat": "array_record",
        "splits": [
            {
                "name": "train",
                "filepathTemplate": "{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": str(tally.totals["bytes"]),
                "shardLengths": [str(shard["records"]) for shard in tally.shards],
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
