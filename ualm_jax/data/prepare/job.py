"""Raw conversations to a dataset: here sounds and texts are read, on all cores; encode_audio.py makes the codes.

Everything is written to `OUT.partial`, which is renamed at the end. A shard holds a fixed range of the source, so it
can be made again on its own: what is finished survives a kill, and the result does not depend on interruptions.
"""

import dataclasses
import shutil
from pathlib import Path

from rich.console import Console

from ualm_jax.data.dataset.codec_sound import CodecShape
from ualm_jax.data.dataset.folder import DatasetInfo, open_dataset
from ualm_jax.data.dataset.sounds import SoundsInfo, open_sounds
from ualm_jax.data.prepare.config import PrepareConfig
from ualm_jax.data.prepare.deduplicate import deduplicate
from ualm_jax.data.prepare.description import write_description
from ualm_jax.data.prepare.examples import RawReader
from ualm_jax.data.prepare.partial import PartialDataset, partial_of
from ualm_jax.data.prepare.peers import Peers
from ualm_jax.data.prepare.progress import ClipProgress
from ualm_jax.data.prepare.shard_job import ShardJob
from ualm_jax.data.prepare.sounds_dataset import open_sounds_to_encode
from ualm_jax.data.prepare.workers import run_shards
from ualm_jax.data.raw.conversation import ConversationSource
from ualm_jax.data.raw.files import hash_directory
from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import load_tokenizer


def prepare(source: ConversationSource, config: PrepareConfig, console: Console | None = None) -> DatasetInfo:
    """`prepare_sounds` and then `encode_audio` (encode_audio.py), as one job that makes the dataset `config.out`.

    console: where progress is shown, None for silence. Raises UserError as the two do.
    """
    from ualm_jax.data.prepare.encode_audio import load_codec, write_codes  # brings JAX

    work = PartialDataset(partial_of(Path(config.out)))
    codec = load_codec(config.codec_dir)
    config = dataclasses.replace(config, shape=CodecShape.of(codec))
    _check_inputs(source, config)
    with work.locked():
        read = PartialDataset(work.progress / "sounds", whole=work.partial)
        if not work.is_finished(_made_from(source, config) | {"codec": hash_directory(config.codec_dir)}):
            _read_sounds(source, config, read, console)
            alone = Peers(work.progress, "", 0, 1)
            write_codes(work, open_sounds_to_encode(read.partial), codec, config.codec_dir, console, alone)
        work.publish(Path(config.out).absolute())
    return open_dataset(config.out)


def prepare_sounds(source: ConversationSource, config: PrepareConfig, console: Console | None = None) -> SoundsInfo:
    """Read all of `source` and store it in the new dataset `config.out`, sounds not encoded (dataset/sounds.py).

    Target audio is cut to whole frames of `config.shape`. Filters leave out what they find, unusable records are
    quarantined; when these are more than `config.max_bad_fraction` of the source, the work stops, and continues after
    they have been mended. Called again after a kill, it continues; so it does with other filters, or with a source of
    which some records have changed, and makes those shards again where it matters. The result is the same, byte for
    byte, whatever does the work: this process, several of them, or the workers of an Apache Beam pipeline (beam.py).

    console: where progress is shown, None for silence.

    Raises UserError: `out` exists, a partial result was made from something else, another job writes it, too many
    unusable records, an unreadable tokenizer.
    """
    work = PartialDataset(partial_of(Path(config.out)))
    _check_inputs(source, config)
    with work.locked():
        _read_sounds(source, config, work, console)
        work.publish(Path(config.out).absolute())
    return open_sounds(config.out)


def _check_inputs(source: ConversationSource, config: PrepareConfig) -> None:
    if len(source) == 0:
        raise UserError(f"{source.name}: the source holds no records")
    load_tokenizer(config.tokenizer_dir)


def _read_sounds(
    source: ConversationSource, config: PrepareConfig, work: PartialDataset, console: Console | None
) -> None:
    """All of `prepare_sounds` but the checks and the final name."""
    reader = RawReader(source, work.partial / "tokenizer", config.shape)
    job = ShardJob(work, reader, config.filters, config.shard_size)
    work.begin(_made_from(source, config), -(-len(source) // config.shard_size), job.made_of)
    if work.complete:
        return
    # Copied first, so that every worker finds it there.
    shutil.copytree(config.tokenizer_dir, work.partial / "tokenizer", dirs_exist_ok=True)
    _run(job, config, Console(quiet=True) if console is None else console)
    tally = deduplicate(work, "duplicate-caption", config.filters)
    tally = dataclasses.replace(tally, unused=[*source.left_out, *tally.unused])
    if len(tally.lengths) == 0:
        raise UserError(
            f"{source.name}: the filters leave nothing of it; {work.write_quarantine(tally.rejected, tally.unused)} "
            "says why: let the filters pass more, and run again"
        )
    write_description(work, tally, None, dataclasses.asdict(config.shape))


def _made_from(source: ConversationSource, config: PrepareConfig) -> dict:
    return {
        "source": {"name": source.name, "fingerprint": source.fingerprint()},
        "tokenizer": hash_directory(config.tokenizer_dir),
        "sound": dataclasses.asdict(config.shape),
        "filters": dataclasses.asdict(config.filters),
        "shard_size": config.shard_size,
    }


def _run(job: ShardJob, config: PrepareConfig, console: Console) -> None:
    """Write all shards. Raises UserError when too many records are unusable."""
    # Shards with unusable records are looked at again, since these may have been mended.
    reports = ((shard, job.work.report(shard)) for shard in range(job.work.num_shards))
    pending = [shard for shard, report in reports if report is None or report.bad or not job.is_finished(report)]
    total, bad, workers = len(job.reader.source), 0, config.workers
    done = total - sum(len(job.inputs(shard)) for shard in pending)
    with ClipProgress(console, "sounds", total, done) as progress:
        if config.beam is not None:
            from ualm_jax.data.prepare.beam import run_on_beam

            run_on_beam(job, pending, config.beam)
            workers = 1  # for what is left to do, which is nothing
        for report in run_shards(job, pending, workers, progress.advance):
            bad += len(report.bad)
            if bad == total or bad > config.max_bad_fraction * total:
                rejected = [each for written in job.work.reports() for each in written.rejected(job.filters)]
                raise UserError(
                    f"{job.reader.source.name}: {bad} of {total} records are unusable, allowed are "
                    f"{config.max_bad_fraction:.1%}; {job.work.write_quarantine(rejected)} names each and says why, "
                    f"such as: {report.bad[0].reason}; mend them, or raise max_bad_fraction, and run again"
                )
