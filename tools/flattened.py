"""Codes one after the other, the layout that tools/proof.py compares the delay pattern with (docs/proof.md).

python tools/flattened.py data DATASET OUT
ualm train --config configs/soundscript.py --config.model.vocabulary.num_codebooks=1 ...
python tools/flattened.py sounds RUN OUT --lists fresh --limit 16

A frame of Q codebooks of K codes is Q frames of one codebook of Q K codes: to the model, a codec of one codebook.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from ualm_jax.cli.arguments import Parser, input_directory, integer, number, output_directory
from ualm_jax.codecs.base import Codec
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.data.dataset.records import Record
from ualm_jax.data.raw.soundscript import SoundScript2
from ualm_jax.evaluate.soundscript.benchmark import LISTS, items
from ualm_jax.evaluate.soundscript.model_sounds import from_model
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.startup import start
from ualm_jax.prefer.datasets import Writer
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Message, Modality
from ualm_jax.tokens.vocabulary import Vocabulary
from ualm_jax.weights.opener import open_weights

SECONDS = 6.0  # no scene of SoundScript is longer
BATCH = 32  # captions at once


class Flattened:
    """A `Codec` of one codebook that is `codec` with several."""

    def __init__(self, codec: Codec):
        self._codec, self._books, self._size = codec, len(codec.codebook_sizes), codec.codebook_sizes[0]
        self.sample_rate = codec.sample_rate
        self.hop, left = divmod(codec.hop, self._books)
        if left:
            raise ValueError(f"{codec.hop} samples of a frame can not be split among {self._books} codebooks")
        self.frame_rate = codec.frame_rate * self._books
        self.context = codec.context * self._books
        self.codebook_sizes = (self._books * self._size,)

    def flatten(self, codes: Int[np.ndarray, "T Q"]) -> Int[np.ndarray, "TQ 1"]:
        return (codes + self._size * np.arange(self._books, dtype=codes.dtype)).reshape(-1, 1)

    def whole(self, codes: Int[np.ndarray, "n 1"]) -> Int[np.ndarray, "T Q"]:
        """The inverse of `flatten`. A frame that was cut off is left out; a code that should be of another codebook is
        taken for the one of that number in the right codebook."""
        frames = max(len(codes) // self._books, 1)
        padded = np.zeros((frames * self._books, 1), codes.dtype)
        padded[: min(len(codes), len(padded))] = codes[: len(padded)]
        return padded.reshape(-1, self._books) % self._size

    def encode(self, wav: Float[np.ndarray, " N"]) -> Int[np.ndarray, "TQ 1"]:
        return self.flatten(self._codec.encode(wav))

    def decode(self, codes: Int[np.ndarray, "n 1"]) -> Float[np.ndarray, " N"]:
        return self._codec.decode(self.whole(codes))

    def encode_batch(self, wavs: Sequence[Float[np.ndarray, " _"]]) -> list[Int[np.ndarray, "_ 1"]]:
        return [self.flatten(codes) for codes in self._codec.encode_batch(wavs)]

    def decode_batch(self, codes: Sequence[Int[np.ndarray, "_ 1"]]) -> list[Float[np.ndarray, " _"]]:
        return self._codec.decode_batch([self.whole(each) for each in codes])


def flatten_dataset(source: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the conversations of a prepared dataset with their codes one after the other."""
    info = open_dataset(source)
    codec = Flattened(XCodec.from_directory(source / "codec"))
    vocabulary = Vocabulary(info.vocabulary.text_size, codec.codebook_sizes[0], 1)

    def flat(record: Record) -> Record:
        messages = tuple(_flat(message, codec) for message in record.messages)
        return dataclasses.replace(record, messages=messages, length=len(build_grid(messages, vocabulary).tokens))

    folders = {name: source / name for name in ("tokenizer", "codec")}
    tokenizer = load_tokenizer(folders["tokenizer"])
    writer = Writer(tokenizer, codec, vocabulary, "audio", folders, {"flattened": info.key})
    writer.write([flat(record) for record in open_records(info)], "flattened", out)


def _flat(message: Message, codec: Flattened) -> Message:
    audio = message.modality == Modality.AUDIO
    return dataclasses.replace(message, content=codec.flatten(message.content)) if audio else message


def make_sounds(run: pathlib.Path, out: pathlib.Path, chosen: Sequence, settings: SamplingParams) -> None:
    """Writes OUT/ID.wav for each item of the benchmark; those that are there are not made again."""
    weights = open_weights(run)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    codec, tokenizer = Flattened(XCodec.from_directory(weights.parts["codec"])), weights.parts["tokenizer"]
    settings = dataclasses.replace(settings, max_frames=round(SECONDS * codec.frame_rate))
    out.mkdir(parents=True, exist_ok=True)
    with jax.set_mesh(mesh):
        model = weights.load_model(mesh)
        for _ in from_model(model, codec, load_tokenizer(tokenizer), settings, out, chosen, BATCH):
            pass


def main(argv: list[str] | None = None) -> None:
    parser = Parser("flattened.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    data = parts.add_parser("data", help="write a prepared dataset with codes one after the other")
    data.add_argument("dataset", type=input_directory)
    data.add_argument("out", type=pathlib.Path)
    sounds = parts.add_parser("sounds", help="make the benchmark's sounds, for `ualm eval soundscript --wavs`")
    sounds.add_argument("run", type=input_directory)
    sounds.add_argument("out", type=output_directory)
    sounds.add_argument("--lists", nargs="+", choices=LISTS, default=list(LISTS), help="of captions (all)")
    sounds.add_argument("--limit", type=integer(at_least=2), help="items of each list")
    longest = SoundScript2.max_seconds
    sounds.add_argument("--max-seconds", type=number(above=0), default=longest, help="only shorter ones (%(default)s)")
    sounds.add_argument("--cfg-scale", type=number(at_least=0), default=1.5, help="guidance (%(default)s)")
    sounds.add_argument("--temperature", type=number(at_least=0), default=0.3, help="(%(default)s)")
    sounds.add_argument("--seed", type=integer(at_least=0), default=0, help="(%(default)s)")
    args = parser.parse_args(argv)
    if args.part == "data":
        flatten_dataset(args.dataset, args.out)
        return
    start()
    settings = SamplingParams(cfg_scale=args.cfg_scale, temperature=args.temperature, seed=args.seed)
    make_sounds(args.run, args.out, items(tuple(args.lists), args.limit, args.max_seconds), settings)


if __name__ == "__main__":
    main()
