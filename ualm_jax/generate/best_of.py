"""Several candidates for each prompt, and the one that a scorer likes best."""

import dataclasses
from collections.abc import Sequence

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.inputs import Prompt
from ualm_jax.generate.scorers import Score, Scorer, score_all


@dataclasses.dataclass(frozen=True)
class Candidate:
    """clip.settings.seed makes it again, alone."""

    clip: Clip | Text
    score: Score


def candidates(prompt: Prompt, count: int) -> list[Prompt]:
    """The same prompt `count` times: candidate i draws with seed + i. Asked for together, it is read once.

    Raises UserError for a prompt with a sound: scorers see its text alone.
    """
    if prompt.sound is not None and count > 1:
        raise UserError("Candidates are ranked by their prompt's text; a question about a sound has one answer.")
    seeds = [(prompt.params.seed + index) % 2**32 for index in range(count)]
    return [dataclasses.replace(prompt, params=dataclasses.replace(prompt.params, seed=seed)) for seed in seeds]


def rank(scorer: Scorer, clips: Sequence[Clip | Text]) -> list[Candidate]:
    """Answers to one prompt or several, the best first; those without a score last, in the order they came in."""
    scores = score_all(scorer, [clip.prompt for clip in clips], clips)
    pairs = zip(clips, scores, strict=True)
    return [Candidate(*pair) for pair in sorted(pairs, key=lambda pair: pair[1].order, reverse=True)]


def check_ranked(group: Sequence[Candidate]) -> None:
    """Raises UserError where no candidate has a score."""
    if all(each.score.value is None for each in group):
        raise UserError(f"None of {len(group)} candidates has a score: {group[0].score.problem}.")
