"""Encodes the sounds of a dataset: the second half of making it, on all devices of all processes."""

import contextlib
import dataclasses
import functools
import itertools
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

from ualm_jax.codecs.base import Codec
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.codec_sound import CodecShape, unpack_sound
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.dataset.pairs import conversations_of
from ualm_jax.data.dataset.records import Record, from_bytes, to_bytes
from ualm_jax.data.prepare.ahead import map_ahead
from ualm_jax.data.prepare.deduplicate import deduplicate
from ualm_jax.data.prepare.description import write_description
from ualm_jax.data.prepare.filters import audio_hash
from ualm_jax.data.prepare.partial import PartialDataset, partial_of
from ualm_jax.data.prepare.peers import Peers
from ualm_jax.data.prepare.progress import ClipProgress
from ualm_jax.data.prepare.reports import Stored
from ualm_jax.data.prepare.shard_files import read_records
from ualm_jax.data.prepare.sounds_dataset import SoundsToEncode, open_sounds_to_encode
from ualm_jax.data.raw.files import hash_directory
from ualm_jax.errors import UserError
from ualm_jax.parallel.processes import from_first
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Modality
from ualm_jax.tokens.vocabulary import Vocabulary

_READERS = 8  # threads
_READ_AHEAD = 512  # conversations in memory
_READ_AHEAD_BYTES = 1 << 28  # of their FLAC, of which sounds in memory take several times as much
_GROUP = 256  # conversations that are encoded together, for each device
_GROUP_SECONDS = 960  # of sound for each device, at which a group is closed


def encode_audio(
    sounds: str | os.PathLike, *, codec_dir: str | os.PathLike, out: str | os.PathLike, console: Console | None = None
) -> DatasetInfo:
    """Encode the sounds in a dataset of `prepare_sounds` into the new dataset `out` (dataset/folder.py).

    All processes of a run call this with the same arguments and see the same folders; each encodes its share of the
    shards on its own devices. A clip's codes depend on the clip alone, so the result does not depend on the number of
    processes and devices, nor on interruptions: called again after a kill, it continues.

    console: where progress is shown, None for silence.

    Raises UserError: `out` exists, a partial result was made from something else, an unreadable or unfit codec, a
    damaged shard, another process of the run that has stopped or shows no sign of life.
    """
    work = PartialDataset(partial_of(Path(out)))
    out, index, count = Path(out).absolute(), jax.process_index(), jax.process_count()
    meeting_place = work.partial.with_name(work.partial.name + ".peers")
    with Peers(meeting_place, _name_of_run(), index, count) as peers:
        with work.locked() if index == 0 else contextlib.nullcontext():
            write_codes(work, open_sounds_to_encode(sounds), load_codec(codec_dir), codec_dir, console, peers)
            if index == 0:
                work.publish(out)
        peers.wait((out / "dataset.json").is_file, range(1))
    return open_dataset(out)


def load_codec(directory: str | os.PathLike) -> Codec:
    return XCodec.from_directory(directory, jax.local_devices())


def write_codes(
    work: PartialDataset,
    sounds: SoundsToEncode,
    codec: Codec,
    codec_dir: str | os.PathLike,
    console: Console | None,
    peers: Peers,
) -> None:
    """What `encode_audio` does before the result gets its name. In process 0 the result is complete on return."""
    vocabulary = _vocabulary(sounds, codec)
    made_from = sounds.made_from | {"sounds": sounds.key, "codec": hash_directory(codec_dir)}
    begin = functools.partial(work.begin, made_from, len(sounds.shards), sounds.shard_sha256.__getitem__)
    if peers.index == 0:
        begin()
        peers.publish("pending", [] if work.complete else _pending(work, sounds))
    pending = peers.read("pending", writer=0)
    if peers.index != 0:
        begin()
    mine = pending[peers.index :: peers.count]
    _encode_shards(work, sounds, codec, mine, Console(quiet=True) if console is None else console)
    if peers.index != 0 or work.complete:
        return
    for place, shard in enumerate(pending):
        owner = place % peers.count
        peers.wait(functools.partial(work.has_report, shard), range(owner, owner + 1))
    tally = deduplicate(work, "duplicate-audio", sounds.remaining_filters)
    tally = dataclasses.replace(
        tally,
        filters=dict(Counter(sounds.filters) + Counter(tally.filters)),
        rejected=sorted([*sounds.rejected, *tally.rejected], key=lambda each: each.index),
        unused=list(sounds.not_used),
    )
    for name, source in (("tokenizer", sounds.directory / "tokenizer"), ("codec", codec_dir)):
        shutil.copytree(source, work.partial / name, dirs_exist_ok=True)
    write_description(work, tally, vocabulary, {"sample_rate": codec.sample_rate, "frame_rate": codec.frame_rate})


def _name_of_run() -> str:
    """Differs between runs, and is the same in all processes of one."""
    number = np.uint32(secrets.randbits(32))
    return f"{int(from_first('agree on a name of the run', number)):08x}"


def _pending(work: PartialDataset, sounds: SoundsToEncode) -> list[int]:
    """The shards that are to be encoded. Those that were made of other sounds are taken back."""
    pending = []
    for shard, sha256 in enumerate(sounds.shard_sha256):
        report = work.report(shard)
        if report is None or report.made_of != sha256:
            work.take_back(shard)
            pending.append(shard)
    return pending


def _vocabulary(sounds: SoundsToEncode, codec: Codec) -> Vocabulary:
    """Raises UserError if the sounds were prepared for a codec of another shape."""
    sizes = codec.codebook_sizes
    if len(set(sizes)) != 1:
        raise UserError(f"the codec's codebooks must have one size, found {', '.join(map(str, sizes))}")
    shape = CodecShape.of(codec)
    for field in dataclasses.fields(CodecShape):
        found, expected = getattr(shape, field.name), getattr(sounds.shape, field.name)
        if found != expected:
            raise UserError(
                f"{sounds.directory}: prepared for a codec with {field.name} {expected}, this one has {found}; "
                "prepare it again with --codec"
            )
    return Vocabulary(load_tokenizer(sounds.directory / "tokenizer").size, sizes[0], len(sizes))


class _Item(NamedTuple):
    """A record, and its target audio."""

    record: Record
    wavs: list[np.ndarray]


def _encode_shards(
    work: PartialDataset, sounds: SoundsToEncode, codec: Codec, shards: list[int], console: Console
) -> None:
    """Threads read and unpack what comes next, another one keeps the devices busy, and this one writes."""
    devices = jax.local_device_count()
    items = map_ahead(_unpack, _read(sounds, shards), threads=_READERS, ahead=_READ_AHEAD, most=_READ_AHEAD_BYTES)
    # A CPU takes seconds for a clip: with one at a time, progress is seen.
    size = 1 if devices == 1 and jax.default_backend() == "cpu" else _GROUP * devices
    groups = _groups(items, size, _GROUP_SECONDS * codec.sample_rate * devices)
    encoded = map_ahead(functools.partial(_encode, codec), groups, threads=1, ahead=2)
    records = itertools.chain.from_iterable(encoded)
    total = sum(sounds.shard_records[shard] for shard in shards)
    if total:
        console.print("codes: the codec is compiled first")
    with ClipProgress(console, "codes", sounds.records, sounds.records - total) as progress:
        for shard in shards:
            chosen = zip(sounds.indices(shard), records, strict=False)
            stored = (_stored(index, *each, codec, progress) for index, each in chosen)
            work.write_shard(shard, sounds.shard_sha256[shard], stored)


def _read(sounds: SoundsToEncode, shards: list[int]) -> Iterator[bytes]:
    for shard in shards:
        path, count = sounds.shards[shard], 0
        for data in read_records(path):
            count += 1
            yield data
        if count != sounds.shard_records[shard]:
            raise UserError(f"{path}: holds {count} records, expected {sounds.shard_records[shard]}; copy it again")


def _unpack(data: bytes) -> _Item:
    record = from_bytes(data, None)
    with_sound = [message for message in record.messages if message.modality != Modality.TEXT]
    heard, wavs = [], []
    for message, clip in zip(with_sound, record.clips, strict=True):
        if message.modality == Modality.AUDIO:
            wavs.append(unpack_sound(clip))
        else:
            heard.append(clip)
    return _Item(dataclasses.replace(record, clips=tuple(heard)), wavs)


def _groups(items: Iterable[_Item], size: int, most: int) -> Iterator[list[_Item]]:
    """Items that are encoded together: `size` of them, or of about `most` samples."""
    group, samples = [], 0
    for item in items:
        group.append(item)
        samples += sum(map(len, item.wavs))
        if samples >= most or len(group) == size:
            yield group
            group, samples = [], 0
    if group:
        yield group


def _encode(codec: Codec, group: list[_Item]) -> list[tuple[Record, list[np.ndarray]]]:
    """The records with their codes, and the codes alone."""
    wavs = [wav for item in group for wav in item.wavs]
    encoded = iter(codec.encode_batch(wavs) if wavs else ())
    done = []
    for item in group:
        codes = list(itertools.islice(encoded, len(item.wavs)))
        if [len(each) * codec.hop for each in codes] != [len(wav) for wav in item.wavs]:
            raise ValueError(f"{item.record.id}: the codec does not make one frame of every {codec.hop} samples")
        rest = iter(codes)
        messages = tuple(
            dataclasses.replace(message, content=next(rest)) if message.modality == Modality.AUDIO else message
            for message in item.record.messages
        )
        done.append((dataclasses.replace(item.record, messages=messages), codes))
    return done


def _stored(index: int, record: Record, codes: list[np.ndarray], codec: Codec, progress: ClipProgress) -> Stored:
    progress.advance(1, sum(map(len, codes)) * codec.hop / codec.sample_rate)
    said = [message for one in conversations_of(record) for message in one.messages]
    return Stored(
        data=to_bytes(record, len(codec.codebook_sizes)),
        index=index,
        length=record.length,
        samples=sum(len(message.content) for message in said if message.modality == Modality.AUDIO) * codec.hop,
        text_tokens=sum(len(message.content) for message in said if message.modality == Modality.TEXT),
        clips=[message.content for message in said if message.modality == Modality.CLIP],
        hash=audio_hash(codes) if codes else None,
        pair=record.pair is not None,
        speech=sum(len(message.content) for message in said if message.is_speech) * codec.hop,
    )
