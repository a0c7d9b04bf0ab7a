"""The options of `ualm data prepare`."""

import os
import pathlib

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

CAPTIONED = ("soundscript", "manifest", "hf", "webdataset")
CONVERSATIONS = ("text", "understanding", "generation", "dialogue", "pair")


def make_parser() -> Parser:
    from ualm_jax.data.prepare.config import PrepareConfig
    from ualm_jax.data.prepare.filters import FILTERS, Filters
    from ualm_jax.data.raw.soundscript import SoundScript, SoundScript2

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
    parser.add_argument("--source", required=True, choices=CAPTIONED + CONVERSATIONS, help="form of the raw data")
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
        help=f"of a scene, in language 2 at least 1 and at most {SoundScript2.max_seconds:g} "
        f"(default {SoundScript.max_seconds:g})",
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
