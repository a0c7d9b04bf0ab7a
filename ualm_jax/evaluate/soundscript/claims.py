"""What a caption of language 2 asks for, as the judge wants it."""

from ualm_jax.data.raw.soundscript.plan import GAPS, LEVEL_DB, MIDI, SUSTAINED, WITHIN, Part, Plan
from ualm_jax.evaluate.soundscript.judge import Claim

LOW_BELOW_HZ, HIGH_ABOVE_HZ = 207.65, 415.30  # G#3 and G#4
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 8000.0


def claims_of(plan: Plan) -> tuple[Claim, ...]:
    """One for each event, in order of time.

    "low" asks for a pitch below G#3, "high" for one above G#4, a note for that note, and a sweep for nothing but its
    direction. What is sustained and neither short nor long is asked to last 0.35 s.
    """
    claims = []
    for index, part in enumerate(plan.parts):
        for number in range(part.count):
            if number:
                gap = WITHIN
            elif index == 0 or plan.overlaps:
                gap = None
            else:
                gap = GAPS[plan.links[index - 1]]
            claims.append(
                Claim(
                    label=part.kind,
                    pitch_hz=_pitch(part),
                    seconds=part.seconds if part.kind in SUSTAINED else None,
                    gap=gap,
                    level=LEVEL_DB[part.level],
                    over=plan.overlaps and index == 1,
                    lasts=part.seconds,
                )
            )
    return tuple(claims)


def _pitch(part: Part) -> tuple[float, float] | None:
    if part.pitch is None:
        return None
    if part.pitch == "low":
        return _LOWEST_HZ, LOW_BELOW_HZ
    if part.pitch == "high":
        return HIGH_ABOVE_HZ, _HIGHEST_HZ
    hz = 440.0 * 2 ** ((MIDI[part.pitch] - 69) / 12)
    return hz, hz
