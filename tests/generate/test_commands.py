"""What a user types: `ualm generate`, `ask`, `replay` and `chat`, with the golden model."""

import dataclasses
import io
import json
import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest
import soundfile
from helpers.enhancers import tiny_enhancer

from ualm_jax import pretrained
from ualm_jax.audio.io import read_audio
from ualm_jax.audio.write import read_comment
from ualm_jax.cli.generation_progress import Speed
from ualm_jax.cli.main import run
from ualm_jax.codecs.enhance.model import Enhancer
from ualm_jax.codecs.enhance.weights import save_directory
from ualm_jax.errors import UserError
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.session import Session
from ualm_jax.weights.fingerprints import codec_fingerprint, model_fingerprint


@pytest.fixture(autouse=True)
def folder(pipeline, tmp_path, monkeypatch):
    """A folder `run` that `load` opens as the golden model, in the current folder."""

    def load(path, step=None, int8=False, enhance=None, slots=8, sequences=None, window=None):
        weights = {"model": model_fingerprint(pipeline.model), "codec": codec_fingerprint(pipeline.codec)}
        enhancer = None if enhance is None else Enhancer.from_directory(enhance)
        if enhancer is not None:
            weights["enhancer"] = codec_fingerprint(enhancer)
        how = (slots, pipeline.window, str(enhance or ""))
        made_by = MadeBy(str(path), step or 100, int8, *how, lambda: weights, sequences)
        # Three slots whatever was asked for, so that all tests share their programs.
        parts = {field.name: getattr(pipeline, field.name) for field in dataclasses.fields(pipeline)}
        parts |= {"made_by": made_by, "enhancer": enhancer, "sequences": sequences}
        return pretrained.Pretrained(**parts, path=path, step=step or 100)

    monkeypatch.setattr(pretrained, "load", load)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return tmp_path


def ualm(line, capsys, status=0) -> str:
    """Output of a command line that ends with `status`; what it says of the speed is taken out."""
    capsys.readouterr()
    assert run(words(line)) == status
    return re.sub(r" \([\d.]+ s, .*?\)", "", capsys.readouterr().out)


def words(line):
    return [word.strip("'") for word in re.findall(r"'[^']*'|\S+", line)]


def refused(line, capsys) -> str:
    """The one sentence of a command line that is refused before anything is loaded."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(words(line))
    message = capsys.readouterr().err.strip()
    assert message.startswith("ualm ") and "\n" not in message
    return message


def test_a_caption_becomes_a_sound_that_can_be_replayed(folder, capsys):
    line = "generate --model run 'two beeps' --out a.flac --seconds 0.3 --seed 5 --depth 24 --loudness rms=-20"
    said = ualm(line, capsys)
    assert said.startswith("a.flac: 0.30 s from step 100, seed 5, turned ")
    assert ualm("replay a.flac", capsys) == "a.flac: made again, bit for bit\n"
    (folder / "run").rename(folder / "moved")
    line = "replay a.flac.json --model moved --out b.flac"
    assert ualm(line, capsys) == "b.flac: made again, bit for bit as a.flac\n"
    content = (folder / "a.flac").read_bytes()
    assert (folder / "b.flac").read_bytes() == content
    (folder / "a.flac").unlink()
    ualm("replay a.flac.json --model moved", capsys)
    assert (folder / "a.flac").read_bytes() == content
    (folder / "a.flac").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run(words("replay a.flac.json --model moved")) == 1
    assert "a.flac is another file than the one that was made" in capsys.readouterr().err
    assert run(words("replay a.flac.json")) == 1
    assert "was made by run, which is not here; say where it is with --model" in capsys.readouterr().err


def test_a_model_of_a_small_language_says_once_which_words_it_never_saw(capsys, monkeypatch):
    load = pretrained.load
    monkeypatch.setattr(
        pretrained, "load", lambda *a, **k: dataclasses.replace(load(*a, **k), language="soundscript-2")
    )
    assert run(words(f"generate --model run 'two clicks, then a zebra {'z' * 31}' --out a.wav --seconds 0.3")) == 0
    assert f"never saw: zebra, {'z' * 30}...; what it makes" in capsys.readouterr().err
    assert run(words("generate --model run 'two clicks, then a long tone' --out a.wav --seconds 0.3")) == 0
    assert "never saw" not in capsys.readouterr().err
    assert run(words("ask --model run 'how many zebras?' --max-tokens 2")) == 0
    assert "never saw: zebras; what it makes" in capsys.readouterr().err


@pytest.mark.parametrize("speech", [False, True, None])
def test_a_model_that_was_trained_without_speech_says_so_when_it_is_asked_for_it(speech, folder, capsys, monkeypatch):
    load = pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda *a, **k: dataclasses.replace(load(*a, **k), speech=speech))
    (folder / "lines").write_text('beep\n{"prompt": "beep", "modality": "speech"}\n')
    short = "--max-tokens 1 --seconds 0.1"
    for line in (f"--prompt beep --out a.wav --modality speech {short}", f"--prompts lines --out many {short}"):
        assert run(words(f"generate --model run {line}")) == 0
        said = "run was trained without speech: what it makes when asked for it means nothing."
        assert (said in capsys.readouterr().err) == (speech is False)
    assert run(words(f"generate --model run --prompt beep --out b.wav {short}")) == 0
    assert "speech" not in capsys.readouterr().err


def test_a_sound_without_guidance_is_enhanced_to_stereo_and_replayed_by_the_same_parts(folder, capsys):
    enhancer = tiny_enhancer()
    for name, scale in (("enhancer", 1), ("other", 2)):
        params = jax.tree.map(lambda leaf, scale=scale: scale * np.asarray(leaf), enhancer.params)
        save_directory(params, enhancer.config, folder / name, {})
    line = "generate --model run 'two beeps' --out a.wav --seconds 0.3 --seed 5 --cfg-scale 1 --enhance enhancer --plot"
    assert ualm(line, capsys).startswith("a.wav: 0.30 s from step 100, seed 5")
    samples, rate = soundfile.read("a.wav")
    assert (samples.shape, rate) == ((14400, 2), 48000) and not np.array_equal(samples[:, 0], samples[:, 1])
    made_by = json.loads(read_comment("a.wav"))["made_by"]
    assert (made_by["enhance"], made_by["work"]) == ("enhancer", ["audio", "sampled"])
    assert ualm("replay a.wav", capsys) == "a.wav: made again, bit for bit\n"
    assert run(words("replay a.wav --enhance other")) == 1
    assert "has another enhancer than made this sound" in capsys.readouterr().err


def test_speed_in_real_time_is_of_sound_alone():
    engine = types.SimpleNamespace(steps=0, slot_steps=0, frames=0, slots=2)
    speed = Speed(engine, 50.0)
    engine.steps, engine.slot_steps = 10, 10
    assert "real time" not in str(speed) and "slots 50% busy" in str(speed)
    engine.frames = 100
    assert float(re.search(r"([\d.,]+) x real time", str(speed))[1].replace(",", "")) > 0


def test_the_best_of_several_is_kept_and_all_are_told(folder, capsys):
    (folder / "mine.py").write_text("def low(prompt, clip):\n    return -float(clip.codes.sum())\n")
    line = (
        "generate --model run --prompt 'two beeps' --out a.wav --seconds 0.2 --candidates 3 --scorer mine.py:low --plot"
    )
    told = ualm(line, capsys).splitlines()
    ranked = json.loads((folder / "a.wav.json").read_text())["candidates"]
    assert [f"  {place}. seed {one['seed']}: {one['score']:.4f}" for place, one in enumerate(ranked, 1)] == told[1:]
    assert f"seed {ranked[0]['seed']}" in told[0] and (folder / "a.wav.png").exists()
    assert "candidates" not in json.loads(read_comment("a.wav"))
    ualm("replay a.wav.json", capsys)


def test_a_sound_is_gone_on_from(folder, capsys):
    ualm("generate --model run --prompt 'two beeps' --out a.wav --seconds 0.2", capsys)
    ualm("generate --model run --prompt 'two beeps' --begin a.wav --out b.wav --seconds 0.1", capsys)
    assert len(read_audio("b.wav", sample_rate=16000)) == len(read_audio("a.wav", sample_rate=16000)) + 1600
    assert run(words("replay b.wav")) == 1 and "a sound that it begins with" in capsys.readouterr().err


def test_words_come_out_where_words_are_asked_for(folder, capsys):
    said = ualm("generate --model run --prompt 'two beeps' --modality text --max-tokens 6", capsys)
    assert said == ualm("ask --model run 'two beeps' --max-tokens 6", capsys) and said.strip()
    ualm("generate --model run --prompt 'two beeps' --out a.wav --seconds 0.5", capsys)
    about = ualm("ask --model run --max-tokens 6 --audio a.wav 'What is it?'", capsys)
    assert about == ualm("generate --model run --listen a.wav --prompt 'What is it?' --max-tokens 6", capsys)


def test_of_several_sounds_one_that_cannot_be_heard_leaves_the_others_alone(folder, capsys):
    ualm("generate --model run --prompt 'two beeps' --out a.wav --seconds 0.5", capsys)
    (folder / "b.wav").write_text("no sound")
    said = ualm(
        "ask --model run --audio a.wav --audio b.wav --audio a.wav 'What is it?' --max-tokens 4", capsys, status=1
    )
    first, second = said.strip("\n").split("\na.wav: ")
    assert first == f"a.wav: {second}"


def test_a_file_of_prompts_goes_on_where_it_stopped(folder, capsys, monkeypatch):
    (folder / "prompts.txt").write_text('two beeps\n\n{"prompt": "rain", "id": "rain"}\n{"prompt": " "}\n')
    line = "generate --model run --prompts prompts.txt --out out --seconds 0.2 --format ogg"
    assert ualm(line, capsys, status=1).startswith("out/results.jsonl: 2 of 3 answers")
    assert {path.name for path in (folder / "out").glob("*.ogg")} == {"00000.ogg", "rain.ogg"}
    results = (folder / "out" / "results.jsonl").read_text()
    (folder / "out" / "results.jsonl").write_text(results.splitlines(keepends=True)[1] + '{"ind')
    ualm(line, capsys, status=1)
    assert (folder / "out" / "results.jsonl").read_text() == results
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two beeps\nrain\n")))
    ualm("generate --model run --prompts - --out piped --seconds 0.2", capsys)
    assert len(read_audio("piped/00001.wav", sample_rate=16000)) == 3200
    assert run(words(line.replace("0.2", "0.3"))) == 1
    assert "out: holds results of a job with other settings (seconds)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, sentence",
    [
        ("--prompt ' ' --out a.wav", "expected text, got none"),
        ("--prompt x --out a.wav --seconds 0", "expected a number above 0 and at most 3600, got '0'"),
        ("--prompt x --out a.wav --seconds 10000", "got '10000'"),
        ("--prompt x --out a.wav --seconds nan", "got 'nan'"),
        ("--prompt x --out a.wav --cfg-scale -1", "at least 0 and at most 100, got '-1'"),
        ("--prompt x --out a.wav --temperature inf", "got 'inf'"),
        ("--prompt x --out a.wav --modality smell", "invalid choice: 'smell'"),
        ("--prompt x --out a.wav --loudness 3", "given as peak=-1, rms=-20 or lufs=-16"),
        ("--prompt x --out a.mp3 --depth 24", "can have none, for it is lossy"),
        ("--prompt x --out a.aiff", "argument --out: expected a name that ends with .wav or .flac"),
        ("--prompt x --out none/a.wav", "there is no folder none"),
        ("--prompt x --out /proc/a.wav", "can not be written"),
        ("--prompt x", "--out is needed"),
        ("--prompt x --out a.wav --scorer likelihood", "give --candidates"),
        ("--prompt x --out a.wav --format flac", "--format is of --prompts' sounds"),
        ("--prompt x --modality text --out a.wav", "--out is for sounds, and what --modality text gives are words"),
        ("--prompts - --begin a.wav --out out", "there is no a.wav"),
        ("--prompt x --modality text --candidates 2", "--candidates is for sounds"),
        ("--prompt x --out a.wav --promt y", "there is no option --promt; did you mean --prompt?"),
        ("--prompts none.txt --out out", "there is no none.txt"),
        ("--prompts - --listen a.wav --out out", "there is no a.wav"),
    ],
)
def test_what_cannot_be_made_is_one_sentence_before_anything_is_loaded(capsys, options, sentence):
    assert sentence in refused(f"generate --model run {options}", capsys)


def test_what_the_model_cannot_do_is_one_sentence_and_leaves_no_file(folder, capsys):
    for options, sentence in {
        "--prompt x --candidates 2 --scorer nobody": "There is no scorer 'nobody'",
        f"--prompt '{'word ' * 300}'": "there is room for 256",
    }.items():
        assert run(words(f"generate --model run --out a.wav {options}")) == 1
        error = capsys.readouterr().err.strip()
        assert sentence in error and "\n" not in error
    assert [path.name for path in folder.iterdir()] == ["run"]


def test_a_conversation_of_texts_and_sounds(folder, capsys, monkeypatch):
    ualm("generate --model run --prompt 'two beeps' --out a.wav --seconds 0.5", capsys)

    def chat(*lines):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        return ualm("chat --model run --max-tokens 6 --out said", capsys).splitlines()

    said = chat(
        "/text", "hello", "/hear a.wav What is it?", "/audio", "/seconds -1", "/seconds 0.2", "again", "/save talk"
    )
    assert "[said/chat-001.wav: 0.20 s]" in said and said[-1] == "[talk]"
    assert [line for line in said if line.startswith("!")] == [
        "! /seconds: expected a number of at least 0 and at most 3600, got '-1'"
    ]
    sounds = len(list((folder / "said").glob("*.wav")))
    again = chat("/open talk", "/retry", "/seed x", "/hear", "/hear none.wav", "/fly", "/help", "/quit", "not said")
    segments = len([line for line in said if line not in ("[talk]", "!")]) - 1
    assert again[0] == f"[{4 + segments} messages]" and len(list((folder / "said").glob("*.wav"))) > sounds
    assert [line for line in again if line.startswith("!")] == [
        "! /seed: expected a whole number, 0 to 4294967295, got 'x'",
        "! /hear needs a name behind it.",
        "! none.wav: there is no such file",
        "! There is no command /fly; /help lists them.",
    ]


def test_a_line_that_can_not_be_said_leaves_the_conversation_as_it_was(capsys, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"/text\nhello\n\xff\n/save talk\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    said = ualm("chat --model run --max-tokens 6", capsys).splitlines()
    assert "! The text is not written in UTF-8." in said
    talk = json.loads(pathlib.Path("talk/session.json").read_text())
    assert [message["role"] for message in talk["messages"]][:2] == ["user", "assistant"]
    assert all(message["role"] == "assistant" for message in talk["messages"][1:])


def test_a_try_that_fails_leaves_the_last_reply(capsys, monkeypatch):
    def nothing(self, *_, **__):
        raise UserError("no room")
        yield

    monkeypatch.setattr(sys, "stdin", io.StringIO("/text\nhello\n/retry\n/save talk\n"))
    reply, asked = Session.reply, []

    def once(self, *words, **how):
        asked.append(self)
        return reply(self, *words, **how) if len(asked) == 1 else nothing(self)

    monkeypatch.setattr(Session, "reply", once)
    assert "! no room" in ualm("chat --model run --max-tokens 6", capsys)
    roles = [message["role"] for message in json.loads(pathlib.Path("talk/session.json").read_text())["messages"]]
    assert roles[:2] == ["user", "assistant"]


def test_another_try_has_the_next_seed_or_the_one_that_was_said(capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(Session, "reply", lambda self, *_, **__: drawn.append(self.seed) or iter(()))
    lines = ["hello", "/retry", "/seed 7", "/retry", "/retry", "/save talk", "/seed 3", "/open talk", "/retry"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert ualm("chat --model run", capsys) == "[talk]\n[1 messages]\n"
    assert drawn == [0, 1, 7, 8, 9]
