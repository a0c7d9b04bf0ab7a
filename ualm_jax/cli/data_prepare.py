"""`ualm data prepare`: texts, captioned sounds and dialogues to ArrayRecord shards."""

import argparse
import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from ualm_jax.cli.data_prepare_arguments import CONVERSATIONS, make_parser

PARTS = "members, files, columns or fields of the source"  # that were not used


def main(argv: list[str]) -> int:
    args = make_parser().parse_args(argv)

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
    filters = Filters(
        min_seconds=args.min_duration,
        max_seconds=args.max_duration,
        silence_db=args.silence_db,
        max_clipped=args.max_clipped,
        max_length=args.max_length,
        drop=tuple(args.drop),
    )
    with _made_parts(args.out) as made:
        config = PrepareConfig(
            out=args.out,
            tokenizer_dir=args.tokenizer or _own_tokenizer(made / "tokenizer", args.language),
            codec_dir=args.codec or (None if args.sounds_only else _random_codec(made / "codec", args.codec_seed)),
            shape=shape,
            filters=filters,
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
    if args.source in CONVERSATIONS:
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
    if "min_seconds" in seconds:
        raise UserError("--min-seconds is of language 1; in language 2 a plan says how long it lasts.")
    sounds = SoundScript2(args.count, args.seed, sample_rate, args.split or "train", **seconds)
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
