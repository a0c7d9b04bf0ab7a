"""`ualm generate`: sound from a caption, or words about a sound."""

import argparse
import dataclasses
import pathlib

from ualm_jax.cli.arguments import Parser, input_file, integer, number, output_file, text

_DESCRIPTION = """\
Makes a wav from a caption with the newest checkpoint of a run. The same seed gives the same wav. With --listen, a run
that has an audio encoder says instead what it makes of a sound file.

  ualm generate --workdir runs/tiny --prompt "Two clicks, then a low tone." --out two-clicks.wav
  ualm generate --workdir runs/hears --prompt "What do you hear?" --listen dog.ogg
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm generate", description=_DESCRIPTION)
    parser.add_argument(
        "--workdir",
        required=True,
        type=pathlib.Path,
        metavar="DIR",
        help="of `ualm train`, or what `ualm convert` made",
    )
    parser.add_argument(
        "--step", type=integer(at_least=0), metavar="N", help="of a run; default: its newest checkpoint"
    )
    parser.add_argument("--prompt", required=True, type=text, metavar="TEXT", help="what to hear")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=output_file(".wav", ".flac"), metavar="FILE.wav", help="wav or flac to make")
    target.add_argument("--listen", type=input_file, metavar="FILE", help="sound to be asked about")
    parser.add_argument(
        "--cfg-scale",
        type=number(at_least=0, at_most=100),
        default=3.0,
        help="guidance; 1 is none (default %(default)s)",
    )
    parser.add_argument(
        "--temperature", type=number(at_least=0, at_most=100), default=0.8, help="0 is greedy (default %(default)s)"
    )
    parser.add_argument(
        "--top-k", type=integer(at_least=0, at_most=2**31 - 1), default=20, help="0 is all (default %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=number(above=0, at_most=3600),
        help="exactly so long; default: until the model ends, 20 s at most",
    )
    parser.add_argument("--seed", type=integer(at_least=0, at_most=2**32 - 1), default=0, help="default %(default)s")
    parser.add_argument("--modality", choices=("audio", "speech"), default="audio", help="default %(default)s")
    parser.add_argument("--int8", action="store_true", help="layers with 8-bit weights: half the memory, less exact")
    args = parser.parse_args(argv)

    from ualm_jax.parallel.startup import start

    start()

    import jax

    from ualm_jax.audio.write import write_sound
    from ualm_jax.errors import UserError
    from ualm_jax.generate.sampling import SamplingParams
    from ualm_jax.generate.sound import caption_to_sound
    from ualm_jax.models.int8 import with_int8_layers
    from ualm_jax.pretrained import load

    run = load(args.workdir, step=args.step)
    for name in ("model", "codec", "tokenizer"):
        if getattr(run, name) is None:
            raise UserError(f"{args.workdir} holds no {name}; give a run, or what `ualm convert` made with --codec.")
    if args.int8:
        with jax.set_mesh(run.mesh):
            run = dataclasses.replace(run, model=with_int8_layers(run.model))
    if args.listen is not None:
        print(_answer(run, args))
        return 0
    params = SamplingParams(
        temperature=args.temperature,
        top_k=args.top_k,
        cfg_scale=args.cfg_scale,
        seed=args.seed,
        **_frames(args.seconds, run.codec.frame_rate),
    )
    with jax.set_mesh(run.mesh):
        (wav,) = caption_to_sound(run.model, run.codec, run.tokenizer, [args.prompt], params, args.modality)
    gain = write_sound(args.out, wav, run.codec.sample_rate)
    turned_down = "" if gain == 1 else f", turned down to {gain:.3f} so as not to clip"
    print(f"{args.out}: {len(wav) / run.codec.sample_rate:.2f} s from step {run.step}{turned_down}")
    return 0


def _answer(run, args: argparse.Namespace) -> str:
    import jax

    from ualm_jax.audio.io import read_audio
    from ualm_jax.audio.mel import SAMPLE_RATE
    from ualm_jax.errors import UserError
    from ualm_jax.generate.listening import answer
    from ualm_jax.generate.sampling import SamplingParams

    if run.encoder is None:
        raise UserError(f"{args.workdir} was trained without an audio encoder (train.encoder); it can not listen.")
    wav = read_audio(args.listen, sample_rate=SAMPLE_RATE)
    with jax.set_mesh(run.mesh):
        return answer(run.model, run.encoder, run.tokenizer, args.prompt, wav, SamplingParams(seed=args.seed))


def _frames(seconds: float | None, frame_rate: float) -> dict[str, int]:
    if seconds is None:
        return {"max_frames": round(20 * frame_rate)}
    frames = max(round(seconds * frame_rate), 1)
    return {"min_frames": frames, "max_frames": frames}
