"""`ualm enhance`: a 16 kHz mono sound to 48 kHz stereo."""

import time

from ualm_jax.cli.arguments import Parser, input_directory, input_file, output_file

_DESCRIPTION = """\
Makes 48 kHz stereo of a sound, by weights that `ualm enhance train` left in WORKDIR/enhancer. Sounds of other rates and
with more channels are mixed down and brought to 16 kHz first. Its loudness is kept.

  ualm enhance rain.wav rain48.wav --weights runs/enhancer/enhancer
  ualm enhance rain.wav rain48.flac --weights runs/enhancer/enhancer --depth 24 --plot
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm enhance", description=_DESCRIPTION)
    parser.add_argument("source", type=input_file, metavar="IN", help="a sound file, an hour at most")
    formats = (".wav", ".flac", ".ogg", ".mp3")
    parser.add_argument("out", type=output_file(*formats), metavar="OUT", help=f"what to make: {', '.join(formats)}")
    parser.add_argument(
        "--weights", required=True, type=input_directory, metavar="DIR", help="WORKDIR/enhancer of `ualm enhance train`"
    )
    parser.add_argument("--depth", choices=("16", "24", "float"), help="bits of a sample, of wav and flac; default: 16")
    parser.add_argument("--plot", action="store_true", help="draw a spectrogram, OUT.png")
    args = parser.parse_args(argv)
    if args.out.exists() and args.out.samefile(args.source):
        parser.error(f"argument OUT: {args.out} is IN, which would be lost; choose another name")

    from ualm_jax.audio.io import read_audio
    from ualm_jax.audio.write import check_format, write_sound
    from ualm_jax.codecs.enhance.model import Enhancer
    from ualm_jax.parallel.startup import start

    check_format(args.out, args.depth)
    start()
    enhancer = Enhancer.from_directory(args.weights)
    wav = read_audio(args.source, sample_rate=enhancer.rate_in)
    begun = time.monotonic()
    stereo = enhancer.enhance(wav)
    speed = len(wav) / enhancer.rate_in / (time.monotonic() - begun)

    write_sound(args.out, stereo, enhancer.sample_rate, depth=args.depth)
    if args.plot:
        from ualm_jax.audio.spectrogram import save_spectrogram_png

        save_spectrogram_png(f"{args.out}.png", stereo.mean(axis=1), enhancer.sample_rate, str(args.source))
    seconds = len(wav) / enhancer.rate_in
    print(f"{args.out}: {seconds:.2f} s of 48 kHz stereo ({speed:.1f} times as fast as it sounds)")
    return 0
