"""Raw conversations to a dataset: sounds and texts are read here, by all cores; codes are made by tokenize.py.

Everything is written to `OUT.partial` and gets its name at the end. A shard holds a fixed range of the source,
so that it can be made again alone: what is finished survives a kill, and the result does not show it.
"""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ualm_jax.audio.mel import SAMPLE_RATE
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.prepare.codec_sound import X_CODEC, CodecShape
from ualm_jax.data.prepare.deduplicate import settle
from ualm_jax.data.prepare.description import write_description
from ualm_jax.data.prepare.examples import RawReader
from ualm_jax.data.prepare.filters import DEFAULT_GATES, Gates
from ualm_jax.data.prepare.partial import PartialDataset, ShardReport, check_made_from, partial_of
from ualm_jax.data.prepare.progress import ClipProgress
from ualm_jax.data.prepare.shard_job import ShardJob
from ualm_jax.data.prepare.sounds_dataset import SoundsInfo, open_sounds
from ualm_jax.data.prepare.workers import run_shards
from ualm_jax.data.raw.conversation import ConversationSource
from ualm_jax.data.raw.files import hash_directory
from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import load_tokenizer


def prepare(
    source: ConversationSource,
    *,
    tokenizer_dir: str | os.PathLike,
    codec_dir: str | os.PathLike,
    out: str | os.PathLike,
    gates: Gates = DEFAULT_GATES,
    shard_size: int = 1024,
    max_bad_fraction: float = 0.05,
    workers: int = 1,
    beam: Sequence[str] | None = None,
    console: Console | None = None,
) -> DatasetInfo:
    """`prepare_sounds` and `tokenize` (tokenize.py) in one: the new folder `out` is what the two would make of it.

    Raises UserError: as they do.
    """
    from ualm_jax.data.prepare.encode_audio import load_codec, write_codes  # brings JAX

    out = Path(out)
    work = PartialDataset(partial_of(out))
    codec, sounds = load_codec(codec_dir), work.progress / "sounds"
    shape = CodecShape.of(codec)
    if not sounds.exists() and not work.complete:
        prepare_sounds(
            source,
            tokenizer_dir=tokenizer_dir,
            out=sounds,
            shape=shape,
            gates=gates,
            shard_size=shard_size,
            max_bad_fraction=max_bad_fraction,
            workers=workers,
            beam=beam,
            console=console,
        )
    check_made_from(
        work.partial if work.complete else sounds, _made_from(source, tokenizer_dir, shape, gates, shard_size)
    )
    if work.complete:
        check_made_from(work.partial, {"codec": hash_directory(codec_dir)})
    else:
        write_codes(work, open_sounds(sounds), codec, codec_dir, console)
    work.publish(out)
    return open_dataset(out)


def prepare_sounds(
    source: ConversationSource,
    *,
    tokenizer_dir: str | os.PathLike,
    out: str | os.PathLike,
    shape: CodecShape = X_CODEC,
    gates: Gates = DEFAULT_GATES,
    shard_size: int = 1024,
    max_bad_fraction: float = 0.05,
    workers: int = 1,
    beam: Sequence[str] | None = None,
    console: Console | None = None,
) -> SoundsInfo:
    """Read all of `source` and store it, sounds as sound, in the new folder `out` (layout: sounds_dataset.py).

    Sounds the assistant makes are cut to whole frames of `shape`. What does not pass a gate is left out. Unusable
    records are quarantined; when they are more than `max_bad_fraction` of the source, the work stops, and continues
    after they have been mended. Run again after a kill, it continues; the result is that of an uninterrupted run, byte
    by byte, whatever does the work: this process, several of them, or the workers of an Apache Beam pipeline with the
    options `beam` (on_beam.py), which may have to be through before bad records are counted.

    shard_size: records of the source per shard. console: where progress is shown, None for silence.
    With workers > 1 a program must start under `if __name__ == "__main__"`, since its workers import it.

    Raises UserError: `out` exists, a partial result was made from something else, too many unusable records,
    unreadable tokenizer.
    """
    out = Path(out)
    work = PartialDataset(partial_of(out))
    if shard_size < 1 or workers < 1 or not 0 <= max_bad_fraction <= 1:
        raise UserError(
            "expected shard_size and workers of at least 1 and a max_bad_fraction from 0 to 1, "
            f"got {shard_size}, {workers} and {max_bad_fraction}"
        )
    if len(source) == 0:
        raise UserError(f"{source.name}: the source holds no records")
    load_tokenizer(tokenizer_dir)
    work.begin(_made_from(source, tokenizer_dir, shape, gates, shard_size), -(-len(source) // shard_size))
    if not work.complete:
        # Copied first: every worker sees it there.
        shutil.copytree(tokenizer_dir, work.partial / "tokenizer", dirs_exist_ok=True)
        job = ShardJob(work, RawReader(source, work.partial / "tokenizer", shape, gates), shard_size)
        _run(job, max_bad_fraction, workers, beam, Console(quiet=True) if console is None else console)
        tally = settle(work, "duplicate-caption", leave_out="duplicate-caption" in gates.drop)
        if len(tally.rows) == 0:
            raise UserError(
                f"{source.name}: nothing of it passes the gates; {work.write_quarantine(tally.rejected)} says why: "
                f"remove {work.partial} and open the gates further"
            )
        write_description(work, tally, None, dataclasses.asdict(shape))
    work.publish(out)
    return open_sounds(out)


def _made_from(
    source: ConversationSource, tokenizer_dir: str | os.PathLike, shape: CodecShape, gates: Gates, shard_size: int
) -> dict:
    return {
        "source": {"name": source.name, "fingerprint": source.fingerprint()},
        "tokenizer": hash_directory(tokenizer_dir),
        "sound": dataclasses.asdict(shape),
        "gates": dataclasses.asdict(gates),
        "shard_size": shard_size,
    }


def _run(job: ShardJob, max_bad_fraction: float, workers: int, beam: Sequence[str] | None, console: Console) -> None:
    """Write all shards. Raises UserError when too many records are bad."""
    # A record that was mended since is no longer bad.
    shards = range(job.work.num_shards)
    pending = [shard for shard in shards if (report := job.work.report(shard)) is None or report.bad]
    total, bad = len(job.reader.source), 0
    done = total - sum(len(job.inputs(shard)) for shard in pending)
    with ClipProgress(console, "sounds", total, done) as progress:
        if beam is not None:
            from ualm_jax.data.prepare.beam import run_on_beam

            run_on_beam(job, pending, beam)
            workers = 1  # for what is left to do, which is nothing
        for report in run_shards(job, pending, workers):
            progress.advance(len(job.inputs(report.shard)), _seconds(report, job.reader.shape))
            bad += len(report.bad)
            if bad == total or bad > max_bad_fraction * total:
                rejected = (each for written in job.work.reports() for each in written.rejected)
                raise UserError(
                    f"{job.reader.source.name}: {bad} of {total} records can not be used, allowed are "
                    f"{max_bad_fraction:.1%}; {job.work.write_quarantine(rejected)} names each and says why: mend "
                    "them, or allow more with max_bad_fraction, and run again"
                )


def _seconds(report: ShardReport, shape: CodecShape) -> float:
    heard = sum(map(sum, report.columns["clips"]))
    return sum(report.columns["samples"]) / shape.sample_rate + heard / SAMPLE_RATE
