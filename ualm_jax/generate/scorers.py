"""What candidates are ranked by: a number for how well a clip answers its prompt; the higher, the better.

A scorer is a function (prompt, clip) -> float. One that is faster with many at once also has a method
`batch(prompts, clips) -> floats`. Where it raises or gives something that is no finite number, that clip has no score,
the reason is kept, and the others go on.
"""

import dataclasses
import importlib
import importlib.util
import logging
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.parts import Parts
from ualm_jax.generate.score import score
from ualm_jax.tokens.layout import build_grid
from ualm_jax.tokens.types import Message, Modality, Role

Scorer = Callable[[str, Clip | Text], float]

SOUNDSCRIPT = "ualm_jax.evaluate.soundscript.scorer:share_of_right_tracks"
BUILT_IN = ("likelihood", "soundscript")
OPENED = {
    "clap": "ualm_jax.evaluate.clap:Clap",
    "audiobox": "ualm_jax.evaluate.audiobox:Audiobox",
    "judge": "ualm_jax.evaluate.listening:opened",
}
"""Scorers that are told where their weights lie, as in clap:DIR."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Score:
    """value: None where there is none, and then the problem is why."""

    value: float | None
    problem: str | None = None

    @property
    def order(self) -> float:
        """To sort by; what has no score comes last."""
        return -math.inf if self.value is None else self.value


def score_all(scorer: Scorer, prompts: Sequence[str], clips: Sequence[Clip | Text]) -> list[Score]:
    """A score for each clip and its prompt. How many have none is logged, with the reason of the first."""
    scores = _batch(scorer, prompts, clips)
    if scores is None:  # one by one, so that one clip does not take the scores of the others along
        scores = [_alone(scorer, prompt, clip) for prompt, clip in zip(prompts, clips, strict=True)]
    problems = [found.problem for found in scores if found.problem is not None]
    if problems:
        log.warning("%d of %d clips have no score: %s", len(problems), len(scores), problems[0])
    return scores


class Likelihood:
    """How likely the model itself finds the answer: minus the loss of training on it, in nats a token, at most 0.

    Guidance and temperature have no part in it. An answer's tokens are weighted as in training: each frame of audio
    counts as one token of text, so that a longer answer is no less likely for being longer.
    """

    def __init__(self, parts: Parts):
        self._parts = parts
        parts.part("model")
        parts.part("tokenizer")

    def __call__(self, prompt: str, clip: Clip | Text) -> float:
        return self.batch([prompt], [clip])[0]

    def batch(self, prompts: Sequence[str], clips: Sequence[Clip | Text]) -> list[float]:
        model = self._parts.part("model")
        conversations = [
            (self._parts.text_message(prompt), _message(clip)) for prompt, clip in zip(prompts, clips, strict=True)
        ]
        with jax.set_mesh(self._parts.mesh):
            found = score(model, conversations)
        weights = [build_grid(messages, model.architecture.vocabulary).loss_weights for messages in conversations]
        return [
            float(np.sum(values * weight, dtype=np.float64) / np.count_nonzero(weight[:, 0]))
            for values, weight in zip(found, weights, strict=True)
        ]


def load_scorer(name: str, parts: Parts) -> Scorer:
    """A scorer by name: "likelihood" of the model itself; "soundscript", how much of a SoundScript caption a program
    hears in the clip; "clap:DIR", "audiobox:DIR" and "judge:DIR", what these and a model that listens find; or your
    own as `module:function` or `file.py:function`, found from the current folder too.

    Raises UserError where there is none.
    """
    if name == "likelihood":
        return Likelihood(parts)
    kind, separator, folder = name.partition(":")
    if separator and kind in OPENED:
        return load_function(OPENED[kind], "Scorer")(folder)
    if name != "soundscript" and ":" not in name:
        raise UserError(
            f"There is no scorer {name!r}; give {', '.join(BUILT_IN)}, {', '.join(f'{kind}:DIR' for kind in OPENED)}, "
            "module:function or file.py:function."
        )
    return load_function(SOUNDSCRIPT if name == "soundscript" else name, "Scorer")


def load_function(name: str, what: str) -> Callable:
    """`module:function` or `file.py:function`, found from the current folder too. what: it is, for messages.

    Raises UserError where there is none.
    """
    place, separator, function = name.rpartition(":")
    if not separator or not place or not function:
        raise UserError(f"{what} {name!r}: expected module:function or file.py:function.")
    name = f"{what} {name}"
    module = _load_file(pathlib.Path(place), name) if place.endswith(".py") else _load_module(place, name)
    found = getattr(module, function, None)
    if not callable(found):
        raise UserError(f"{name}: {place} has no function {function}.")
    return found


def _load_module(place: str, name: str):
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place + ".").startswith(error.name + "."):
            raise  # something that the module itself needs
        raise UserError(f"{name}: there is no module {error.name}, here or among what is installed.") from None
    finally:
        sys.path.remove(os.getcwd())


def _load_file(path: pathlib.Path, name: str):
    if not path.is_file():
        raise UserError(f"{name}: there is no file {path}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _message(clip: Clip | Text) -> Message:
    if isinstance(clip, Text):
        return Message(Role.ASSISTANT, Modality.TEXT, np.asarray(clip.ids))
    return Message(Role.ASSISTANT, Modality.AUDIO, np.asarray(clip.codes), clip.modality)


def _batch(scorer: Scorer, prompts: Sequence[str], clips: Sequence[Clip | Text]) -> list[Score] | None:
    """None where the scorer takes no batches, or did not get through this one, which is said."""
    if not hasattr(scorer, "batch"):
        return None
    try:
        values = list(scorer.batch(prompts, clips))
    except Exception as error:
        log.warning("the scorer's batch failed (%s: %s); its answers are scored alone", type(error).__name__, error)
        return None
    if len(values) != len(clips):
        log.warning("the scorer gave %d scores for %d answers; they are scored alone", len(values), len(clips))
        return None
    return [_checked(value) for value in values]


def _alone(scorer: Scorer, prompt: str, clip: Clip | Text) -> Score:
    try:
        return _checked(scorer(prompt, clip))
    except Exception as error:
        return Score(None, f"the scorer failed ({type(error).__name__}: {error})")


def _checked(value) -> Score:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Score(None, f"the scorer gave {value!r}, which is no number")
    return Score(number) if math.isfinite(number) else Score(None, f"the scorer gave {number}")
