"""How the reference loads its training data, in its smallest form, to be measured beside our loader.

The design is NVIDIA/audio-intelligence's (`UALM/dataloader`, `ualm_job.py` at 78024ec). Sounds are members of tar
files; an index in memory says for each id in which tar, from which byte and how many bytes. Ids are sorted into batches
once, from length statistics, as Python lists. Workers of a PyTorch DataLoader seek, decode and lay out; the collate
function joins a batch end to end (its method "pack"; "bucket", its default, pads to the longest instead). The codec
runs on the GPU inside the training step, so the loader hands out waveforms, and rows that codes shall fill.

What is given to it here: the index holds text ids (its workers tokenise), sounds are mono at the codec's rate (they
resample and choose a channel), ids are int32 and weights float32 (theirs are wider), batches are planned before the
clock starts, and conversations are laid out by the same function as ours. With kind "codes" the tars hold codes, which
it can not do: then neither the codec nor decoding costs it anything. The codec's own time is left out everywhere.

Needs torch, which no other part of loading does.
"""

import bisect
import dataclasses
import io
import itertools
import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch

from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Message, Modality
from ualm_jax.tokens.vocabulary import Vocabulary

KINDS = {"codes": "npy", "wav": "wav", "flac": "flac"}
"""What the tars hold, and the name it ends with there."""
_RATE, _HOP = 16_000, 320


@dataclasses.dataclass(frozen=True)
class Entry:
    """A conversation in the index. rows: of its token grid.

    messages: where it makes a sound, their last one has no codes; they are `size` bytes of `tar` from byte `offset`.
    """

    messages: tuple[Message, ...]
    rows: int
    tar: str | None = None
    offset: int = 0
    size: int = 0


class Item(NamedTuple):
    """A conversation laid out, and the sound that is still to be encoded."""

    tokens: np.ndarray
    weights: np.ndarray
    wav: np.ndarray | None


def write_tars(
    folder: pathlib.Path, kind: str, conversations: Sequence[tuple[Message, ...]], vocabulary: Vocabulary, per_tar: int
) -> dict[str, Entry]:
    """Their sounds into tar files; the index of them all. Sounds are noise, as long as the codes say."""
    index = {}
    for first in range(0, len(conversations), per_tar):
        path = folder / f"{kind}-{first // per_tar:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for number, messages in enumerate(conversations[first : first + per_tar], start=first):
                rows = len(build_grid(messages, vocabulary).tokens)
                sound = messages[-1]
                if sound.modality == Modality.TEXT:
                    index[str(number)] = Entry(messages, rows)
                    continue
                content = _encode(kind, sound.content, np.random.default_rng(number))
                member = tarfile.TarInfo(f"{number}.{KINDS[kind]}")
                member.size = len(content)
                offset = tar.offset + tarfile.BLOCKSIZE
                tar.addfile(member, io.BytesIO(content))
                silent = dataclasses.replace(sound, content=sound.content[:0])
                index[str(number)] = Entry((*messages[:-1], silent), rows, str(path), offset, len(content))
    return index


def pack(index: dict[str, Entry], batch_rows: int) -> list[list[str]]:
    """Ids in batches of at most this many positions: best fit, the longest first."""
    rooms: list[tuple[int, int]] = []  # (room, batch), sorted
    batches: list[list[str]] = []
    for key in sorted(index, key=lambda key: -index[key].rows):
        place = bisect.bisect_left(rooms, (index[key].rows, -1))
        if place == len(rooms):
            batches.append([])
            room, batch = batch_rows, len(batches) - 1
        else:
            room, batch = rooms.pop(place)
        batches[batch].append(key)
        bisect.insort(rooms, (room - index[key].rows, batch))
    return batches


class Tars(torch.utils.data.Dataset):
    """Laid out conversations by id."""

    def __init__(self, index: dict[str, Entry], kind: str, vocabulary: Vocabulary):
        self._index, self._kind, self._vocabulary = index, kind, vocabulary
        self._files: dict[str, Any] = {}  # stay open, as they do there

    def __getitem__(self, key: str) -> Item:
        entry, wav = self._index[key], None
        messages = entry.messages
        if entry.tar is not None:
            if entry.tar not in self._files:
                self._files[entry.tar] = open(entry.tar, "rb")
            self._files[entry.tar].seek(entry.offset)
            content = io.BytesIO(self._files[entry.tar].read(entry.size))
            if self._kind == "codes":
                codes = np.load(content).astype(np.int32)
            else:
                wav = soundfile.read(content, dtype="float32")[0]
                codes = np.zeros((len(wav) // _HOP, self._vocabulary.num_codebooks), np.int32)
            messages = (*messages[:-1], dataclasses.replace(messages[-1], content=codes))
        grid = build_grid(messages, self._vocabulary)
        return Item(grid.tokens, grid.loss_weights, wav)


def collate(items: Sequence[Item]) -> dict[str, torch.Tensor]:
    """One row [1, T, S] of all conversations, and their sounds padded to the longest [n, N]."""
    batch = {
        "seqs": torch.cat([torch.from_numpy(item.tokens) for item in items])[None],
        "loss_masks": torch.cat([torch.from_numpy(item.weights) for item in items])[None],
        "position_ids": torch.cat([torch.arange(len(item.tokens)) for item in items])[None],
    }
    wavs = [torch.from_numpy(item.wav) for item in items if item.wav is not None]
    if wavs:
        batch["wavs"] = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    return batch


def batches(
    index: dict[str, Entry], kind: str, vocabulary: Vocabulary, *, batch_rows: int, num_workers: int, count: int
) -> Iterator[dict[str, torch.Tensor]]:
    """`count` batches, epoch after epoch, each in another order."""
    planned = pack(index, batch_rows)
    rng = np.random.default_rng(0)
    order = itertools.chain.from_iterable(rng.permutation(len(planned)) for _ in range(-(-count // len(planned))))
    workers: dict[str, Any] = {}
    if num_workers:
        # Forked there. Spawned here, because JAX, which is in this process, does not stand a fork; started once.
        workers = {"prefetch_factor": 10, "multiprocessing_context": "spawn"}
    return iter(
        torch.utils.data.DataLoader(
            Tars(index, kind, vocabulary),
            batch_sampler=[planned[number] for number in itertools.islice(order, count)],
            num_workers=num_workers,
            collate_fn=collate,
            **workers,
        )
    )


def _encode(kind: str, codes: np.ndarray, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    if kind == "codes":
        np.save(file, codes.astype(np.int16))
    else:
        # Low noise, which FLAC packs as well as it packs recordings; white noise would take longer to decode.
        wav = np.convolve(rng.normal(0, 0.1, len(codes) * _HOP), np.full(16, 1 / 16), "same")
        soundfile.write(file, wav, _RATE, format=kind.upper(), subtype="PCM_16")
    return file.getvalue()
