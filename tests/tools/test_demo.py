"""`tools/demo.py` touches nothing that it has not made, and keeps what it has made."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest
from helpers.tools import tool

from ualm_jax.errors import UserError

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture
def demo(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("demo", TOOLS / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_folder_of_someone_else_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("thesis")
    done = subprocess.run([sys.executable, TOOLS / "demo.py", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(tmp_path) in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "thesis"


def test_a_second_run_keeps_data_and_training_and_prints_commands_that_can_be_pasted(
    demo, tmp_path, monkeypatch, capfd
):
    out = tmp_path / "the demo"
    with pytest.raises(UserError):
        (tmp_path / "file").touch()
        demo.claim(tmp_path)
    demo.claim(out)
    (out / "data").mkdir()
    (out / "data" / "dataset.json").touch()
    (out / "run" / "checkpoints" / "100").mkdir(parents=True)
    called = []
    monkeypatch.setattr(demo, "ualm", lambda *words, **options: called.append((words, options)))
    monkeypatch.setattr(demo, "located", pathlib.Path)
    for name in ("plot_run", "save_spectrogram_png", "read_audio"):
        monkeypatch.setattr(demo, name, lambda *_, **__: None)
    demo.demo(out)
    (first, _), (train, options), (generate, _) = called
    assert train[0].startswith("train ") and options == {}
    assert first[0] == "generate --model soundscript" and generate[0].startswith("generate ")
    assert (out / "run" / "checkpoints" / "100").is_dir()
    monkeypatch.undo()
    monkeypatch.setattr(demo.subprocess, "Popen", Finished)
    demo.ualm("generate --model", out / "run", [demo.NEW])
    assert capfd.readouterr().out.splitlines()[-1] == (
        f"$ ualm generate --model '{out / 'run'}' 'a doorbell, then two clicks'"
    )


def test_the_new_word_is_a_sound_that_the_checker_hears(demo, tmp_path):
    from ualm_jax.audio.io import read_audio
    from ualm_jax.evaluate.soundscript import hear

    manifest = demo.write_doorbells(tmp_path / "sounds", 5)
    last = json.loads(manifest.read_text().splitlines()[-1])
    assert last["caption"] == "two clicks, then a doorbell"
    heard = hear(read_audio(manifest.parent / last["audio"], sample_rate=16000))
    assert [event.kind for event in heard] == ["click", "click", "tone", "tone"]
    assert [round(event.pitch_hz) for event in heard[2:]] == [659, 523]


class Finished:
    stdout, returncode = (), 0

    def __init__(self, command, **_):
        assert "generate" in command

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_picture_without_a_run_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, TOOLS / "plot_run.py", tmp_path, tmp_path / "loss.png"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no metrics.jsonl" in done.stderr


def test_a_picture_needs_a_loss_and_passes_over_the_line_that_was_being_written(tmp_path):
    plot_run, metrics = tool("plot_run").plot_run, tmp_path / "metrics.jsonl"
    for text, found in (("", 0), ('{"step": 1, "reward": 0.5}\n{"step": 2, "lo', 1)):
        metrics.write_text(text)
        with pytest.raises(UserError, match=f"metrics.jsonl: expected steps with their loss, found none in {found} "):
            plot_run(tmp_path, tmp_path / "loss.png")
    metrics.write_text(
        '{"step": 1, "loss": 2.0, "accuracy/stream_0": 0.5}\n{"step": 1, "eval/loss": 3.0}\n{"step": 2, "lo'
    )
    plot_run(tmp_path, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
