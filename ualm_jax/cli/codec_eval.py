"""`ualm codec eval`: what a codec keeps of sounds."""

import argparse
import json

from ualm_jax.cli.arguments import Parser, input_directory, integer, number, output_file

_DESCRIPTION = """\
Encodes and decodes sounds with 1, 2, 4, ... codebooks, measures them, and writes a page to listen to.

  ualm codec eval runs/codec/codec                           held-out scenes of SoundScript, judged by its checker too
  ualm codec eval runs/codec/codec --sounds recordings/
"""


def main(argv: list[str]) -> int:
    page = output_file(".html")
    parser = Parser("ualm codec eval", description=_DESCRIPTION)
    parser.add_argument("codec", type=input_directory, metavar="DIR", help="WORKDIR/codec of a run, or any HF X-codec")
    parser.add_argument("--sounds", type=input_directory, metavar="DIR", help="a folder; SoundScript unless given")
    parser.add_argument("--count", type=integer(at_least=1), default=200, metavar="N", help="sounds (default: 200)")
    parser.add_argument(
        "--seconds", type=number(above=0), default=10.0, help="of each sound of a folder, at most (default: 10)"
    )
    parser.add_argument(
        "--examples", type=integer(at_least=1), default=8, metavar="N", help="sounds on the page (default: 8)"
    )
    parser.add_argument("--plot", type=output_file(".png"), metavar="FILE", help="spectrograms of the first three")
    parser.add_argument("--out", type=page, metavar="FILE.html", help="the page (default: eval.html beside DIR)")
    args = parser.parse_args(argv)
    out = args.out or args.codec.parent / "eval.html"
    figures = out.with_suffix(".json")
    try:
        page(str(out))
        output_file()(str(figures))
    except argparse.ArgumentTypeError as error:
        parser.error(f"{error}; choose another --out")

    from ualm_jax.codecs.xcodec.model import XCodec
    from ualm_jax.evaluate import codec as evaluate
    from ualm_jax.parallel.startup import start

    start()
    codec = XCodec.from_directory(args.codec)
    wavs, names, scenes = _sounds(args, codec.sample_rate, codec.hop)
    codes, made = evaluate.decoded(codec, wavs)
    measured = evaluate.measure(codec, wavs, codes, made)
    right = _right(scenes, wavs, made)
    extra = [
        (f"scenes read right, {label}", ", ".join(f"{track} {share:.1%}" for track, share in shares.items()))
        for label, shares in right.items()
    ]
    shown = names[: args.examples]
    out.write_text(evaluate.page(f"{args.codec}", measured, codec, wavs, made, shown, extra))
    result = {"metrics": measured.metrics, "use": measured.use, "perplexity": measured.perplexity, "right": right}
    figures.write_text(json.dumps(result, indent=2) + "\n")

    for books, row in measured.metrics.items():
        print(f"{books} codebooks  " + "  ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in row))
    print("codes used    " + " ".join(f"{share:.0%}" for share in measured.use))
    print("perplexity    " + " ".join(f"{each:.1f}" for each in measured.perplexity))
    for what, value in extra:
        print(f"{what}: {value}")
    print(f"{out}")
    if args.plot is not None:
        evaluate.draw(args.plot, codec, wavs[:3], made)
        print(f"{args.plot}")
    return 0


_HELD_OUT_SEED = 2**31 - 1  # no run's data has it


def _sounds(args: argparse.Namespace, sample_rate: int, hop: int):
    """Waveforms, their names, and their scenes where they are known."""
    if args.sounds is None:
        from ualm_jax.data.raw.soundscript import Scene, SoundScript2

        source = SoundScript2(10 * args.count, _HELD_OUT_SEED, sample_rate)
        sounds = [source[index] for index in range(args.count)]
        return [s.wav for s in sounds], [s.caption for s in sounds], [Scene.from_dict(s.scene) for s in sounds]
    from ualm_jax.data.loading.clips import FolderClips
    from ualm_jax.errors import UserError

    clips = FolderClips(args.sounds, sample_rate)
    wavs, names = [], []
    for index in range(min(args.count, len(clips.lengths))):
        length = min(int(clips.lengths[index]), round(args.seconds * sample_rate))
        if length >= hop:
            wavs.append(clips.read(index, 0, length)[:, 0])
            names.append(clips.name(index))
    if not wavs:
        raise UserError(
            f"{args.sounds}: none of the first {args.count} sounds lasts one frame of the codec, "
            f"{hop / sample_rate:g} s, within --seconds {args.seconds:g}; raise --seconds, or give longer sounds."
        )
    return wavs, names, []


def _right(scenes, wavs, made) -> dict[str, dict[str, float]]:
    """Shares of the scenes that SoundScript's checker reads right, of the originals and of what was decoded: in all,
    and on each track those of which it asks something.
    """
    if not scenes:
        return {}
    from ualm_jax.evaluate.soundscript import hear, judge_scene

    shares = {}
    for label, parts in ({"original": wavs} | {f"{books} codebooks": parts for books, parts in made.items()}).items():
        verdicts = [judge_scene(hear(wav), scene) for wav, scene in zip(parts, scenes, strict=True)]
        shares[label] = {"all": sum(verdict.right for verdict in verdicts) / len(verdicts)}
        for track in verdicts[0].tracks:
            asked = [verdict.tracks[track] for verdict in verdicts if verdict.tracks[track] is not None]
            shares[label] |= {track: sum(asked) / len(asked)} if asked else {}
    return shares
