"""Captioned sounds to a dataset of token conversations: each clip is encoded once, here.

Everything is written to `OUT.partial` and gets its name at the end. A shard holds a fixed range of the source,
so that it can be made again alone: what is finished survives a kill, and the result does not show it.
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import ualm_jax
from ualm_jax.codecs.base import Codec
from ualm_jax.data.dataset import FORMAT, DatasetInfo, open_dataset
from ualm_jax.data.partial import BadSound, PartialDataset, ShardReport
from ualm_jax.data.progress import ClipProgress
from ualm_jax.data.records import Record, to_bytes
from ualm_jax.data.sound_source import BadRecord, CaptionedSound, SoundSource
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tasks import task_messages
from ualm_jax.tokens.tokenizer import Tokenizer, load_tokenizer
from ualm_jax.tokens.vocabulary import Vocabulary

TASKS = ("caption_to_audio", "transcription_to_speech")  # those made of one caption and one sound

_GROUP = 16  # clips queued on the device together
_READ_AHEAD = 4 * _GROUP  # clips in memory
_READERS = 8  # threads


def prepare(
    source: SoundSource,
    *,
    tokenizer_dir: str | os.PathLike,
    codec_dir: str | os.PathLike,
    out: str | os.PathLike,
    task: str = "caption_to_audio",
    shard_size: int = 1024,
    max_bad_fraction: float = 0.05,
    console: Console | None = None,
) -> DatasetInfo:
    """Encode all of `source` and store it in the new folder `out` (layout: dataset.py).

    Sounds are cut to whole codec frames. Unusable ones are quarantined; when they are more than
    `max_bad_fraction` of the source, the work stops, and continues after they have been mended.
    Run again after a kill, it continues; the result is that of an uninterrupted run, byte by byte.
    shard_size: sounds per shard. console: where progress is shown, None for silence.

    Raises UserError: `out` exists, a partial result was made from something else, too many unusable sounds,
    sounds that do not have the codec's sample rate, unreadable codec or tokenizer.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already, choose another folder or remove it")
    if task not in TASKS:
        raise UserError(f"task must be {' or '.join(TASKS)}, got {task!r}")
    if shard_size < 1 or not 0 <= max_bad_fraction <= 1:
        raise UserError(
            "expected a shard_size of at least 1 and a max_bad_fraction from 0 to 1, "
            f"got {shard_size} and {max_bad_fraction}"
        )
    if len(source) == 0:
        raise UserError(f"{source.name}: the source holds no sounds")
    codec, tokenizer = _load_codec(codec_dir), load_tokenizer(tokenizer_dir)
    made_from = {
        "source": {"name": source.name, "fingerprint": source.fingerprint()},
        "codec": _hash_directory(Path(codec_dir)),
        "tokenizer": _hash_directory(Path(tokenizer_dir)),
        "task": task,
        "shard_size": shard_size,
    }
    work = PartialDataset(out.with_name(out.name + ".partial"), made_from, len(source))
    if not work.complete:
        encoder = _Encoder(source, codec, tokenizer, task)
        _write_shards(work, encoder, max_bad_fraction, console)
        shutil.copytree(tokenizer_dir, work.partial / "tokenizer", dirs_exist_ok=True)
        shutil.copytree(codec_dir, work.partial / "codec", dirs_exist_ok=True)
        description = _describe(work, encoder)
        work.write("dataset.json", (json.dumps(description, indent=2) + "\n").encode())
    work.publish(out)
    return open_dataset(out)


class _Encoder:
    """Sounds to records."""

    def __init__(self, source: SoundSource, codec: Codec, tokenizer: Tokenizer, task: str):
        self.source, self.codec, self.tokenizer, self.task = source, codec, tokenizer, task
        sizes = codec.codebook_sizes
        if len(set(sizes)) != 1:
            raise UserError(f"the codec's codebooks must have one size, found {', '.join(map(str, sizes))}")
        self.vocabulary = Vocabulary(tokenizer.size, sizes[0], len(sizes))

    def read(self, index: int) -> CaptionedSound | BadSound:
        """Sound `index`, cut to whole frames."""
        try:
            sound = self.source[index]
        except BadRecord as error:
            return BadSound(None, index, str(error))
        where = f"{self.source.name} record {index} (id {sound.id})"
        if sound.sample_rate != self.codec.sample_rate:
            raise UserError(
                f"{where}: has {sound.sample_rate} Hz, the codec wants {self.codec.sample_rate} Hz; "
                "give that sample rate to the source"
            )
        hop = self.codec.hop
        wav = sound.wav[: len(sound.wav) // hop * hop]
        if not sound.caption.strip():
            reason = "the caption is empty"
        elif not _is_unicode(sound.id + sound.caption):
            reason = "id or caption holds half a surrogate pair, which is no text"
        elif not np.isfinite(sound.wav).all():
            reason = f"{int((~np.isfinite(sound.wav)).sum())} of {len(sound.wav)} samples are NaN or infinite"
        elif len(wav) == 0:
            reason = f"{len(sound.wav)} samples are less than one codec frame of {hop}"
        else:
            return dataclasses.replace(sound, wav=wav)
        return BadSound(sound.id, index, f"{where}: {reason}")

    def encode(self, sounds: Sequence[CaptionedSound]) -> list[Record]:
        records = []
        for sound, codes in zip(sounds, self.codec.encode_batch([s.wav for s in sounds]), strict=True):
            text = np.array(self.tokenizer.encode(sound.caption), np.int32)
            messages = task_messages(self.task, {"text1": text, "audio1": codes})
            rows = len(build_grid(messages, self.vocabulary).tokens)
            records.append(Record(sound.id, self.source.name, messages, sound.caption, sound.scene, rows))
        return records


def _write_shards(work: PartialDataset, encoder: _Encoder, max_bad_fraction: float, console: Console | None) -> None:
    for report in work.reports():
        # A sound that was mended since is no longer bad.
        if any(not isinstance(encoder.read(bad.index), BadSound) for bad in report.bad):
            work.reopen_shard(report.shard)
    pending = [shard for shard in range(work.num_shards) if work.report(shard) is None]
    done = work.num_sounds - sum(len(work.sounds(shard)) for shard in pending)
    bad = sum(len(report.bad) for report in work.reports())
    _check_bad(work, bad, max_bad_fraction)
    stream = itertools.chain.from_iterable(work.sounds(shard) for shard in pending)
    with (
        ThreadPoolExecutor(_READERS) as pool,
        ClipProgress(console or Console(quiet=True), work.num_sounds, done) as progress,
    ):
        try:
            sounds = _read_ahead(encoder, stream, pool)
            for shard in pending:
                report = _write_shard(work, encoder, shard, sounds, progress)
                bad += len(report.bad)
                _check_bad(work, bad, max_bad_fraction)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    work.write_quarantine()


def _write_shard(
    work: PartialDataset,
    encoder: _Encoder,
    shard: int,
    sounds: Iterator[CaptionedSound | BadSound],
    progress: ClipProgress,
) -> ShardReport:
    stored, bad, samples, text_tokens, rows = [], [], 0, 0, []
    indices = iter(work.sounds(shard))
    while group := list(itertools.islice(indices, _GROUP)):
        found = list(itertools.islice(sounds, len(group)))
        good = [sound for sound in found if not isinstance(sound, BadSound)]
        bad += [sound for sound in found if isinstance(sound, BadSound)]
        for record in encoder.encode(good):
            stored.append(to_bytes(record, encoder.vocabulary.num_codebooks))
            rows.append(record.rows)
            text_tokens += len(record.messages[0].content)
        new = sum(len(sound.wav) for sound in good)
        samples += new
        progress.advance(len(group), new / encoder.codec.sample_rate)
    name, sha256 = work.write_shard(shard, stored)
    report = ShardReport(
        shard, name, len(stored), sha256, samples, text_tokens, sum(rows), max(rows, default=0), tuple(bad)
    )
    work.finish_shard(report)
    return report


def _read_ahead(
    encoder: _Encoder, indices: Iterator[int], pool: ThreadPoolExecutor
) -> Iterator[CaptionedSound | BadSound]:
    """The sounds in order, read by other threads while the codec works."""
    waiting = deque(pool.submit(encoder.read, index) for index in itertools.islice(indices, _READ_AHEAD))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(encoder.read, index) for index in itertools.islice(indices, 1))


def _check_bad(work: PartialDataset, bad: int, max_bad_fraction: float) -> None:
    if bad <= max_bad_fraction * work.num_sounds and bad < work.num_sounds:
        return
    work.write_quarantine()
    raise UserError(
        f"{work.made_from['source']['name']}: {bad} of {work.num_sounds} sounds can not be used, allowed are "
        f"{max_bad_fraction:.1%}; {work.partial / 'quarantine.jsonl'} names each and says why: mend them, "
        "or allow more with max_bad_fraction, and run again"
    )


def _describe(work: PartialDataset, encoder: _Encoder) -> dict[str, Any]:
    """The content of `dataset.json`. Nothing in it depends on when or where it was made."""
    reports = list(work.reports())
    codec = encoder.codec
    packages = ("array_record", "grain", "tensorflow-datasets")
    return {
        "format": FORMAT,
        "made_from": work.made_from,
        "counts": {
            "records": sum(report.records for report in reports),
            "quarantined": sum(len(report.bad) for report in reports),
            "audio_hours": sum(report.samples for report in reports) / codec.sample_rate / 3600,
            "text_tokens": sum(report.text_tokens for report in reports),
            "rows": sum(report.rows for report in reports),
            "longest": max(report.longest for report in reports),
        },
        "vocabulary": dataclasses.asdict(encoder.vocabulary),
        "audio": {"sample_rate": codec.sample_rate, "frame_rate": codec.frame_rate},
        "shards": [{"name": report.name, "records": report.records, "sha256": report.sha256} for report in reports],
        "versions": {"ualm_jax": ualm_jax.__version__}
        | {package: importlib.metadata.version(package) for package in packages},
    }


def _load_codec(directory: str | os.PathLike) -> Codec:
    from ualm_jax.codecs.xcodec.model import XCodec  # brings JAX

    return XCodec.from_directory(directory)


def _hash_directory(directory: Path) -> str:
    """sha256 over the names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{content} {path.relative_to(directory).as_posix()}\n".encode())
    return digest.hexdigest()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
