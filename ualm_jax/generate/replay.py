"""A sound made again from its record (`output.py`), bit for bit, with the weights that made it or not at all."""

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip
from ualm_jax.generate.inputs import Prompt
from ualm_jax.generate.output import Record
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.sampling import SamplingParams


def replay(record: Record, pipeline: Pipeline) -> Clip:
    """The clip that `record` tells of.

    pipeline: loaded as `made_by` in the record says (step, int8, slots, sequences, work, window).
    Raises UserError where it has other weights, where the sound depends on more than a record holds, and where what
    came out is not what was recorded: another device or version can round otherwise.
    """
    check_weights(record, pipeline)
    if record.get("context") is not None:
        raise UserError(
            f"It was made from its prompt and {record['context']}, which is not kept with it; it can not be made again."
        )
    try:
        params = SamplingParams(**record["settings"])
        prompt = Prompt(record["prompt"], params, record["modality"], negative=record["negative"])
        frames = record["codes"]["sha256"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The record of how it was made is damaged ({error!r}).") from None
    ((_, clip),) = pipeline.run([prompt])
    if isinstance(clip, UserError):
        raise clip
    if clip.record()["codes"]["sha256"] != frames:
        here, there = (" with jax ".join(side[name] for name in ("device", "jax")) for side in (clip.record(), record))
        also = f": it was made on {there}, this is {here}" if here != there else ""
        raise UserError(f"Another sound came out than the one recorded, from the same weights and seed{also}.")
    return clip


def check_weights(record: Record, pipeline: Pipeline) -> None:
    """Raises UserError where the weights are not those that the record names."""
    here, there = pipeline.made_by.weights, record["weights"]
    if not there:
        raise UserError("The record does not say which weights made it; it can not be made again.")
    for name, digest in there.items():
        if here.get(name) != digest:
            found = f"{here[name][:8]}" if name in here else "none"
            raise UserError(
                f"{pipeline.made_by.path} has another {name} than made this sound (fingerprint {found}, expected "
                f"{digest[:8]}); give the folder that has it with --model."
            )
