"""`ualm data prepare`: texts, captioned sounds and dialogues to ArrayRecord shards."""

import argparse
import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from ualm_jax.cli.arguments import Parser, integer, number, output_directory

_DESCRIPTION = """\
Reads conversations, encodes target audio with the codec, keeps audio input as FLAC, and writes a dataset folder that
training reads: ArrayRecord shards, counts and hashes in dataset.json, the tokenizer and codec that made it, and
quarantine.jsonl with every record that was left out and why. Killed at any moment, the same command continues. With
--sounds-only it stops before the codec, and `ualm data encode` does the rest, on other machines or many; the result is
the same, byte for byte.

  ualm data prepare --source soundscript --count 512 --out data/script
  ualm data prepare --source soundscript --language 2 --task question --count 512 --out data/questions
  ualm data prepare --source manifest --input sounds/tuxpaint.jsonl --out data/stamps
  ualm data prepare --source manifest --input sounds/tuxpaint.jsonl --task audio_to_caption --out data/stamps-heard
  ualm data prepare --source text --input math.jsonl --out data/math
  ualm data prepare --source understanding --input audio_skills.json --root /sounds --out data/skills
  ualm data prepare --source hf --input clotho/ --split train --caption-field text --out data/clotho
  ualm data prepare --source webdataset --input 'shards/*.tar' --out data/web
  ualm data prepare --source manifest --input /data/all.jsonl --sounds-only --out /data/sounds
  ualm data prepare --source manifest --input /data/all.jsonl --sounds-only --out /data/sounds \\
      --beam runner=FlinkRunner flink_master=host:8081

Sources. Captioned sounds, made into conversations of --task: soundscript (generated, captions are exact), manifest
(JSONL of audio, caption and optional start, end, id), hf (folder of the hub or of save_to_disk with an audio column),
webdataset (tar files). Conversations as they are: text, understanding, generation, dialogue; and pair, two answers to
one prompt (docs/data.md shows each form).
"""

PARTS = "members, files, columns or fields of the source"  # that were not used
_CAPTIONED = ("soundscript", "manifest", "hf", "webdataset")
_CONVERSATIONS = ("text", "understanding", "generation", "dialogue", "pair")


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)

    from ualm_jax.parallel.startup import start

    start()

    from rich.console import Console

    from ualm_jax.codecs.xcodec.config import read_config
    from ualm_jax.data.dataset.codec_sound import X_CODEC, CodecShape
    from ualm_jax.data.prepare.config import PrepareConfig
    from ualm_jax.data.prepare.filters import Filters
    from ualm_jax.data.prepare.job import prepare, prepare_sounds

    shape = X_CODEC
    if args.codec is not None:
        codec = read_config(args.codec / "config.json")
        shape = CodecShape(codec.sample_rate, codec.hop, codec.num_quantizers)
    source = _source(args, shape.sample_rate)
    with _made_parts(args.out) as made:
        config = PrepareConfig(
            out=args.out,
            tokenizer_dir=args.tokenizer or _own_tokenizer(made / "tokenizer", args.language),
            codec_dir=args.codec or (None if args.sounds_only else _random_codec(made / "codec", args.codec_seed)),
            shape=shape,
            filters=Filters(
                min_seconds=args.min_duration,
                max_seconds=args.max_duration,
                silence_db=args.silence_db,
                max_clipped=args.max_clipped,
                max_length=args.max_length,
                drop=tuple(args.drop),
            ),
            shard_size=args.shard_size,
            max_bad_fraction=args.max_bad_fraction,
            workers=args.workers,
            beam=args.beam,
        )
        work = prepare_sounds if args.sounds_only else prepare
        if args.codec is None and not args.sounds_only:
            print("No --codec: a tiny one with random weights. Its tokens can be learnt, its sound is not music.")
        info = work(source, config, Console())
    print_summary(info, tuple(args.drop))
    if args.sounds_only:
        print(f"Its sounds are not encoded yet: ualm data encode {info.directory} --codec DIR --out OUT")
    return 0


def print_summary(info, drop: tuple[str, ...]) -> None:
    """What a new dataset holds, and what its filters found. info: DatasetInfo or SoundsInfo."""
    found = ", ".join(f"{name} {count}" for name, count in info.filters.items() if count)
    print(
        f"{info.records} conversations, {info.audio_hours:.3f} h of target audio, {info.heard_hours:.3f} h of audio "
        f"input, longest {info.longest} positions{' without audio input' if info.heard_hours else ''}, "
        f"{info.quarantined} left out: {info.directory}"
    )
    if info.unused:
        print(f"Not used: {info.unused} {PARTS}, named in {info.directory / 'quarantine.jsonl'}")
    if found:
        print(f"Found by the filters ({', '.join(drop) or 'none'} left out): {found}")


def _parser() -> Parser:
    from ualm_jax.data.prepare.config import PrepareConfig
    from ualm_jax.data.prepare.filters import FILTERS, Filters
    from ualm_jax.data.raw.soundscript import SoundScript

    parser = Parser("ualm data prepare", description=_DESCRIPTION)
    parser.set_defaults(
        shard_size=PrepareConfig.shard_size,
        max_bad_fraction=PrepareConfig.max_bad_fraction,
        drop=Filters.drop,
        min_duration=Filters.min_seconds,
        max_duration=Filters.max_seconds,
        silence_db=Filters.silence_db,
        max_clipped=Filters.max_clipped,
        max_length=Filters.max_length,
    )
    parser.add_argument("--source", required=True, choices=_CAPTIONED + _CONVERSATIONS, help="form of the raw data")
    parser.add_argument("--input", metavar="PATH", help="the raw data: a file, a folder (hf), a pattern (webdataset)")
    parser.add_argument("--out", required=True, type=output_directory, metavar="DIR", help="the dataset folder to make")
    parser.add_argument("--root", metavar="DIR", help="where relative sound paths start; default: beside the file")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="of a folder of hf with several; of soundscript, language 2: train, combination or phrasing, of which "
        "training never sees the last two (default train)",
    )
    parser.add_argument(
        "--ignore-fields",
        nargs="+",
        default=(),
        metavar="FIELD",
        help="fields or columns to pass over, although they may name a part of a sound",
    )
    parser.add_argument(
        "--tokenizer",
        type=pathlib.Path,
        metavar="DIR",
        help="Hugging Face tokenizer; default: bytes, or of language 2 its words",
    )
    parser.add_argument(
        "--codec", type=pathlib.Path, metavar="DIR", help="X-codec as Hugging Face stores it; default: tiny, random"
    )
    parser.add_argument(
        "--sounds-only",
        action="store_true",
        help="stop before the codec; of --codec only config.json is read then, default: that of the released X-codec",
    )
    parser.add_argument(
        "--codec-seed", type=integer(at_least=0), default=0, help="of the random codec (default %(default)s)"
    )
    parser.add_argument("--shard-size", type=integer(at_least=1), help="records per shard (default %(default)s)")
    parser.add_argument(
        "--max-bad-fraction",
        type=number(at_least=0, at_most=1),
        help="stop when more records are bad (default %(default)s)",
    )
    where = parser.add_argument_group("where sounds and texts are read")
    where.add_argument(
        "--workers",
        type=integer(at_least=1),
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        metavar="N",
        help="processes of this machine, a shard at a time each (default: one for each core, here %(default)s)",
    )
    where.add_argument(
        "--beam",
        nargs="*",
        metavar="OPTION=VALUE",
        help="an Apache Beam pipeline with these options instead, such as runner=DataflowRunner (extra `beam`)",
    )
    captioned = parser.add_argument_group("captioned sounds")
    captioned.add_argument(
        "--task",
        default="caption_to_audio",
        help="or transcription_to_speech, audio_to_caption, speech_to_transcription, ... (default %(default)s)",
    )
    captioned.add_argument(
        "--question", default="Describe the sound.", metavar="TEXT", help="what tasks that listen ask (%(default)s)"
    )
    captioned.add_argument("--caption-field", default="text", help="column, or field of key.json (default %(default)s)")
    captioned.add_argument("--audio-field", default="audio", help="column of hf (default %(default)s)")
    captioned.add_argument("--id-field", help="column of hf; default: file and row")
    filters = parser.add_argument_group("filters: each counts what it finds; those named by --drop also leave it out")
    filters.add_argument(
        "--drop",
        nargs="*",
        metavar="FILTER",
        help=f"{', '.join(FILTERS)} (default: {' '.join(Filters.drop)})",
    )
    filters.add_argument(
        "--min-duration", type=number(at_least=0), metavar="S", help="seconds of each sound (default %(default)g)"
    )
    filters.add_argument(
        "--max-duration", type=number(above=0), metavar="S", help="seconds of each sound; default: no limit"
    )
    filters.add_argument("--silence-db", type=number(), help="RMS below is silence (default %(default)g)")
    filters.add_argument(
        "--max-clipped",
        type=number(at_least=0, at_most=1),
        help="share of full-scale samples (%(default)s)",
    )
    filters.add_argument(
        "--max-length", type=integer(at_least=1), metavar="N", help="positions of a conversation; default: no limit"
    )
    script = parser.add_argument_group("soundscript: generated sounds whose captions are exact")
    script.add_argument("--count", type=integer(at_least=1), default=512, help="how many (default %(default)s)")
    script.add_argument("--seed", type=integer(at_least=0), default=0, help="of the sounds (default %(default)s)")
    script.add_argument(
        "--min-seconds",
        type=number(above=0, at_most=3600),
        metavar="S",
        help=f"of language 1 (default {SoundScript.min_seconds:g})",
    )
    script.add_argument(
        "--max-seconds",
        type=number(above=0, at_most=3600),
        metavar="S",
        help=f"of language 1 (default {SoundScript.max_seconds:g})",
    )
    script.add_argument(
        "--language",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: captions say all that can be checked, and --task may also be describe, listen, question, text, "
        "enrich, dialogue, critique, imagine or reflect (docs/soundscript.md); default %(default)s",
    )
    return parser


def _source(args: argparse.Namespace, sample_rate: int):
    from ualm_jax.data.raw.conversation import CaptionedConversations
    from ualm_jax.data.raw.formats import JsonConversations
    from ualm_jax.data.raw.hugging_face import HubSounds
    from ualm_jax.data.raw.manifest import Manifest
    from ualm_jax.data.raw.webdataset import WebDatasetSounds
    from ualm_jax.errors import UserError

    if args.source != "soundscript" and args.input is None:
        raise UserError(f"--source {args.source} needs --input PATH.")
    if args.split is not None and args.source not in ("hf", "soundscript"):
        raise UserError(f"--split is of hf and soundscript; a source of {args.source} has no splits.")
    if args.ignore_fields and args.source == "soundscript":
        raise UserError("--ignore-fields is of recorded data; soundscript has no fields.")
    if args.source in _CONVERSATIONS:
        return JsonConversations(args.input, args.source, args.root, ignore=args.ignore_fields)
    if args.source == "manifest":
        sounds = Manifest(args.input, sample_rate, args.root, ignore=args.ignore_fields)
    elif args.source == "hf":
        columns = {"audio": args.audio_field, "caption": args.caption_field, "id": args.id_field}
        sounds = HubSounds(args.input, sample_rate, **columns, split=args.split, ignore=args.ignore_fields)
    elif args.source == "webdataset":
        fields = {"caption": args.caption_field, "ignore": args.ignore_fields}
        sounds = WebDatasetSounds(args.input, sample_rate, **fields)
    else:
        return _soundscript(args, sample_rate)
    return CaptionedConversations(sounds, args.task, args.question)


def _soundscript(args: argparse.Namespace, sample_rate: int):
    from ualm_jax.data.raw.conversation import CaptionedConversations
    from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2
    from ualm_jax.data.raw.soundscript.conversations import TASKS, ScriptConversations
    from ualm_jax.errors import UserError

    seconds = {"min_seconds": args.min_seconds, "max_seconds": args.max_seconds}
    seconds = {name: value for name, value in seconds.items() if value is not None}
    if args.language == 1:
        if args.split is not None:
            raise UserError("--split needs --language 2: nothing is held out of language 1.")
        sounds = SoundScript(args.count, args.seed, sample_rate, **seconds)
        return CaptionedConversations(sounds, args.task, args.question)
    if seconds:
        raise UserError(
            "--min-seconds and --max-seconds are of language 1; in language 2 a plan says how long it lasts."
        )
    sounds = SoundScript2(args.count, args.seed, sample_rate, args.split or "train")
    if args.task in TASKS:
        return ScriptConversations(sounds, args.task)
    return CaptionedConversations(sounds, args.task, args.question)


@contextlib.contextmanager
def _made_parts(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for the tokenizer and the codec that are made here: `OUT.parts`, beside the unfinished `OUT.partial`, so
    that the same command finds and replaces what a killed one has left.

    Raises UserError where `out` can not be made, another job makes it, or something else lies there.
    """
    from ualm_jax.data.prepare.partial import partial_of
    from ualm_jax.errors import UserError
    from ualm_jax.outputs import lock

    folder = partial_of(out).with_suffix(".parts")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if there and not {"lock"} <= there <= {"lock", "tokenizer", "codec"}:
        raise UserError(f"{folder}: in the way, and not of an unfinished dataset; move it, or choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        try:
            for name in ("tokenizer", "codec"):
                shutil.rmtree(folder / name, ignore_errors=True)
            yield folder
        finally:
            shutil.rmtree(folder)


def _random_codec(directory: pathlib.Path, seed: int) -> pathlib.Path:
    from ualm_jax.codecs.xcodec.init import init_random, tiny_config
    from ualm_jax.codecs.xcodec.weights import save_directory

    config = tiny_config()
    save_directory(init_random(config, seed), config, directory)
    return directory


def _own_tokenizer(directory: pathlib.Path, language: int) -> pathlib.Path:
    from ualm_jax.data.raw.soundscript.words import save_tokenizer
    from ualm_jax.tokens.tokenizer import save_byte_tokenizer

    save = save_tokenizer if language == 2 else save_byte_tokenizer
    save(directory)
    return directory
