"""Files of wishes: folders and lines of each, whatever interrupts them; and the command line on top."""

import json
import os

import pytest
from helpers.reflections import BAD, GOOD, PLAN, RIGHT, WRONG
from helpers.scripted import ScriptedModel

from ualm_jax.errors import UserError
from ualm_jax.generate.jobs_items import read_items
from ualm_jax.reason import How
from ualm_jax.reason.items import WishItem
from ualm_jax.reason.job import Thinking, run_wishes

LINES = ["First.", '{"id": "second", "prompt": "Second.", "seed": 9}', "Third <b>.", "Fourth."]
SCRIPT = {f"Plan first: {prompt}": [PLAN, WRONG, *BAD, RIGHT, *GOOD] for prompt in ("First.", "Second.", "Third <b>.")}
SCRIPT["Plan first: Fourth."] = [PLAN, WRONG, "nonsense"]
THINKING = Thinking(How(rounds=2), seed=3)


def run(out, script=None, thinking=THINKING, lines=LINES, model=None, **told):
    model = ScriptedModel(SCRIPT if script is None else script) if model is None else model
    return run_wishes(model, read_items(lines, "wishes", WishItem), thinking, out, **told)


def contents(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("wishes") / "out"
    return out, run(out)


def test_every_wish_has_a_line_and_a_folder(whole):
    out, lines = whole
    assert lines == [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["00000", "second", "00002", "00003"]
    first = lines[0]
    assert (first["plan"], first["best"], first["reason"]) == (PLAN, "v2", "as planned")
    assert [version["critique"] for version in first["versions"]] == [BAD[1], GOOD[1]]
    assert [line["versions"][0]["seed"] for line in lines] == [4, 10, 6, 7], "the plan is reply 0, the sound reply 1"
    assert lines[3]["best"] == "v1" and "heard can not be used" in lines[3]["problem"] and "error" not in lines[3]
    names = {path.name for path in (out / "second").iterdir()}
    assert names == {"v1.wav", "v1.wav.json", "v2.wav", "v2.wav.json", "report.html"}
    assert json.loads((out / "second" / "v2.wav.json").read_text())["heard"] == GOOD[0]


def test_the_page_holds_all_of_it_and_needs_nothing_beside_it(whole):
    page = (whole[0] / "00002" / "report.html").read_text()
    assert "Third &lt;b&gt;." in page and "<b>." not in page
    for said in (PLAN, *BAD, *GOOD, "v2 is kept: the critique finds nothing wrong"):
        assert said.replace("'", "&#x27;") in page
    assert page.count("data:audio/wav;base64,") == page.count("data:image/png;base64,") == 2
    assert 'src="' not in page.replace('src="data:', "") and "http" not in page


@pytest.mark.parametrize("calls", [0, 5, 9, 16])
def test_what_was_killed_goes_on_to_the_same_files(whole, tmp_path, calls):
    model = ScriptedModel(SCRIPT, slots=1, stop_at=calls)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", model=model)
    (tmp_path / "out" / ".00002.part").mkdir(exist_ok=True)  # as a kill may leave it
    assert run(tmp_path / "out") == whole[1]
    assert contents(tmp_path / "out") == contents(whole[0])


def test_what_is_done_is_not_made_again_but_what_failed_is(tmp_path):
    script = SCRIPT | {"Plan first: First.": ["nonsense"]}
    lines = run(tmp_path, script)
    assert "plan can not be used" in lines[0]["error"] and lines[0]["best"] is None
    assert "Decision" in (tmp_path / "00000" / "report.html").read_text()
    model = ScriptedModel(SCRIPT)
    assert run(tmp_path, model=model)[0]["best"] == "v2"
    assert {key for key, _ in model.calls} == {"Plan first: First."}
    with pytest.raises(UserError, match=r"other settings \(rounds\)"):
        run(tmp_path, thinking=Thinking(How(rounds=1), seed=3))


def test_a_dialogue_from_a_file_has_its_answers(tmp_path):
    lines = [
        json.dumps({"prompt": "Make it.", "answers": ["Two."]}),
        json.dumps({"prompt": "Do it.", "answers": [" "]}),
        json.dumps({"prompt": "Play it."}),
    ]
    script = {prompt: ["How many?", PLAN, RIGHT] for prompt in ("Make it.", "Do it.", "Play it.")}
    found = run(tmp_path, script, Thinking(How(rounds=0, ask=True)), lines)
    assert found[0]["talk"] == [["How many?", "Two."]] and found[0]["best"] == "v1"
    assert all("nobody answered question 1" in line["error"] for line in found[1:])


def test_the_command_line_runs_a_file_and_a_prompt(whole, tmp_path, monkeypatch, capsys):
    from ualm_jax.cli import reason
    from ualm_jax.cli.main import run as command

    model = ScriptedModel(SCRIPT, language="soundscript-2")
    monkeypatch.setattr(reason, "open_model", lambda args, **how: model)
    (tmp_path / "wishes.txt").write_text("\n".join(LINES))
    words = f"--model {tmp_path} --rounds 2 --seed 3"
    asked = ["reason", "reflect", *words.split(), "--prompts", str(tmp_path / "wishes.txt"), "--show"]
    assert command([*asked, "--out", str(tmp_path / "many")]) == 0
    assert contents(tmp_path / "many") == contents(whole[0])
    said, warned = capsys.readouterr()
    assert "scripted knows only captions of SoundScript" in warned and "never saw: <b>, fourth; what" in warned
    assert (
        f"second: Critique of v1: {BAD[1]}" in said and "00002: v2: " in said and "4 of 4 wishes have a sound" in said
    )
    one = ["reason", "reflect", *words.split(), "--prompt", "First.", "--out", str(tmp_path / "one")]
    assert command(one) == 0
    assert "v2 is kept" in capsys.readouterr().out and os.path.isfile(tmp_path / "one" / "v2.wav")
    assert command(one) == 1 and "not empty" in capsys.readouterr().err
    monkeypatch.setattr(reason, "open_model", lambda args, **how: ScriptedModel(SCRIPT, hears=False))
    assert command([*one[:-1], str(tmp_path / "two")]) == 1 and "can not listen" in capsys.readouterr().err


def test_python_has_a_line_for_each(tmp_path):
    from ualm_jax.pretrained import Pretrained
    from ualm_jax.reason import Planned

    class Model(ScriptedModel):
        """With the methods of what `ualm_jax.load` gives."""

        enrich, dialogue, reflect = Pretrained.enrich, Pretrained.dialogue, Pretrained.reflect
        reason, reasoning = Pretrained.reason, Pretrained.reasoning

    wish = "Make it."
    model = Model(SCRIPT | {wish: ["How many?", PLAN, RIGHT], "Plan first: Bad.": ["nonsense"]})
    ended = model.reflect("First.", rounds=3, seed=5, cfg_scale=2.0)
    assert (ended.best.name, ended.best.clip.seed, ended.best.clip.settings.cfg_scale) == ("v2", 9, 2.0)
    judged = model.reflect("First.", rounds=3, judge=lambda prompt, clip: -len(clip.codes), judged_by="plan")
    assert judged.reason == "no better" and judged.best.name == "v1"
    assert model.enrich("First.").reason == "made" and model.enrich("First.", plan=PLAN).plan == PLAN
    assert model.dialogue(wish, lambda question: "Two.").talk == (("How many?", "Two."),)
    assert any(isinstance(event, Planned) for event in model.reasoning("First.", rounds=0))
    with pytest.raises(UserError, match="No sound was made of 'Bad.': the plan can not be used"):
        model.enrich("Bad.")
    with pytest.raises(UserError, match="There is no setting cfg_scal"):
        model.enrich("First.", cfg_scal=2.0)
    with pytest.raises(UserError, match="seed must be at least 0"):
        model.enrich("First.", seed=-1)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"answers": [2]}])
def test_a_line_that_does_not_fit_is_named(wrong):
    lines = ["First.", json.dumps({"prompt": "Second."} | wrong)]
    with pytest.raises(UserError, match=f"wishes, line 2: {next(iter(wrong))} must be"):
        read_items(lines, "wishes", WishItem)


def test_on_a_terminal_every_text_can_be_edited_and_the_end_chosen(tmp_path, monkeypatch, capsys):
    from ualm_jax.cli import reason
    from ualm_jax.cli.main import run as command

    other = PLAN.replace("click", "clap")
    model = ScriptedModel({"Make it.": ["How many?", PLAN, WRONG, BAD[0]]})
    typed = ["", "Two.", "what?", "/edit", "nonsense", "", "/edit", *other.split("\n"), EOFError(), "/stop"]
    lines = iter(typed)

    def line(*_):
        if isinstance(typed := next(lines), EOFError):  # Ctrl-D ends a text, as an empty line does
            raise typed
        return typed

    monkeypatch.setattr(reason, "open_model", lambda args, **how: model)
    monkeypatch.setattr("builtins.input", line)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    words = f"reason dialogue --model {tmp_path} --rounds 1 --out {tmp_path / 'out'} --prompt"
    assert command([*words.split(), "Make it."]) == 0
    said = capsys.readouterr().out
    assert next(lines, None) is None and "! A reply is empty" in said and "! This is no rich caption" in said
    assert "v1 is kept: the caller stopped it" in said and "/edit replaces this" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert other in page and "How many? <b>Two.</b>" in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wishes", "pairs"])
def test_a_process_that_is_killed_goes_on_to_the_same_files(golden_dir, tmp_path, kind):
    """SIGKILL, when the first, the second and the third piece of work is there."""
    import signal
    import subprocess
    import sys
    import time

    from helpers import thinking

    def start(out):
        return subprocess.Popen([sys.executable, thinking.__file__, kind, golden_dir, out])

    assert start(tmp_path / "whole").wait() == 0
    for pieces in (1, 2, 3):
        process = start(tmp_path / "out")
        while process.poll() is None and thinking.pieces(tmp_path / "out") < pieces:
            time.sleep(0.01)
        assert process.poll() is None, "it was over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "out").wait() == 0
    found = [
        {name: data for name, data in contents(tmp_path / each).items() if "/dataset/" not in f"/{name}"}
        for each in ("out", "whole")
    ]
    assert found[0] == found[1]
    if kind == "pairs":
        from ualm_jax.data.dataset.folder import open_dataset

        assert open_dataset(tmp_path / "out" / "dataset").key == open_dataset(tmp_path / "whole" / "dataset").key
