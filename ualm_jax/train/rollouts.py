"""What a step of online preference learning is made of: answers of the model as it is, their rewards, and rows.

Everything of step k follows from the seed, k and the parameters: which prompts are asked, what is drawn, how rows are
laid out. So a run that goes on from a checkpoint makes the same answers again.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, Int, UInt32

from ualm_jax.errors import UserError
from ualm_jax.generate.clip import Clip, Text
from ualm_jax.generate.engine import Engine
from ualm_jax.generate.job import Job
from ualm_jax.generate.jobs_items import Item
from ualm_jax.generate.parts import Parts
from ualm_jax.generate.request import Request
from ualm_jax.generate.scorers import Scorer, score_all
from ualm_jax.generate.step import Work
from ualm_jax.generate.weights import make_weights
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.processes import from_first
from ualm_jax.tokens.layout import build_grid, build_prompt
from ualm_jax.tokens.types import Batch, Message, Modality, Role, TokenGrid
from ualm_jax.tokens.vocabulary import EOT
from ualm_jax.train.objectives.policy_gradient import Advantages, GrpoConfig, advantages

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """step: counted from 0. prompts: places in the list of prompts. seeds: of each prompt's answers."""

    step: int
    prompts: Int[np.ndarray, " G"]
    seeds: UInt32[np.ndarray, "G N"]


class PromptBatches:
    """The prompts of one step after the other: all of them in an order of its own in every epoch. A `Batches`.

    answers: of a step.
    """

    def __init__(self, items: Sequence[Item], config: GrpoConfig, answers: int, seed: int):
        self._ids, self._size, self._seed = [item.id for item in items], config.group_size, seed
        self._groups, self._step = answers // config.group_size, 0

    def __next__(self) -> tuple[Asked, Int[np.ndarray, " G"]]:
        asked = self.asked(self._step)
        self._step += 1
        return asked, asked.prompts

    def asked(self, step: int) -> Asked:
        count = len(self._ids)
        places = np.arange(step * self._groups, (step + 1) * self._groups)
        orders = {
            epoch: np.random.default_rng([self._seed, epoch]).permutation(count) for epoch in set(places // count)
        }
        prompts = np.array([orders[place // count][place % count] for place in places])
        seeds = np.random.SeedSequence([self._seed, step]).generate_state(self._groups * self._size)
        return Asked(step, prompts, seeds.reshape(self._groups, self._size))

    def get_state(self) -> dict[str, Any]:
        return {"step": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        self._step = state["step"]

    def progress(self) -> dict[str, float]:
        return {"data/epochs": self._step * self._groups / len(self._ids)}

    def record_names(self, records: Int[np.ndarray, " G"]) -> Sequence[str]:
        return [self._ids[place] for place in records]

    def close(self) -> None:
        """Holds nothing that needs it."""


class Rollout(NamedTuple):
    """Rows [G x N, T, ...] of the answers, and what was found of them, by the names of metrics."""

    batch: Batch
    advantages: Advantages
    metrics: dict[str, float]


class Rollouts:
    """Makes answers in one engine, whose weights are those of each step. A mesh must be set. All processes of a run
    make all answers together, and have them all.

    parts: the model's architecture, the tokenizer, and the codec of audio. rows: answers of a step. length: of a row.
    Raises UserError for a prompt that has no room in a row.
    """

    def __init__(self, config: GrpoConfig, parts: Parts, items: Sequence[Item], scorer: Scorer, length: int):
        self._config, self._parts, self._scorer, self._length = config, parts, scorer, length
        self._capacity = length - 1  # of the engine, which never reads what it draws last
        self._texts = [item.prompt for item in items]
        self._messages = [parts.text_message(text) for text in self._texts]
        settings = {"temperature": config.temperature, "top_k": config.top_k}
        settings |= {"max_tokens": config.max_tokens} if config.modality == "text" else {"cfg_scale": config.cfg_scale}
        self._params = parts.sampling(config.modality, config.seconds, settings)
        self._engine: Engine | None = None
        for item, message in zip(items, self._messages, strict=True):
            request = self._request(build_prompt([message], self._vocabulary), self._params.seed)
            try:
                Job(request, self._vocabulary, None).check(self._capacity)
            except UserError as error:
                raise UserError(f"grpo.prompts: {item.id}: {error} Or raise data.seq_len.") from None

    @property
    def _vocabulary(self):
        return self._parts.part("model").architecture.vocabulary

    def make(self, model: UALM, asked: Asked) -> Rollout:
        """The answers of a step by `model`. Raises UserError where none of them has a reward."""
        prompts = {place: build_prompt([self._messages[place]], self._vocabulary) for place in set(asked.prompts)}
        requests = [
            self._request(prompts[place], int(seed))
            for place, seeds in zip(asked.prompts, asked.seeds, strict=True)
            for seed in seeds
        ]
        jobs = self._answer(model, requests)
        places = np.repeat(asked.prompts, asked.seeds.shape[1])
        texts = [self._texts[place] for place in places]
        answers = [self._parts.answer(job, text) for job, text in zip(jobs, texts, strict=True)]
        rewards, problem = self._rewards(texts, answers)
        if np.isnan(rewards).all():
            raise UserError(f"step {asked.step + 1}: none of {len(jobs)} answers has a reward ({problem}).")
        found = advantages(rewards.reshape(asked.seeds.shape))
        grids = [self._grid(self._messages[place], job) for place, job in zip(places, jobs, strict=True)]
        return Rollout(_rows(grids, found.used.reshape(-1), self._length), found, _metrics(rewards, found, answers))

    def _request(self, prompt: TokenGrid, seed: int) -> Request:
        return Request(prompt, dataclasses.replace(self._params, seed=seed), self._config.modality)

    def _answer(self, model: UALM, requests: Sequence[Request]) -> list[Job]:
        text = self._config.modality == "text"
        if self._engine is None:
            guided = not text and self._params.guided
            work = Work(audio=not text, text=text, guided=guided, sampled=True, filtered=False, scored=False)
            sequences = None if guided else self._config.slots
            slots = dict(slots=self._config.slots, sequences=sequences, capacity=self._capacity)
            self._engine = Engine(model, **slots, work=work)
        else:
            self._engine.weights = make_weights(model)
        jobs = [self._engine.submit(request) for request in requests]
        while not all(job.done for job in jobs):
            self._engine.advance()
        self._engine.weights = None  # while the model learns, its memory is needed
        return jobs

    def _rewards(self, texts: Sequence[str], answers: Sequence[Clip | Text]) -> tuple[Float64[np.ndarray, " R"], str]:
        """NaN where there is none, and the first reason why, which process 0 alone knows: it is the one that scores."""
        rewards, problem = np.zeros(len(answers)), "process 0 says why"
        if jax.process_index() == 0:
            scores = score_all(self._scorer, texts, answers)
            rewards = np.array([np.nan if score.value is None else score.value for score in scores], np.float64)
            problem = next((score.problem for score in scores if score.problem), "")
        if jax.process_count() > 1:  # as bits, because JAX would make float32 of them
            rewards = from_first("learn from the rewards", rewards.view(np.uint32)).view(np.float64)
        return rewards, problem

    def _grid(self, message: Message, job: Job) -> TokenGrid:
        """The conversation, with loss weights for what the model has drawn alone: not for its role, for what the delay
        structure leaves no choice of, or for an end that the model did not come to."""
        vocabulary, made = self._vocabulary, job.result()
        kind = Modality.TEXT if made.modality == "text" else Modality.AUDIO
        tag = "audio" if made.modality == "text" else made.modality
        grid = build_grid([message, Message(Role.ASSISTANT, kind, made.tokens, tag)], vocabulary)
        first = len(job.asked.prompt.tokens) + 1  # behind the modality
        weights, count = np.zeros_like(grid.loss_weights), len(made.tokens)
        if made.modality == "text":
            weights[first : first + count + (made.end is not None), 0] = 1
            if made.end == "eot":
                grid.tokens[-1, 0] = EOT
        else:
            S = vocabulary.num_streams
            for stream in range(S):
                weights[first + stream : first + stream + count, stream] = 1 / S
            if count < job.settings(self._capacity).max_frames:  # it ended by itself, with stream 0's pad
                weights[first + count, 0] = 1 / S
        return dataclasses.replace(grid, loss_weights=weights)


def _rows(grids: Sequence[TokenGrid], used: np.ndarray, length: int) -> Batch:
    streams = grids[0].tokens.shape[1]
    batch = Batch(
        tokens=np.zeros((len(grids), length, streams), np.int32),
        loss_weights=np.zeros((len(grids), length, streams), np.float32),
        segment_ids=np.zeros((len(grids), length), np.int32),
        positions=np.zeros((len(grids), length), np.int32),
    )
    for row, (grid, learnt) in enumerate(zip(grids, used, strict=True)):
        count = min(
            len(grid.tokens), length
        )  # only the end of an answer that was cut off, which was not drawn, has no room
        batch.tokens[row, :count] = grid.tokens[:count]
        batch.loss_weights[row, :count] = grid.loss_weights[:count] * learnt
        batch.segment_ids[row, :count] = 1
        batch.positions[row, :count] = np.arange(count)
    return batch


def _metrics(rewards: np.ndarray, found: Advantages, answers: Sequence[Clip | Text]) -> dict[str, float]:
    known = rewards[~np.isnan(rewards)]
    return {
        "reward": float(known.mean()),
        "reward_std": float(known.std()),
        "equal_groups": float(found.equal.mean()),
        "unscored": 1 - len(known) / len(rewards),
        "length": float(np.mean([len(each.ids if isinstance(each, Text) else each.codes) for each in answers])),
        "cut": float(np.mean([each.end is None for each in answers])),
    }
