"""`ualm data inspect`: what is in a dataset, to read, to look at and to listen to."""

import pathlib

from ualm_jax.cli.arguments import Parser, integer, output_directory

_DESCRIPTION = """\
Shows one or several prepared datasets: counts, hours and shares of the tokens, and some conversations with their texts
and their token grid coloured by loss weight. With --out also a histogram of lengths and the conversations' sounds,
decoded by the codec that lies in the dataset. With --batch also how training would pack them.

  ualm data inspect data/script --out look
  ualm data inspect data/script data/stamps-heard --batch --seq-len 1024 --audio-slots 8 --out look
"""


def main(argv: list[str]) -> int:
    parser = Parser("ualm data inspect", description=_DESCRIPTION)
    parser.add_argument("datasets", nargs="+", type=pathlib.Path, metavar="DIR", help="made by `data prepare`")
    parser.add_argument("--out", type=output_directory, metavar="DIR", help="for PNG and wav; without it none are made")
    parser.add_argument(
        "--examples", type=integer(at_least=0), default=2, help="conversations of each dataset (default %(default)s)"
    )
    parser.add_argument("--seed", type=integer(at_least=0), default=0, help="which ones (default %(default)s)")
    parser.add_argument("--batch", action="store_true", help="pack a batch as training would, and draw it")
    parser.add_argument("--seq-len", type=integer(at_least=1), default=4096, help="of --batch (default %(default)s)")
    parser.add_argument("--batch-size", type=integer(at_least=1), default=16, help="of --batch (default %(default)s)")
    parser.add_argument(
        "--audio-slots", type=integer(at_least=0), default=8, help="mel windows a row (default %(default)s)"
    )
    args = parser.parse_args(argv)

    from rich.console import Console

    from ualm_jax.cli.data_prepare import PARTS
    from ualm_jax.data.dataset.lengths import Lengths
    from ualm_jax.data.dataset.show import overview, save_lengths_png
    from ualm_jax.data.loading.config import DataConfig, SourceConfig
    from ualm_jax.data.loading.loader import open_sources
    from ualm_jax.models.audio_encoder import OmniConfig

    console = Console()
    config = DataConfig(
        sources=tuple(SourceConfig(str(directory)) for directory in args.datasets),
        seq_len=args.seq_len,
        batch_size=args.batch_size,
        audio_slots=args.audio_slots,
    )
    infos = open_sources(config)
    front_end = OmniConfig().front_end
    lengths = [Lengths(info.directory, front_end) for info in infos]
    for info, known in zip(infos, lengths, strict=True):
        known.check_sums(info.records, info.positions)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    positions = {info.name: known.positions() for info, known in zip(infos, lengths, strict=True)}
    console.print(overview(infos, [int(positions[info.name].sum()) for info in infos]))
    for info in infos:
        if info.unused:
            file = info.directory / "quarantine.jsonl"
            console.print(f"{info.name}: not used: {info.unused} {PARTS}, named in {file}", soft_wrap=True)
        if info.pairs:
            console.print(f"{info.name}: pairs; hours, ids and positions are of both answers with their prompt")
        found = ", ".join(f"{name} {count}" for name, count in info.filters.items() if count)
        console.print(
            f"{info.name}: found by the filters: {found or 'nothing'}; longest {positions[info.name].max()} positions",
            soft_wrap=True,
        )
    if args.out is not None:
        save_lengths_png(args.out / "lengths.png", positions)
        console.print(f"Lengths: {args.out / 'lengths.png'}", soft_wrap=True)
    for info in infos:
        _show_examples(console, info, config, args)
    if args.batch:
        _show_batch(console, infos, config, args.out)
    return 0


def _show_examples(console, info, config, args) -> None:
    import numpy as np

    from ualm_jax.audio.mel import SAMPLE_RATE
    from ualm_jax.audio.write import write_sound
    from ualm_jax.codecs.xcodec.model import XCodec
    from ualm_jax.data.dataset.audio_input import from_flac, with_frames
    from ualm_jax.data.dataset.folder import open_records
    from ualm_jax.data.dataset.pairs import conversations_of
    from ualm_jax.data.dataset.show import grid_in_colour, legend
    from ualm_jax.models.audio_encoder import OmniConfig
    from ualm_jax.tokens.layout import build_grid
    from ualm_jax.tokens.tokenizer import load_tokenizer
    from ualm_jax.tokens.types import Modality

    records, tokenizer = open_records(info), load_tokenizer(info.directory / "tokenizer")
    codec = None
    count = min(args.examples, info.records)
    for index in np.random.default_rng(args.seed).choice(info.records, count, replace=False).tolist():
        record = records[index]
        console.rule(f"{info.name} {index}: {record.id}", align="left")
        clips = iter(record.clips)
        for number, message in enumerate(record.messages):
            if message.modality == Modality.TEXT:
                said = tokenizer.decode(message.content.tolist())
            elif message.modality == Modality.AUDIO:
                frames = len(message.content)
                said = f"{frames / info.frame_rate:.2f} s of target audio, {frames} frames"
            else:
                said = f"{message.content / SAMPLE_RATE:.2f} s of audio input"
            if args.out is not None and message.modality != Modality.TEXT:
                path = args.out / f"{info.name}-{index}-{number}.wav"
                if message.modality == Modality.AUDIO:
                    codec = codec or XCodec.from_directory(info.directory / "codec")
                    write_sound(path, codec.decode(message.content), codec.sample_rate)
                else:
                    write_sound(path, from_flac(next(clips)), SAMPLE_RATE)
                said += f": {path}"
            console.print(f"{_part(record.pair, number)}{message.role:>9} ", style="bold", end="")
            console.print(said, markup=False, highlight=False, soft_wrap=True)
        for conversation in conversations_of(record):
            grid = build_grid(with_frames(conversation.messages, OmniConfig().front_end), info.vocabulary)
            console.print(grid_in_colour(grid, info.vocabulary, console.width))
    console.print(legend())


def _part(pair: tuple[int, int] | None, number: int) -> str:
    """Which part of a pair a message belongs to."""
    if pair is None:
        return ""
    prompt, chosen = pair
    return f"{'prompt' if number < prompt else 'chosen' if number < prompt + chosen else 'rejected':<9}"


def _show_batch(console, infos, config, out: pathlib.Path | None) -> None:
    from ualm_jax.data.dataset.show import save_batch_png
    from ualm_jax.data.loading.loader import fill_fraction, make_loader
    from ualm_jax.models.audio_encoder import OmniConfig

    loader = make_loader(config, infos[0].vocabulary, OmniConfig().front_end)
    batch, _ = next(loader)
    loader.close()
    drawn = ""
    if out is not None:
        save_batch_png(out / "batch.png", batch, infos[0].vocabulary)
        drawn = f": {out / 'batch.png'}"
    console.print(f"A batch, {fill_fraction(batch):.1%} filled{drawn}", soft_wrap=True)
