"""Encodes the sounds of a dataset: the second half of making it, on all devices of all processes."""

import dataclasses
import functools
import itertools
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from ualm_jax.codecs.base import Codec
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.dataset.records import Record, from_bytes, to_bytes
from ualm_jax.data.prepare.ahead import map_ahead
from ualm_jax.data.prepare.codec_sound import CodecShape, unpack_sound
from ualm_jax.data.prepare.deduplicate import deduplicate
from ualm_jax.data.prepare.description import write_description
from ualm_jax.data.prepare.filters import audio_hash
from ualm_jax.data.prepare.partial import PartialDataset, Stored, partial_of, read_records
from ualm_jax.data.prepare.progress import ClipProgress
from ualm_jax.data.prepare.sounds_dataset import SoundsInfo, open_sounds
from ualm_jax.data.raw.files import hash_directory
from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Modality
from ualm_jax.tokens.vocabulary import Vocabulary

_READERS = 8  # threads
_READ_AHEAD = 256  # conversations in memory
_GROUP = 256  # conversations that are encoded together, at most
_GROUP_SECONDS = 240  # of sound for each device, at which a group is closed
_LOOK_EVERY = 0.5  # seconds between looks at what other processes have done


def encode_audio(
    sounds: str | os.PathLike, *, codec_dir: str | os.PathLike, out: str | os.PathLike, console: Console | None = None
) -> DatasetInfo:
    """Encode the sounds in a dataset of `prepare_sounds` into the new dataset `out` (dataset/folder.py).

    All processes of a run call this with the same arguments and see the same folders; each encodes its share of the
    shards on its own devices. A clip's codes depend on the clip alone, so the result does not depend on the number of
    processes and devices, nor on interruptions: called again after a kill, it continues.

    console: where progress is shown, None for silence.

    Raises UserError: `out` exists, a partial result was made from something else, an unreadable or unfit codec, a
    damaged shard.
    """
    out = Path(out)
    work = PartialDataset(partial_of(out))
    write_codes(work, open_sounds(sounds), load_codec(codec_dir), codec_dir, console)
    if jax.process_index() == 0:
        work.publish(out)
    _wait_until((out / "dataset.json").is_file)
    return open_dataset(out)


def load_codec(directory: str | os.PathLike) -> Codec:
    return XCodec.from_directory(directory, jax.local_devices())


def write_codes(
    work: PartialDataset, sounds: SoundsInfo, codec: Codec, codec_dir: str | os.PathLike, console: Console | None
) -> None:
    """What `encode_audio` does before the result gets its name. In process 0 the result is complete on return."""
    vocabulary = _vocabulary(sounds, codec)
    work.begin(sounds.made_from | {"sounds": sounds.key, "codec": hash_directory(codec_dir)}, len(sounds.shards))
    pending = np.array([not work.complete and not work.has_report(shard) for shard in range(work.num_shards)])
    # All process what process 0 finds to be done, and none begins before all have looked.
    pending = multihost_utils.broadcast_one_to_all(pending)
    mine = np.flatnonzero(pending)[jax.process_index() :: jax.process_count()].tolist()
    _encode_shards(work, sounds, codec, mine, Console(quiet=True) if console is None else console)
    if jax.process_index() != 0 or work.complete:
        return
    for shard in range(work.num_shards):
        _wait_until(functools.partial(work.has_report, shard))
    tally = deduplicate(work, "duplicate-audio", leave_out="duplicate-audio" in sounds.made_from["filters"]["drop"])
    tally = dataclasses.replace(
        tally,
        filters=dict(Counter(sounds.filters) + Counter(tally.filters)),
        rejected=sorted([*sounds.rejected, *tally.rejected], key=lambda each: each.index),
        unused=list(sounds.not_used),
    )
    shutil.copytree(sounds.directory / "tokenizer", work.partial / "tokenizer", dirs_exist_ok=True)
    shutil.copytree(codec_dir, work.partial / "codec", dirs_exist_ok=True)
    write_description(work, tally, vocabulary, {"sample_rate": codec.sample_rate, "frame_rate": codec.frame_rate})


def _vocabulary(sounds: SoundsInfo, codec: Codec) -> Vocabulary:
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


def _encode_shards(work: PartialDataset, sounds: SoundsInfo, codec: Codec, shards: list[int], console: Console) -> None:
    """Threads read and unpack what comes next, another one keeps the devices busy, and this one writes."""
    items = map_ahead(_unpack, _read(sounds, shards), threads=_READERS, ahead=_READ_AHEAD)
    groups = _groups(items, _GROUP_SECONDS * codec.sample_rate * jax.local_device_count())
    encoded = map_ahead(functools.partial(_encode, codec), groups, threads=1, ahead=2)
    records = itertools.chain.from_iterable(encoded)
    total = sum(sounds.shard_records[shard] for shard in shards)
    with ClipProgress(console, "codes", sounds.records, sounds.records - total) as progress:
        for shard in shards:
            chosen = zip(sounds.indices(shard), records, strict=False)
            work.write_shard(shard, (((), _stored(index, *each, codec, progress)) for index, each in chosen))


def _read(sounds: SoundsInfo, shards: list[int]) -> Iterator[bytes]:
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


def _groups(items: Iterable[_Item], most: int) -> Iterator[list[_Item]]:
    """Items that are encoded together, of about `most` samples."""
    group, samples = [], 0
    for item in items:
        group.append(item)
        samples += sum(map(len, item.wavs))
        if samples >= most or len(group) == _GROUP:
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
    samples = sum(map(len, codes)) * codec.hop
    progress.advance(1, samples / codec.sample_rate)
    return Stored(
        data=to_bytes(record, len(codec.codebook_sizes)),
        index=index,
        length=record.length,
        samples=samples,
        text_tokens=sum(len(message.content) for message in record.messages if message.modality == Modality.TEXT),
        clips=[message.content for message in record.messages if message.modality == Modality.CLIP],
        hash=audio_hash(codes) if codes else None,
    )


def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(_LOOK_EVERY)
