"""Does thinking help? Measured on prompts of SoundScript that training never saw, judged by the program that hears.

OUT/imagine-plain, imagine-plan    open prompts, without and with a plan
OUT/dialogue-plain, dialogue-ask   wishes that say too little, without and with questions
OUT/plain, reflect, best-of        captions without a plan; a first version made again; as many as cost the same

Each folder holds traces (builders/traces.py): killed at any moment, the same call goes on.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import soxr

from ualm_jax.data.raw.soundscript import Plan, SoundScript2
from ualm_jax.data.raw.soundscript.abstract import PROMPTS
from ualm_jax.data.raw.soundscript.conversations import ScriptConversations
from ualm_jax.data.raw.soundscript.rich import rich_caption
from ualm_jax.evaluate.soundscript.benchmark import RATE
from ualm_jax.evaluate.soundscript.claims import claims_of
from ualm_jax.evaluate.soundscript.hear import hear
from ualm_jax.evaluate.soundscript.judge import Verdict, judge
from ualm_jax.evaluate.soundscript.plans import plan_of
from ualm_jax.generate.pipeline import Pipeline
from ualm_jax.generate.scorers import Scorer
from ualm_jax.reason.builders.traces import Trace, Tracing, Wanted, begin_traces, make_traces, read_traces
from ualm_jax.reason.course import How

SEED = 1_000_003  # of the items that are judged; no dataset is made with it
_APART = 1000  # between the seeds of prompts, so that no two traces of a prompt share one


@dataclasses.dataclass(frozen=True)
class Measuring:
    """count: prompts of each kind. seeds: times that each is thought about. how: the way sounds are made; its rounds
    are those of reflections. split: SoundScript's ("combination" and "phrasing" are held out). selector: chooses among
    as many first versions as cost the same as a reflection, given the prompt.
    """

    how: How
    selector: Scorer | None = None
    count: int = 64
    seeds: int = 3
    split: str = "combination"
    shard_size: int = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A prompt, what it asks for exactly (None for open prompts), and all that was made of it, trace by trace."""

    prompt: str
    kind: str
    plan: Plan | None
    traces: tuple[Trace, ...]


def measure(pipeline: Pipeline, measuring: Measuring, out: pathlib.Path) -> dict[str, list[Case]]:
    """Makes what is still missing in `out`, and returns the cases of every folder; the selector has scored those of
    "best-of".

    Raises UserError where `out` holds another measurement.
    """
    open_, asked, captions = (items_of(task, measuring) for task in ("imagine", "dialogue", "enrich"))
    none = dataclasses.replace(measuring.how, rounds=0)
    found = {}
    for name, items, how in (
        ("imagine-plain", open_, dataclasses.replace(none, plan=False)),
        ("imagine-plan", open_, none),
        ("dialogue-plain", asked, dataclasses.replace(none, plan=False)),
        ("dialogue-ask", asked, dataclasses.replace(none, ask=True)),
        ("plain", captions, dataclasses.replace(none, plan=False)),
        ("reflect", captions, measuring.how),
    ):
        found[name] = _cases(pipeline, items, how, measuring, measuring.seeds, out / name)
    number = _as_many(found["reflect"], pipeline.part("tokenizer"))
    traces, selector = measuring.seeds * number, measuring.selector
    found["best-of"] = _cases(pipeline, captions, none, measuring, traces, out / "best-of", selector)
    return found


def _as_many(cases: Sequence[Case], tokenizer) -> int:
    """How many plans with a sound take as many decode steps as a reflection, at least 1."""
    whole = once = 0
    for trace in (trace for case in cases for trace in case.traces if trace.takes):
        whole += trace.steps
        once += len(tokenizer.encode(trace.plan)) + len(trace.takes[0].codes)
    return max(1, round(whole / once)) if once else 1


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt, what it asks for, and what its user answers to the questions of a dialogue."""

    wanted: Wanted
    kind: str
    plan: Plan
    answers: dict[str, str]


def items_of(task: str, measuring: Measuring) -> list[Asked]:
    """Prompts of SoundScript's task imagine, dialogue or enrich."""
    source = ScriptConversations(SoundScript2(measuring.count, SEED, RATE, measuring.split), task)
    found = []
    for index in range(measuring.count):
        item, _ = source.item(index)
        turns = [text for _, text in item.before]
        prompt = (turns[0] if turns else item.user).removeprefix("Plan first: ")
        said = [*turns, item.user]
        answers = dict(zip(said[1::2], said[2::2], strict=True))
        truth = rich_caption(item.plan).write()
        wanted = Wanted(f"{task}-{measuring.split}-{index:03}", prompt, truth, index * _APART, index)
        found.append(Asked(wanted, item.kind, item.plan, answers))
    return found


def _cases(
    pipeline: Pipeline,
    items: Sequence[Asked],
    how: How,
    measuring: Measuring,
    traces: int,
    out: pathlib.Path,
    scorer: Scorer | None = None,
) -> list[Case]:
    answers = {item.wanted.id: item.answers for item in items}

    def user(wanted: Wanted, question: str) -> str:
        """What the user of the dialogue wants; "Any." where the question was not foreseen."""
        known = {_bare(asked): answer for asked, answer in answers[wanted.id].items()}
        return known.get(_bare(question), "Any.")

    out.mkdir(parents=True, exist_ok=True)
    tracing = Tracing(how, traces, user=user, scorer=scorer, shard_size=measuring.shard_size)
    plain = {"rounds": how.rounds, "ask": how.ask, "plan": how.plan, "seconds": how.seconds}
    scored_by = None if scorer is None else getattr(scorer, "__qualname__", type(scorer).__name__)
    made_with = {
        "count": measuring.count,
        "split": measuring.split,
        "scored by": scored_by,
        "how": plain | {"settings": dict(how.settings)},
    }
    begin_traces(pipeline, tracing, out, made_with)
    # The scorer is to see the prompt, as a user's selector would.
    make_traces(pipeline, [dataclasses.replace(item.wanted, truth=item.wanted.prompt) for item in items], tracing, out)
    open_ = {prompt.name for prompt in PROMPTS}
    return [
        Case(item.wanted.prompt, item.kind, None if item.kind in open_ else item.plan, tuple(found))
        for item, found in zip(items, read_traces(out), strict=True)
    ]


def heard_in(codec, codes: np.ndarray):
    """Events of a sound."""
    wav = codec.decode(codes)
    wav = wav if codec.sample_rate == RATE else soxr.resample(wav, codec.sample_rate, RATE, quality="HQ")
    return hear(np.asarray(wav, np.float32)) if len(wav) else ()


def obeys(case: Case, events) -> Verdict | bool:
    """The verdict on a sound; for an open prompt, whether it is accepted."""
    if case.plan is not None:
        return judge(events, claims_of(case.plan))
    plan = plan_of(events)
    return plan is not None and next(prompt.accepts for prompt in PROMPTS if prompt.name == case.kind)(plan)


def _bare(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
