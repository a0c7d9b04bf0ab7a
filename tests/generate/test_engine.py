"""What a slot makes depends on its request alone; slots come and go without compiling."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import golden_model

from ualm_jax.errors import UserError
from ualm_jax.generate import SamplingParams, generate
from ualm_jax.generate.engine import Engine
from ualm_jax.generate.request import Request
from ualm_jax.parallel.mesh import MeshConfig, make_mesh

BASE = SamplingParams(min_frames=4, max_frames=14, max_tokens=18, text_top_k=0)
GREEDY = dataclasses.replace(BASE, temperature=0.0)
SHAPE = dict(slots=4, sequences=7, capacity=160, chunk=5)


@pytest.fixture(scope="module")
def requests(prompts) -> list[Request]:
    """Audio and text, guided and not, sampled and greedy, short and long."""
    long = dataclasses.replace(BASE, min_frames=30, max_frames=40)
    every = [
        ("audio", BASE),
        ("text", dataclasses.replace(BASE, text_temperature=3.0)),
        ("audio", GREEDY),
        ("speech", dataclasses.replace(BASE, cfg_scale=1.0)),
        ("text", BASE),
        ("audio", dataclasses.replace(long, cfg_scale=(1.0, *[4.0] * 7), top_p=0.8, top_k=(0,) * 4 + (9,) * 4)),
        ("audio", dataclasses.replace(GREEDY, cfg_scale=1.0)),
        ("text", dataclasses.replace(BASE, text_temperature=1.5, text_min_p=0.01, text_repetition_penalty=1.5)),
    ]
    return [
        Request(prompts[index % 4], dataclasses.replace(params, seed=index), modality)
        for index, (modality, params) in enumerate(every)
    ]


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return Engine(model, **SHAPE)


@pytest.fixture(scope="module")
def alone(engine, requests) -> list[list]:
    """What each request gives when nobody else is there."""
    return [job.tokens.tolist() for request in requests for job in engine.run([request])]


def test_a_request_gives_the_same_tokens_in_any_slot_and_company(engine, requests, alone):
    rng = np.random.default_rng(0)
    for _ in range(3):
        order = rng.permutation(len(requests))
        jobs = {job.request: job.tokens.tolist() for job in engine.run([requests[index] for index in order])}
        assert [jobs[request] for request in requests] == alone


def test_a_request_that_joins_late_gives_the_same_tokens(engine, requests, alone):
    jobs = []
    for request, steps in zip(requests[::-1], (1, 3, 2, 5, 4, 1, 2, 0), strict=True):
        jobs.insert(0, engine.submit(request))
        if steps:
            engine.advance(steps)
    while not all(job.done for job in jobs):
        engine.advance(2)
    assert [job.tokens.tolist() for job in jobs] == alone


def test_a_program_for_these_requests_alone_gives_the_same_tokens(model, requests, alone):
    """`generate` leaves out what its requests do not need, and has as many slots as there are requests."""
    for index in (0, 1):
        request = requests[index]
        (segment,) = generate(model, [request.prompt], [request.params], modality=request.modality)
        rows = np.array(alone[index])
        if request.modality == "text":
            assert segment.tokens.tolist() == (rows[: len(segment.tokens), 0] - 256).tolist()
        else:
            assert segment.tokens[:, 0].tolist() == (rows[: len(segment.tokens), 0] - 640 - 1).tolist()


def test_eight_devices_give_the_same_tokens(golden_dir, requests, alone):
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        engine = Engine(golden_model.load(golden_dir), **SHAPE)
        assert engine.slots == 4
        jobs = {job.request: job.tokens.tolist() for job in engine.run(requests)}
    assert [jobs[request] for request in requests] == alone


def test_slots_are_filled_and_left_without_compiling(engine, requests, alone, caplog):
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        others = [
            dataclasses.replace(request, params=dataclasses.replace(request.params, seed=9)) for request in requests
        ]
        list(engine.run([*others, *requests[::-1]]))
    assert not [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()]


def test_a_guided_slot_takes_two_sequences_and_others_one(engine, prompts):
    plain, guided = (Request(prompts[0], dataclasses.replace(BASE, cfg_scale=scale)) for scale in (1.0, 3.0))
    for wanted, request in ((4, plain), (3, guided)):
        jobs = [engine.submit(request) for _ in range(6)]
        engine.advance(2)
        assert sum(job.seat is not None for job in jobs) == wanted
        for job in jobs:
            engine.cancel(job)


def test_slots_are_busy_while_requests_wait(engine, prompts):
    """A slot whose segment has ended is filled at once: lengths of 5 to 60, four slots."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.repeat([5, 10, 20, 60], 6))
    before = engine.steps, engine.slot_steps
    requests = [
        Request(prompts[index % 4], SamplingParams(cfg_scale=1.0, min_frames=length, max_frames=length, seed=index))
        for index, length in enumerate(lengths.tolist())
    ]
    assert len(list(engine.run(requests))) == len(lengths)
    steps, slot_steps = engine.steps - before[0], engine.slot_steps - before[1]
    assert slot_steps == sum(lengths + 8) and slot_steps > 0.9 * engine.slots * steps


def test_a_text_from_logits_that_are_nan_is_told_and_leaves_the_others_alone(model, requests, alone):
    """One column of the text's head is damaged, which audio does not read."""
    damaged = nnx.clone(model)
    head = damaged.text_head[...]
    damaged.text_head[...] = jnp.where(jnp.arange(head.shape[1]) == 300, jnp.nan, head)
    stopped = dataclasses.replace(requests[4], until=lambda ids: None)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        jobs = {job.request: job for job in Engine(damaged, **SHAPE).run([*requests, stopped])}
    for request, rows in zip([*requests, stopped], [*alone, None], strict=True):
        if request.modality == "text":
            assert len(jobs[request].tokens) == 1, "it ends at once"
            with pytest.raises(UserError, match="the text of this answer came from logits that are NaN or infinite"):
                jobs[request].result()
        else:
            assert jobs[request].tokens.tolist() == rows


def test_what_does_not_fit_is_refused_before_anything_is_made(engine, prompts):
    with pytest.raises(UserError, match=r"prompt takes 8 positions and its answer at least 208.* room for 160"):
        engine.submit(Request(prompts[0], SamplingParams(min_frames=200)))
    with pytest.raises(UserError, match="modality must be one of audio, text, speech or auto"):
        Request(prompts[0], BASE, "image")


def test_audio_ends_within_the_room_there_is(engine, prompts):
    (job,) = engine.run([Request(prompts[3], SamplingParams(min_frames=100, max_frames=400))])
    assert job.result().end in ("eos", "eot") and 100 <= len(job.result().tokens) <= 160 - 35 - 8


def test_several_segments_of_one_prompt_read_it_once(engine, prompts, monkeypatch):
    from ualm_jax.generate import decode

    read = []
    prefill = decode.prefill

    def counted(weights, batch, *args):
        read.append(int((np.asarray(batch.segment_ids).sum(axis=1) > 0).sum()))
        return prefill(weights, batch, *args)

    monkeypatch.setattr(decode, "prefill", counted)
    requests = [Request(prompts[1], dataclasses.replace(BASE, seed=seed)) for seed in range(3)]
    jobs = list(engine.run(requests))
    assert read == [2] and len({str(job.tokens.tolist()) for job in jobs}) == 3
