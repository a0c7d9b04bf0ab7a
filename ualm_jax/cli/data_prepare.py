"""`ualm data prepare`: captioned sounds to ArrayRecord shards."""

import argparse
import contextlib
import pathlib
import tempfile

_DESCRIPTION = """\
Reads captioned sounds, encodes each once with the codec, and writes a dataset folder that training reads: ArrayRecord
shards, counts and hashes in dataset.json, the tokenizer and codec that made it, and quarantine.jsonl with every sound
that could not be used and why. Killed at any moment, the same command goes on where it was.

  ualm data prepare --source soundscript --count 512 --out data/script
  ualm data prepare --source manifest --manifest sounds/tuxpaint.jsonl --out data/stamps
"""


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)

    from rich.console import Console

    from ualm_jax.codecs.xcodec.config import read_config
    from ualm_jax.data.prepare import prepare

    with contextlib.ExitStack() as stack:
        made = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        codec = args.codec or _random_codec(made / "codec", args.codec_seed)
        tokenizer = args.tokenizer or _byte_tokenizer(made / "tokenizer")
        info = prepare(
            _source(args, read_config(codec / "config.json").sample_rate),
            tokenizer_dir=tokenizer,
            codec_dir=codec,
            out=args.out,
            task=args.task,
            shard_size=args.shard_size,
            max_bad_fraction=args.max_bad_fraction,
            console=Console(),
        )
    print(
        f"{info.records} conversations, {info.audio_hours:.3f} h of audio, longest {info.longest} rows, "
        f"{info.quarantined} in quarantine: {info.directory}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ualm data prepare", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, choices=("soundscript", "manifest"), help="where sounds come from")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DIR", help="the dataset folder to make")
    parser.add_argument("--tokenizer", type=pathlib.Path, metavar="DIR", help="Hugging Face tokenizer; default: bytes")
    parser.add_argument(
        "--codec", type=pathlib.Path, metavar="DIR", help="X-codec as Hugging Face stores it; default: tiny, random"
    )
    parser.add_argument("--codec-seed", type=int, default=0, help="of the random codec (default %(default)s)")
    parser.add_argument("--task", default="caption_to_audio", help="default %(default)s; or transcription_to_speech")
    parser.add_argument("--shard-size", type=int, default=1024, help="sounds per shard (default %(default)s)")
    parser.add_argument(
        "--max-bad-fraction", type=float, default=0.05, help="stop when more sounds are bad (default %(default)s)"
    )
    manifest = parser.add_argument_group("manifest: JSONL of audio, caption and optional start, end (s), id")
    manifest.add_argument("--manifest", type=pathlib.Path, metavar="FILE")
    script = parser.add_argument_group("soundscript: generated sounds whose captions are exact")
    script.add_argument("--count", type=int, default=512, help="how many (default %(default)s)")
    script.add_argument("--seed", type=int, default=0, help="of the sounds (default %(default)s)")
    script.add_argument("--min-seconds", type=float, default=1.0, help="default %(default)s")
    script.add_argument("--max-seconds", type=float, default=4.0, help="default %(default)s")
    return parser


def _source(args: argparse.Namespace, sample_rate: int):
    from ualm_jax.data.manifest import Manifest
    from ualm_jax.data.soundscript import SoundScript
    from ualm_jax.errors import UserError

    if args.source == "manifest":
        if args.manifest is None:
            raise UserError("--source manifest needs --manifest FILE.")
        return Manifest(args.manifest, sample_rate)
    return SoundScript(args.count, args.seed, sample_rate, args.min_seconds, args.max_seconds)


def _random_codec(directory: pathlib.Path, seed: int) -> pathlib.Path:
    from ualm_jax.codecs.xcodec.init import init_random, tiny_config
    from ualm_jax.codecs.xcodec.weights import save_directory

    config = tiny_config()
    save_directory(init_random(config, seed), config, directory)
    print("No --codec: a tiny one with random weights. Its tokens can be learnt, its sound is not music.")
    return directory


def _byte_tokenizer(directory: pathlib.Path) -> pathlib.Path:
    from ualm_jax.tokens.tokenizer import save_byte_tokenizer

    save_byte_tokenizer(directory)
    return directory
