"""What a model says about sounds and texts, against what is true: understanding, text alone, plans and critiques."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from ualm_jax.data.raw.soundscript import SoundScript2, render
from ualm_jax.data.raw.soundscript.abstract import PROMPTS
from ualm_jax.data.raw.soundscript.conversations import TASKS, ScriptConversations
from ualm_jax.data.raw.soundscript.questions import is_right
from ualm_jax.data.raw.soundscript.rich import plan_of_rich
from ualm_jax.errors import UserError
from ualm_jax.evaluate.soundscript.benchmark import RATE
from ualm_jax.evaluate.soundscript.tally import Share
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.segment import generate
from ualm_jax.models.audio_encoder import AudioEncoder
from ualm_jax.models.ualm import UALM
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.rich_caption import BadRichCaption, parse
from ualm_jax.tokens.tokenizer import Tokenizer
from ualm_jax.tokens.types import Message, Modality, Role

SEED = 1_000_003  # of the items that are judged; no dataset is made with it
_RICH = ("listen", "enrich", "dialogue", "imagine", "reflect")  # tasks whose answers are rich captions


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """id: "question-combination-017". kind: for tables. turns: (role, text), of which the last is the user's.

    wav: what is heard after the last turn, at 16 kHz; None where nothing is.
    """

    id: str
    task: str
    kind: str
    turns: tuple[tuple[str, str], ...]
    answer: str
    wav: Float32[np.ndarray, "_"] | None


def questions(task: str, split: str, count: int, max_seconds: float = SoundScript2.max_seconds) -> list[Question]:
    """Conversations of a task (soundscript.conversations.TASKS) that no dataset of another seed than SEED has.

    split: "train", "combination" or "phrasing"; max_seconds: of a sound (source2.SoundScript2). Raises UserError for
    other words and numbers.
    """
    source, found = ScriptConversations(SoundScript2(count, SEED, RATE, split, max_seconds), task), []
    for index in range(count):
        item, scene = source.item(index)
        wav = render(scene, RATE) if TASKS[task][1] == "heard" else None
        turns = (*item.before, ("user", item.user))
        found.append(Question(f"{task}-{split}-{index:03}", task, item.kind, turns, item.answer, wav))
    return found


def right(question: Question, answer: str) -> bool:
    """Whether an answer is true. Of rich captions what they say counts, not how; an open prompt accepts many."""
    if question.task not in _RICH:
        return is_right(answer, question.answer)
    try:
        said = plan_of_rich(parse(answer))
    except BadRichCaption:
        return False
    if question.task == "imagine":
        accepts = next(prompt.accepts for prompt in PROMPTS if prompt.name == question.kind)
        return said is not None and accepts(said)
    return said == plan_of_rich(parse(question.answer))


def shares(asked: Sequence[Question], answers: Sequence[str]) -> dict[str, Share]:
    """ "all" and every kind of question, the most frequent first."""
    counts: dict[str, list[bool]] = collections.defaultdict(list)
    for question, answer in zip(asked, answers, strict=True):
        for name in ("all", question.kind):
            counts[name].append(right(question, answer))
    ordered = sorted(counts.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return {name: Share(sum(found), len(found)) for name, found in ordered}


def answer_all(
    model: UALM,
    encoder: AudioEncoder | None,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    params: SamplingParams,
    batch_size: int = 32,
) -> Iterator[str]:
    """What the model says to each, `batch_size` at once; a mesh must be set.

    Raises UserError where something is to be heard and there is no encoder.
    """
    if encoder is None and any(question.wav is not None for question in asked):
        raise UserError("the model has no audio encoder, so it can not be asked about sounds.")
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        prompts = [build_prompt(_messages(each, tokenizer, encoder), model.architecture.vocabulary) for each in batch]
        heard = [None if each.wav is None else encoder.front_end.features(each.wav) for each in batch]
        for segment in generate(model, prompts, params, modality="text", heard=heard, encoder=encoder):
            yield tokenizer.decode(segment.tokens.tolist())


def _messages(question: Question, tokenizer: Tokenizer, encoder: AudioEncoder | None) -> list[Message]:
    turns = [
        Message(Role(role), Modality.TEXT, np.array(tokenizer.encode(text), np.int32)) for role, text in question.turns
    ]
    if question.wav is None:
        return turns
    return [*turns, Message(Role.USER, Modality.CLIP, encoder.front_end.clip_length(len(question.wav)))]
