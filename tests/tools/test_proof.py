"""`tools/proof.py` runs every experiment once, and its report says what the figures say."""

import json
import pathlib
import re
import sys

import pytest
from helpers.tools import tool

from ualm_jax.configs import soundscript


@pytest.fixture(scope="module")
def proof():
    return tool("proof")


class Ualm:
    """Leaves behind what the commands would; `right` of 100 answers or captions are, by the words of the command."""

    def __init__(self, right):
        self.right, self.called = right, []

    def __call__(self, *words):
        flat = [str(each) for word in words for each in (word if isinstance(word, list) else str(word).split())]
        command = " ".join(flat)
        self.called.append(command)
        path = pathlib.Path(re.search(r"--(?:out|workdir|json) (\S+)", command)[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        right = self.right(command)
        if command.startswith("data prepare"):
            path.mkdir()
            (path / "dataset.json").touch()
        elif command.startswith("train"):
            steps = re.search(r"train.steps=(\d+)", command)[1]
            (path / "checkpoints" / steps).mkdir(parents=True)
            (path / "config.json").write_text(json.dumps(soundscript.get_config().to_dict()))
            rows = [{"step": step, "eval/loss": 10.0 / right, "loss": 0.01 * right} for step in (0, 100)]
            (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        elif command.startswith("eval answers"):
            path.write_text(json.dumps({"tables": {"all": {"right": right, "asked": 100}}}))
        else:
            path.mkdir(exist_ok=True)
            items = [{"right": i < right, "tracks": {"class": i < right}} for i in range(100)]
            (path / "report.json").write_text(json.dumps({"items": items}))


def tools(script, *words):
    """Leaves behind what tools/flattened.py would."""
    if words[0] == "data":
        pathlib.Path(words[2]).mkdir()
        (pathlib.Path(words[2]) / "dataset.json").touch()
    else:
        pathlib.Path(words[2]).mkdir(parents=True)


def proved(proof, monkeypatch, folder, right):
    """The experiments of proof.json, and what was called, first and when run again."""
    fake = Ualm(right)
    for module in (proof, tool("demo")):
        monkeypatch.setattr(module, "ualm", fake)
    monkeypatch.setattr(proof, "run", tools)
    monkeypatch.chdir(folder)
    report = tool("proof_report")
    draw, last = report._draw, []
    # Every experiment draws the whole picture again, a second each: here the last one is drawn.
    monkeypatch.setattr(report, "_draw", lambda *words: last.append(words))
    calls = []
    for _ in range(2):
        words = ["--seeds", "2", "--steps", "80", "--batch-size", "2", "--max-seconds", "1.2"]
        monkeypatch.setattr(sys, "argv", ["proof.py", "--out", str(folder / "out"), *words])
        proof.main()
        calls.append(list(fake.called))
        fake.called.clear()
        killed = folder / "out" / "found" / "guidance" / "3" / "2" / "wavs"  # a third seed, before it was judged
        killed.mkdir(parents=True, exist_ok=True)
    draw(*last[-1])
    return json.loads((folder / "out" / "proof.json").read_text())["experiments"], *calls


def as_the_paper_says(command: str) -> int:
    """Guidance is best at 3; the held-out loss of fewer sounds ends higher; understanding is there at once."""
    if "guidance" in command:
        return 50 - 10 * abs(float(re.search(r"cfg-scale (\S+)", command)[1]) - 3) ** 0.5
    if fraction := re.search(r"runs/data/1-(\d+)", command):
        return 100 // int(fraction[1])
    if step := re.search(r"found/convergence/\d/(\d+)/(\w+)", command):
        return int(step[1]) if step[2] == "generation" else 80
    return 20 if "without" in command or "once" in command else 60


def test_everything_runs_once_and_agrees_where_it_does(proof, monkeypatch, tmp_path):
    found, called, again = proved(proof, monkeypatch, tmp_path, lambda command: int(as_the_paper_says(command)))
    assert again == [] and len(called) == len(set(called))
    assert list(found) == list(proof.EXPERIMENTS)
    assert {name: each["agrees"] for name, each in found.items()} == dict.fromkeys(proof.EXPERIMENTS, "yes")
    assert found["guidance"]["best"] == 3 and found["guidance"]["shares"]["3.0"]["asked"] == 200
    assert found["convergence"]["reached"] == {"generation": 80, "understanding": 10, "text": 10}
    assert all("data.batch_size=2 " in command for command in called if command.startswith("train"))
    scenes = ("data prepare", "eval soundscript --lists", "eval answers")
    assert all("--max-seconds 1.2" in command for command in called if command.startswith(scenes))
    assert sum("--workdir runs/all/1" in command for command in called) == 1
    alone = next(command for command in called if "--workdir runs/unified/text/1" in command)
    assert "train.seed=1" in alone and f"train.steps={round(80 * 0.277)} " in alone
    for name in ("proof.md", "proof.png"):
        assert (tmp_path / "out" / name).stat().st_size


def test_a_report_says_no_where_nothing_is_seen(proof, monkeypatch, tmp_path):
    found, *_ = proved(proof, monkeypatch, tmp_path, lambda command: 50 if "pattern/delay" in command else 100)
    answers = {name: each["agrees"] for name, each in found.items()}
    chance = dict.fromkeys(("alignment", "twice"), "within chance")
    assert answers == dict.fromkeys(proof.EXPERIMENTS, "no") | {"unified": "yes"} | chance
