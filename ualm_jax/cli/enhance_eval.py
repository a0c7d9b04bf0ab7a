"""`ualm enhance eval`: what an enhancer makes, beside what doing nothing makes."""

import dataclasses
import json

from ualm_jax.cli.arguments import Parser, input_directory, integer, number, output_file

_DESCRIPTION = """\
Takes 48 kHz stereo down to 16 kHz mono, enhances it and compares with what it was: log-spectral distance from 8 to
24 kHz, error of the level difference between left and right, and what was changed of the low band. Beside it, the
same of the input merely resampled, and of the enhanced sound without its side signal.

  ualm enhance eval runs/enhancer/enhancer                      held-out scenes of SoundScript in stereo
  ualm enhance eval runs/enhancer/enhancer --sounds music/ --plot before-after.png
  ualm enhance eval runs/enhancer/enhancer --codec runs/codec/codec
"""

_HELD_OUT_SEED = 2**31 - 1  # no run's data has it


def main(argv: list[str]) -> int:
    parser = Parser("ualm enhance eval", description=_DESCRIPTION)
    parser.add_argument("weights", type=input_directory, metavar="DIR", help="WORKDIR/enhancer of a run")
    parser.add_argument("--sounds", type=input_directory, metavar="DIR", help="a folder; SoundScript unless given")
    parser.add_argument(
        "--codec", type=input_directory, metavar="DIR", help="enhance what this X-codec leaves of the sounds, as in use"
    )
    parser.add_argument("--count", type=integer(at_least=1), default=40, metavar="N", help="sounds (default: 40)")
    parser.add_argument(
        "--seconds", type=number(at_least=0.05), default=10.0, help="of each sound of a folder, at most (default: 10)"
    )
    parser.add_argument("--json", type=output_file(".json"), metavar="FILE", help="write the figures here, too")
    parser.add_argument("--plot", type=output_file(".png"), metavar="FILE", help="spectrograms of the first three")
    args = parser.parse_args(argv)

    from ualm_jax.codecs.enhance.config import RATE_OUT
    from ualm_jax.codecs.enhance.model import Enhancer
    from ualm_jax.codecs.xcodec.model import XCodec
    from ualm_jax.evaluate.enhance import measure
    from ualm_jax.parallel.startup import start

    start()
    enhancer = Enhancer.from_directory(args.weights)
    wavs = _sounds(args, RATE_OUT)
    codec = None if args.codec is None else XCodec.from_directory(args.codec)
    measured, lows, made = measure(enhancer, wavs, codec)
    print(f"{len(wavs)} sounds, {measured.seconds:.0f} s; real-time factor {measured.real_time:.1f}")
    print("            LSD 8-24 kHz   level difference, dB   low band changed   low band SI-SDR, dB")
    for name, row in measured.rows.items():
        print(f"{name:<10}  {row.upper:12.3f}   {row.level:20.2f}   {row.low:16.1e}   {row.low_si_sdr:19.1f}")
    if args.json is not None:
        args.json.write_text(json.dumps(dataclasses.asdict(measured), indent=2) + "\n")
    if args.plot is not None:
        from ualm_jax.evaluate.enhance import draw

        draw(args.plot, wavs[:3], lows[:3], made[:3])
        print(f"{args.plot}")
    return 0


def _sounds(args, rate: int) -> list:
    if args.sounds is None:
        from ualm_jax.data.raw.soundscript import SoundScript2, StereoScript

        source = StereoScript(SoundScript2(args.count, _HELD_OUT_SEED, rate))
        return [source[index].wav for index in range(args.count)]
    from ualm_jax.data.loading.clips import FolderClips

    clips = FolderClips(args.sounds, rate, channels=2, min_rate=rate * 9 // 10)
    lengths = [min(int(length), round(args.seconds * rate)) for length in clips.lengths[: args.count]]
    return [clips.read(index, 0, length) for index, length in enumerate(lengths)]
