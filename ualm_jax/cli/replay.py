"""`ualm replay`: makes a generated sound again, bit for bit."""

import pathlib
import tempfile

from ualm_jax.cli.arguments import Parser, input_directory, input_file, model_directory, output_file
from ualm_jax.errors import UserError
from ualm_jax.weights.shipped import located

_DESCRIPTION = """\
Makes a sound again from what it says of itself, or from the JSON beside it, with the weights that made it. Where the
sound is there, the two are compared byte by byte; where it is gone, it is written anew.

  ualm replay rain.flac
  ualm replay rain.flac.json
  ualm replay rain.flac --model moved/run --out again.flac
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm replay", description=_DESCRIPTION)
    parser.add_argument("file", type=input_file, help="what `ualm generate` made: a sound, or its JSON")
    parser.add_argument(
        "--model", type=model_directory, metavar="DIR", help="where the weights are now; default: where they were"
    )
    parser.add_argument(
        "--enhance", type=input_directory, metavar="DIR", help="where the enhancer is now, if one made it 48 kHz stereo"
    )
    parser.add_argument("--out", type=output_file(), metavar="FILE", help="write the sound here, too")
    args = parser.parse_args(argv)

    from ualm_jax.generate.output import read_record, save_again
    from ualm_jax.generate.work import from_names

    record = read_record(args.file)
    sound = args.file.with_suffix("") if args.file.suffix.lower() == ".json" else args.file
    if args.out is not None and args.out.suffix.lower() != sound.suffix.lower():
        raise UserError(f"{args.out}: bit for bit it is a {sound.suffix} file; choose such a name.")
    made_by = record.get("made_by") or {}
    work = None if made_by.get("work") is None else from_names(made_by["work"])
    path = args.model or located(made_by.get("path") or "")
    if not path.is_dir() or path == pathlib.Path(""):
        raise UserError(f"{args.file} was made by {path}, which is not here; say where it is with --model.")

    from ualm_jax.parallel.startup import start

    start()

    from ualm_jax.generate.replay import replay
    from ualm_jax.pretrained import load

    how = {name: made_by[name] for name in ("int8", "slots", "sequences", "window", "enhance") if made_by.get(name)}
    if args.enhance is not None:
        how["enhance"] = args.enhance
    model = load(path, step=made_by.get("step") or None, **how)
    if work is not None:
        model = model.limited(work)
    clip = replay(record, model)
    with tempfile.TemporaryDirectory() as folder:
        again = pathlib.Path(folder, sound.name)
        save_again(again, *clip.sound, record)
        if sound.is_file() and again.read_bytes() != sound.read_bytes():
            raise UserError(f"{sound} is another file than the one that was made, though of the same codes; see --out.")
        content = again.read_bytes()
    target = args.out or (None if sound.is_file() else sound)
    if target is not None:
        from ualm_jax.audio.write import write_whole

        write_whole({target: content})
    print(f"{target or sound}: made again, bit for bit" + (f" as {sound}" if args.out and sound.is_file() else ""))
    return 0
