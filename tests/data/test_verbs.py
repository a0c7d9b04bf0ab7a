"""`ualm data prepare` and `ualm data inspect`, from raw files to pictures; and other programs read the result."""

import hashlib
import json

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds

from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.cli.main import run
from ualm_jax.data.dataset.audio_input import with_frames
from ualm_jax.data.dataset.folder import open_dataset, open_records
from ualm_jax.tokens.layout import build_grid


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The same two sounds in every published form."""
    folder = tmp_path_factory.mktemp("raw")
    time = np.arange(8000) / 16000
    soundfile.write(folder / "low.wav", (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32), 16000)
    soundfile.write(folder / "high.wav", (0.3 * np.sin(2 * np.pi * 880 * time)).astype(np.float32), 16000)
    names = ("low", "high")
    forms = {
        "text": [{"input": [{"role": "user", "content": f"Is {n} a tone?"}], "output": "Yes."} for n in names],
        "understanding": [
            {
                "id": n,
                "sound": f"{n}.wav",
                "duration": 0.5,
                "conversations": [
                    {"from": "human", "value": "<sound>\nHow high?"},
                    {"from": "gpt", "value": f"It is {n}."},
                ],
            }
            for n in names
        ],
        "generation": [
            {"location": f"{n}.wav", "start_time": 0.1, "end_time": 0.4, "caption": f"A {n} tone."} for n in names
        ],
        "dialogue": [{"messages": [["user", "text", f"Play {n}."], ["assistant", "audio", f"{n}.wav"]]} for n in names],
    }
    for form, records in forms.items():
        (folder / f"{form}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "understanding.jsonl").write_text(json.dumps(forms["understanding"]))
    return folder


@pytest.fixture(scope="module")
def prepared(raw, golden_dir, tmp_path_factory):
    """A dataset of each form, with a tokenizer and a codec of the released kinds."""
    out = tmp_path_factory.mktemp("prepared")
    parts = ["--tokenizer", golden_dir / "qwen2", "--codec", golden_dir / "xcodec"]
    for form in GRIDS:
        words = ["data", "prepare", "--source", form, "--input", raw / f"{form}.jsonl", "--out", out / form, *parts]
        assert run([str(word) for word in words]) == 0
    return out


GRIDS = {
    "text": "2381f5c7f443ccde",
    "understanding": "51b59c50adfa8549",
    "generation": "e66dcc7ad78d0c60",
    "dialogue": "4b36e2411fb6aed0",
}


@pytest.mark.parametrize("form", GRIDS)
def test_a_fixed_corpus_gives_fixed_token_grids(prepared, form):
    info, digest = open_dataset(prepared / form), hashlib.sha256()
    front_end = MelFrontEnd(3000, windowed=False, normalize=True, max_seconds=30.0)
    for index in range(info.records):
        grid = build_grid(with_frames(open_records(info)[index].messages, front_end), info.vocabulary)
        digest.update(grid.tokens.tobytes() + grid.loss_weights.tobytes() + repr(grid.clips).encode())
    assert digest.hexdigest()[:16] == GRIDS[form]


def test_tensorflow_datasets_reads_the_folder(prepared):
    source = tfds.builder_from_directory(prepared / "understanding").as_data_source("train")
    assert len(source) == 2 and [row["id"] for row in source] == [b"low", b"high"]
    record = open_records(open_dataset(prepared / "understanding"))[1]
    row = source[1]
    assert row["clips"] == list(record.clips) and row["length"] == record.length
    np.testing.assert_array_equal(
        row["text"], np.concatenate([m.content for m in record.messages if m.modality == "text"])
    )
    codes = tfds.builder_from_directory(prepared / "generation").as_data_source("train")[0]["codes"]
    assert codes.dtype == np.int16 and codes.shape[1] == 8


def test_inspecting_shows_counts_examples_sounds_and_packed_rows(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["data", "inspect", *(str(prepared / form) for form in ("generation", "understanding", "text"))]
    command += ["--examples", "1", "--batch", "--seq-len", "256", "--batch-size", "2", "--audio-slots", "2"]
    assert run(command) == 0 and list(tmp_path.iterdir()) == []
    without = capsys.readouterr().out
    assert run([*command, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [line.split(":")[0] for line in without.splitlines()] == [
        line.split(":")[0] for line in shown.splitlines() if not line.startswith("Lengths")
    ]
    for words in (
        "generation",
        "tone.",
        "How high?",
        "0.30 s of target audio",
        "0.50 s of audio input",
        "found by the filters",
        "~~~",
        "###",
    ):
        assert words in shown, words
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".wav"}
    assert (tmp_path / "lengths.png").stat().st_size > 1000 and (tmp_path / "batch.png").stat().st_size > 1000
    heard = [path for path in tmp_path.glob("understanding-*.wav")]
    assert len(soundfile.read(heard[0])[0]) == 8000


def test_wrong_requests_are_one_sentence(raw, tmp_path, capsys):
    cases = [
        (["prepare", "--source", "text", "--out", tmp_path / "a"], "--source text needs --input PATH."),
        (["prepare", "--source", "text", "--input", raw / "no", "--out", tmp_path / "a"], "there is no such manifest"),
        (
            ["prepare", "--source", "text", "--input", raw / "text.jsonl", "--out", tmp_path / "a", "--drop", "noise"],
            "there is no filter 'noise'",
        ),
        (["inspect", raw], "no dataset here"),
    ]
    for words, message in cases:
        assert run(["data", *map(str, words)]) == 1
        error = capsys.readouterr().err.strip()
        assert message in error and "\n" not in error


def test_parts_that_a_killed_job_made_are_replaced_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    (tmp_path / "out.parts" / "tokenizer").mkdir(parents=True)
    (tmp_path / "out.parts" / "tokenizer" / "half").touch()
    (tmp_path / "out.parts" / "lock").touch()
    words = ["--source", "soundscript", "--count", "1", "--workers", "1", "--sounds-only", "--out", tmp_path / "out"]
    assert run(["data", "prepare", *map(str, words)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "tokenizer" / "half").exists()


def test_a_folder_of_someone_else_that_is_called_as_the_parts_is_left_as_it_is(tmp_path, capsys):
    (tmp_path / "out.parts" / "tokenizer").mkdir(parents=True)
    assert run(["data", "prepare", "--source", "soundscript", "--out", str(tmp_path / "out")]) == 1
    assert "out.parts: in the way" in capsys.readouterr().err and (tmp_path / "out.parts" / "tokenizer").is_dir()


def test_a_job_that_is_refused_says_nothing_else_and_leaves_nothing(tmp_path, capsys):
    words = ["--source", "soundscript", "--count", "1", "--drop", "nonsense", "--out", str(tmp_path / "out")]
    assert run(["data", "prepare", *words]) == 1
    said = capsys.readouterr()
    assert "nonsense" in said.err and said.out == "" and list(tmp_path.iterdir()) == []
