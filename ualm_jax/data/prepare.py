"""Raw conversations to a dataset of token conversations: each sound is encoded once, here.

Everything is written to `OUT.partial` and gets its name at the end. A shard holds a fixed range of the source,
so that it can be made again alone: what is finished survives a kill, and the result does not show it.
"""

import dataclasses
import hashlib
import itertools
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console

from ualm_jax.audio.io import BadAudio
from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.codecs.base import Codec
from ualm_jax.data.conversation import ConversationSource, RawConversation, RawMessage
from ualm_jax.data.dataset import DatasetInfo, open_dataset
from ualm_jax.data.description import write_description
from ualm_jax.data.gates import DEFAULT_GATES, Gates, Seen, audio_hash, caption_hash
from ualm_jax.data.listening import SHORTEST, to_flac
from ualm_jax.data.partial import PartialDataset, Rejected, ShardReport
from ualm_jax.data.progress import ClipProgress
from ualm_jax.data.records import Record, to_bytes
from ualm_jax.data.sound_source import BadRecord
from ualm_jax.errors import UserError
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import Tokenizer, load_tokenizer
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.tokens.vocabulary import Vocabulary

_SAMPLES_PER_ROW = SAMPLE_RATE // 25  # of sound that is heard
_GROUP = 16  # conversations whose sounds are queued on the device together
_READ_AHEAD = 4 * _GROUP  # conversations in memory
_READERS = 8  # threads


def prepare(
    source: ConversationSource,
    *,
    tokenizer_dir: str | os.PathLike,
    codec_dir: str | os.PathLike,
    out: str | os.PathLike,
    gates: Gates = DEFAULT_GATES,
    shard_size: int = 1024,
    max_bad_fraction: float = 0.05,
    console: Console | None = None,
) -> DatasetInfo:
    """Encode all of `source` and store it in the new folder `out` (layout: dataset.py).

    Sounds the assistant makes are cut to whole codec frames. What does not pass a gate is left out. Unusable records
    are quarantined; when they are more than `max_bad_fraction` of the source, the work stops, and continues after
    they have been mended. Run again after a kill, it continues; the result is that of an uninterrupted run, byte by
    byte. shard_size: records of the source per shard. console: where progress is shown, None for silence.

    Raises UserError: `out` exists, a partial result was made from something else, too many unusable records,
    unreadable codec or tokenizer.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already, choose another folder or remove it")
    if shard_size < 1 or not 0 <= max_bad_fraction <= 1:
        raise UserError(
            "expected a shard_size of at least 1 and a max_bad_fraction from 0 to 1, "
            f"got {shard_size} and {max_bad_fraction}"
        )
    if len(source) == 0:
        raise UserError(f"{source.name}: the source holds no records")
    codec, tokenizer = _load_codec(codec_dir), load_tokenizer(tokenizer_dir)
    made_from = {
        "source": {"name": source.name, "fingerprint": source.fingerprint()},
        "codec": _hash_directory(Path(codec_dir)),
        "tokenizer": _hash_directory(Path(tokenizer_dir)),
        "gates": dataclasses.asdict(gates),
        "shard_size": shard_size,
    }
    work = PartialDataset(out.with_name(out.name + ".partial"), made_from, len(source))
    if not work.complete:
        encoder = _Encoder(source, codec, tokenizer, gates)
        _write_shards(work, encoder, max_bad_fraction, console)
        shutil.copytree(tokenizer_dir, work.partial / "tokenizer", dirs_exist_ok=True)
        shutil.copytree(codec_dir, work.partial / "codec", dirs_exist_ok=True)
        write_description(work, encoder.vocabulary, codec, gates)
    work.publish(out)
    return open_dataset(out)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ready:
    """A conversation whose sounds have been read: at the codec's rate and in whole frames where the assistant makes
    them, at 16 kHz where it hears them. flags: the gates its sounds do not pass, with reasons."""

    raw: RawConversation
    index: int
    contents: tuple[str | np.ndarray, ...]
    flags: dict[str, str]

    def sounds(self, modality: Modality) -> list[np.ndarray]:
        pairs = zip(self.raw.messages, self.contents, strict=True)
        return [content for message, content in pairs if message.modality == modality]


class _Encoder:
    """Conversations to records."""

    def __init__(self, source: ConversationSource, codec: Codec, tokenizer: Tokenizer, gates: Gates):
        self.source, self.codec, self.tokenizer, self.gates = source, codec, tokenizer, gates
        sizes = codec.codebook_sizes
        if len(set(sizes)) != 1:
            raise UserError(f"the codec's codebooks must have one size, found {', '.join(map(str, sizes))}")
        self.vocabulary = Vocabulary(tokenizer.size, sizes[0], len(sizes))

    def read(self, index: int) -> _Ready | Rejected:
        """Conversation `index` with its sounds."""
        try:
            raw = self.source[index]
        except BadRecord as error:
            return Rejected(None, index, "", str(error))
        where = f"{self.source.name} record {index} (id {raw.id})"
        contents, flags = [], {}
        try:
            if not raw.messages:
                raise BadRecord("the conversation has no messages")
            for message in raw.messages:
                content = message.content
                if message.modality != Modality.TEXT:
                    content = self._read_sound(message)
                    rate = self.codec.sample_rate if message.modality == Modality.AUDIO else SAMPLE_RATE
                    flags |= self.gates.judge_sound(content, rate)
                elif not content.strip():
                    raise BadRecord("a text is empty")
                contents.append(content)
            texts = [content for content in contents if isinstance(content, str)]
            if not _is_unicode("".join([raw.id, raw.caption, *texts])):
                raise BadRecord("id or text holds half a surrogate pair, which is no text")
        except (BadRecord, BadAudio) as error:
            return Rejected(raw.id, index, "", f"{where}: {error}")
        return _Ready(raw, index, tuple(contents), flags)

    def _read_sound(self, message: RawMessage) -> np.ndarray:
        made = message.modality == Modality.AUDIO
        wav = message.content.read(self.codec.sample_rate if made else SAMPLE_RATE)
        if not np.isfinite(wav).all():
            raise BadRecord(f"{int((~np.isfinite(wav)).sum())} of {len(wav)} samples are NaN or infinite")
        least = self.codec.hop if made else SHORTEST
        if len(wav) < least:
            raise BadRecord(f"{len(wav)} samples are too few, one frame takes {least}")
        return wav[: len(wav) // self.codec.hop * self.codec.hop] if made else wav

    def encode(self, conversations: Sequence[_Ready]) -> list[Record]:
        wavs = [wav for ready in conversations for wav in ready.sounds(Modality.AUDIO)]
        codes = iter(self.codec.encode_batch(wavs) if wavs else ())
        return [self._record(ready, codes) for ready in conversations]

    def _record(self, ready: _Ready, codes: Iterator[np.ndarray]) -> Record:
        messages = []
        for message, content in zip(ready.raw.messages, ready.contents, strict=True):
            if message.modality == Modality.TEXT:
                content = np.array(self.tokenizer.encode(content), np.int32)
            elif message.modality == Modality.AUDIO:
                content = next(codes)
            else:
                content = len(content)
            messages.append(Message(message.role, message.modality, content, message.audio_tag))
        without_frames = [
            dataclasses.replace(message, content=0) if message.modality == Modality.CLIP else message
            for message in messages
        ]
        return Record(
            id=ready.raw.id,
            source=self.source.name,
            messages=tuple(messages),
            caption=ready.raw.caption,
            scene=ready.raw.scene,
            rows=len(build_grid(without_frames, self.vocabulary).tokens),
            clips=tuple(to_flac(wav) for wav in ready.sounds(Modality.CLIP)),
        )


def _write_shards(work: PartialDataset, encoder: _Encoder, max_bad_fraction: float, console: Console | None) -> None:
    drops_duplicates = any(gate.startswith("duplicate") for gate in encoder.gates.drop)
    earlier = False  # whether a shard before this one is written anew
    for shard in range(work.num_shards):
        report = work.report(shard)
        # A record that was mended since is no longer bad; and what follows may be a duplicate of it.
        mended = report is not None and any(not isinstance(encoder.read(bad.index), Rejected) for bad in report.bad)
        if mended or (report is not None and earlier and drops_duplicates):
            work.reopen_shard(shard)
        earlier |= mended or report is None
    pending = [shard for shard in range(work.num_shards) if work.report(shard) is None]
    done = work.num_records - sum(len(work.inputs(shard)) for shard in pending)
    bad = sum(len(report.bad) for report in work.reports())
    _check_bad(work, bad, max_bad_fraction)
    seen = Seen()
    if drops_duplicates:
        for report in work.reports():
            for hashes in report.hashes:
                seen.add(*hashes)
    stream = itertools.chain.from_iterable(work.inputs(shard) for shard in pending)
    with (
        ThreadPoolExecutor(_READERS) as pool,
        ClipProgress(console or Console(quiet=True), work.num_records, done) as progress,
    ):
        try:
            read = _read_ahead(encoder, stream, pool)
            for shard in pending:
                report = _write_shard(work, encoder, shard, read, seen, progress)
                bad += len(report.bad)
                _check_bad(work, bad, max_bad_fraction)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if sum(report.records for report in work.reports()) == 0:
        work.write_quarantine()
        raise UserError(
            f"{encoder.source.name}: nothing of it passes the gates; {work.partial / 'quarantine.jsonl'} says why: "
            f"remove {work.partial} and open the gates further"
        )
    work.write_quarantine()


def _write_shard(
    work: PartialDataset,
    encoder: _Encoder,
    shard: int,
    read: Iterator[_Ready | Rejected],
    seen: Seen,
    progress: ClipProgress,
) -> ShardReport:
    gates, codec = encoder.gates, encoder.codec
    stored, hashes, flagged, rejected = [], [], Counter(), []
    totals = Counter()
    rows, clips = [], []
    indices = iter(work.inputs(shard))
    while group := list(itertools.islice(indices, _GROUP)):
        found = list(itertools.islice(read, len(group)))
        rejected += [each for each in found if isinstance(each, Rejected)]
        good = [each for each in found if not isinstance(each, Rejected)]
        for ready in good:
            flagged.update(ready.flags.keys())
            rejected += _dropped(ready, ready.flags, gates)[:1]
        good = [ready for ready in good if not _dropped(ready, ready.flags, gates)]
        new = 0.0
        for ready, record in zip(good, encoder.encode(good), strict=True):
            heard = [message.content for message in record.messages if message.modality == Modality.CLIP]
            known = _hashes(record, ready)
            too_long = gates.judge_rows(record.rows + sum(-(-samples // _SAMPLES_PER_ROW) for samples in heard))
            flagged.update(too_long.keys())
            dropped = _dropped(ready, too_long | seen.find(*known), gates)
            if dropped:
                rejected.append(dropped[0])
                continue
            seen.add(*known)
            hashes.append(list(known))
            rows.append(record.rows)
            clips.append(heard)
            stored.append(to_bytes(record, encoder.vocabulary.num_codebooks))
            made = sum(len(wav) for wav in ready.sounds(Modality.AUDIO))
            texts = (len(m.content) for m in record.messages if m.modality == Modality.TEXT)
            totals.update(samples=made, heard=sum(heard), text_tokens=sum(texts))
            new += made / codec.sample_rate + sum(heard) / SAMPLE_RATE
        progress.advance(len(group), new)
    name, sha256, size = work.write_shard(shard, stored)
    report = ShardReport(
        shard=shard,
        name=name,
        sha256=sha256,
        bytes=size,
        samples=totals["samples"],
        heard=totals["heard"],
        text_tokens=totals["text_tokens"],
        flagged=dict(sorted(flagged.items())),
        rows=rows,
        clips=clips,
        hashes=hashes,
        rejected=sorted(rejected, key=lambda each: each.index),
    )
    work.finish_shard(report)
    return report


def _dropped(ready: _Ready, flags: dict[str, str], gates: Gates) -> list[Rejected]:
    """For each gate that leaves the conversation out, in the order of `flags`."""
    return [
        Rejected(ready.raw.id, ready.index, gate, f"record {ready.index} (id {ready.raw.id}): {reason}")
        for gate, reason in flags.items()
        if gate in gates.drop
    ]


def _hashes(record: Record, ready: _Ready) -> tuple[int | None, int | None]:
    """Of caption and audio; None where no sound is made."""
    codes = [message.content for message in record.messages if message.modality == Modality.AUDIO]
    if not codes:
        return None, None
    said = [m.content for m in ready.raw.messages if m.modality == Modality.TEXT and m.role != Role.ASSISTANT]
    return caption_hash("\n".join(said)), audio_hash(codes)


def _read_ahead(encoder: _Encoder, indices: Iterator[int], pool: ThreadPoolExecutor) -> Iterator[_Ready | Rejected]:
    """The conversations in order, read by other threads while the codec works."""
    waiting = deque(pool.submit(encoder.read, index) for index in itertools.islice(indices, _READ_AHEAD))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(encoder.read, index) for index in itertools.islice(indices, 1))


def _check_bad(work: PartialDataset, bad: int, max_bad_fraction: float) -> None:
    if bad <= max_bad_fraction * work.num_records and bad < work.num_records:
        return
    work.write_quarantine()
    raise UserError(
        f"{work.made_from['source']['name']}: {bad} of {work.num_records} records can not be used, allowed are "
        f"{max_bad_fraction:.1%}; {work.partial / 'quarantine.jsonl'} names each and says why: mend them, "
        "or allow more with max_bad_fraction, and run again"
    )


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
