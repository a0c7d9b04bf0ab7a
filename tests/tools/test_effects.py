"""What tools/effects.py asks for, and the figures that it tells."""

import json

import numpy as np
import pytest
from helpers.tools import tool

from ualm_jax.data.raw.soundscript.parse import plan_of_caption
from ualm_jax.evaluate.soundscript.benchmark import items


@pytest.fixture(scope="module")
def tools():
    """effects.py and effects_report.py, which import others beside them."""
    return [tool(name) for name in ("effects", "effects_report")]


def test_no_plan_is_both_learnt_and_judged_and_the_benchmark_is_left_alone(tools, monkeypatch):
    effects, _ = tools
    benchmark = items()
    monkeypatch.setattr(effects, "items", lambda: benchmark)  # which takes seconds, and is always the same
    prompts, held_out = effects.captions(1, 20, 30, 2)
    plans = [[plan_of_caption(caption) for caption in some] for some in (prompts, held_out)]
    assert not set(plans[0]) & set(plans[1])
    assert [len(set(some)) for some in plans] == [20, 30]
    assert [len(plan.parts) for plan in plans[1]] == [1, 2] * 15
    assert not {item.caption for item in benchmark} & set(prompts)
    assert effects.captions(1, 20, 30, 2) == (prompts, held_out)
    assert effects.captions(2, 20, 30, 2)[0] != prompts


def test_intervals_hold_the_mean_and_narrow_with_more_captions(tools):
    _, report = tools
    rng = np.random.default_rng(0)
    few, many = (rng.normal(0.1, 1, count) for count in (64, 4_096))
    mean, low, high = report.interval(many)
    assert mean == pytest.approx(many.mean()) and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * many.std() / 64, rel=0.05)  # of a normal distribution
    assert report.interval(few)[2] - report.interval(few)[1] > 5 * (high - low)


def test_a_report_compares_caption_by_caption(tools, tmp_path, monkeypatch):
    _, report = tools
    arms = ["adapted", "dpo", "unadapted", "no-ce", "grpo"]
    right = {"model": [0, 0, 1, 0], "adapted": [0, 1, 1, 0], "dpo": [1, 1, 1, 0], "grpo": [0, 0, 1, 1]}
    for seed in range(2):
        folder = tmp_path / f"seed-{seed}"
        (folder / "prefer" / "report").mkdir(parents=True)
        (folder / "prefer" / "report" / "report.json").write_text('{"pairs": 3}')
        (folder / "seconds.json").write_text('{"dpo": 1.0}')
        for name in ("model", *arms):
            rows = [{"right": bool(x), "tracks": (1 + x) / 2} for x in right.get(name, [0] * 4)]
            (folder / f"judged-{name}.json").write_text(json.dumps(rows))
        for name in arms:
            (folder / name).mkdir()
            lines = [{"step": step, "loss": 2.0, "ce": ce, "drift": -ce} for step, ce in enumerate([1.0, 3.0, 0.5], 1)]
            (folder / name / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    monkeypatch.chdir(tmp_path)
    paths = report.write_report([tmp_path / "seed-0", tmp_path / "seed-1"], {"model": "m"}, arms)
    found = json.loads(paths[0].read_text())
    assert found["obedience"]["dpo"]["right"]["value"] == 0.75 and found["obedience"]["dpo"]["right"]["asked"] == 8
    assert found["obedience"]["dpo"]["against_model"]["right"][0] == 0.5
    assert found["differences"]["grpo - dpo"]["tracks"][0] == pytest.approx(-0.125)
    assert found["beginnings"]["unadapted"][1] == {
        "first_ce": 1.0,
        "highest_ce": 3.0,
        "last_ce": 0.5,
        "highest_loss": 2.0,
        "lowest_drift": -3.0,
        "last_drift": -0.5,
    }
    assert paths[1].read_bytes().startswith(b"\x89PNG")
