"""A file of prompts: results in order, what fails alone fails alone, and nothing is made twice or lost."""

import dataclasses
import json
import math
import resource
import shutil

import numpy as np
import pytest

from ualm_jax.audio.write import write_sound
from ualm_jax.errors import UserError
from ualm_jax.generate.jobs import Job, run_job
from ualm_jax.generate.jobs_items import read_items
from ualm_jax.generate.output import read_record
from ualm_jax.generate.replay import replay

JOB = Job(seconds=0.2, seed=3, settings={"top_k": 7, "max_tokens": 5})


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Sounds of several lengths, texts, and everything that cannot be made."""
    heard = tmp_path_factory.mktemp("heard") / "clip.wav"
    write_sound(heard, 0.1 * np.random.default_rng(0).normal(size=8000).astype(np.float32), 16000)
    asked = [
        "two beeps",
        {"prompt": "a drum", "id": "drum", "seconds": 0.4},
        {"prompt": " "},
        {"prompt": "What do you hear?", "audio": str(heard), "id": "heard"},
        {"prompt": "rain", "seconds": 0},
        {"prompt": "rain", "seconds": 10_000},
        {"prompt": "rain", "modality": "smell"},
        {"prompt": "What do you hear?", "audio": "/none\udcff.wav"},
        "word " * 300,
        {"prompt": "say it", "modality": "text", "seed": 1},
        {"prompt": "a drum", "seed": 77, "negative": "noise"},
        b"r\xffin".decode(errors="surrogateescape"),
    ]
    return [entry if isinstance(entry, str) else json.dumps(entry) for entry in asked]


@pytest.fixture(scope="module")
def done(pipeline, lines, tmp_path_factory):
    out = tmp_path_factory.mktemp("job")
    return out, run_job(pipeline, read_items(lines, "prompts"), JOB, out)


def test_results_stand_in_order_and_what_cannot_be_made_leaves_the_others_alone(pipeline, lines, done):
    out, results = done
    assert [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()] == results
    assert [result["index"] for result in results] == list(range(12))
    errors = {result["index"]: result["error"] for result in results if "error" in result}
    wanted = {
        2: "The prompt is empty",
        4: "seconds must be above 0",
        5: "at most 3600, got 10000",
        6: "modality must be one of",
        7: "/none\udcff.wav: there is no such file",
        8: "there is room for 256",
        11: "not written in UTF-8",
    }
    assert errors.keys() == wanted.keys()
    assert all(sentence in errors[index] and "\n" not in errors[index] for index, sentence in wanted.items())
    sounds = {result["file"]: result["seconds"] for result in results if "file" in result}
    assert sounds == {"00000.wav": 0.2, "drum.wav": 0.4, "00010.wav": 0.2}
    assert [bool(results[index]["text"]) for index in (3, 9)] == [True, True]
    names = {"results.jsonl", "job.json", "lock", *sounds, *(f"{name}.json" for name in sounds)}
    assert {path.name for path in out.iterdir()} == names


def test_each_is_what_it_would_be_alone(pipeline, done):
    out, results = done
    assert [results[index]["seed"] for index in (0, 1, 9, 10)] == [3, 4, 1, 77]
    (alone,) = pipeline.generate(["a drum"], seconds=0.2, seed=77, top_k=7, negative_prompt="noise")
    assert read_record(out / "00010.wav")["codes"] == alone.record()["codes"]
    (alone,) = pipeline.generate(["say it"], modality="text", seed=1, top_k=7, max_tokens=5)
    assert results[9]["text"] == alone.text


def test_done_again_it_makes_what_is_lost_and_tries_what_failed_and_nothing_else(pipeline, lines, done, monkeypatch):
    out, results = done
    text = {"text": "a line\u2028another\x85and another"}  # which some take for ends of lines
    results = [result | text if result["index"] == 9 else result for result in results]
    content = "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results)
    (out / "results.jsonl").write_text(content, errors="backslashreplace")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "drum.wav").unlink()
    asked = []
    request = type(pipeline).request
    monkeypatch.setattr(
        type(pipeline), "request", lambda self, prompt: asked.append(prompt.text) or request(self, prompt)
    )
    assert run_job(pipeline, read_items(lines, "prompts"), JOB, out) == results
    # The others fail before.
    assert asked == ["a drum", "What do you hear?", ("word " * 300).strip(), "r\udcffin"]
    assert {name for name in before if before[name] != (out / name).read_bytes()} <= {"lock"}


def test_a_folder_that_was_damaged_is_one_sentence(pipeline, lines, done, tmp_path):
    out = shutil.copytree(done[0], tmp_path / "out")
    content = (out / "results.jsonl").read_text().splitlines(keepends=True)
    for damage in ("{\n", "[]\n", '{"id": "drum"}\n'):
        (out / "results.jsonl").write_text("".join([content[0], damage, *content[2:]]))
        with pytest.raises(UserError, match=r"results.jsonl line 2: is damaged; remove the line"):
            run_job(pipeline, read_items(lines, "prompts"), JOB, out)
    (out / "job.json").write_text("{")
    with pytest.raises(UserError, match="job.json: is damaged"):
        run_job(pipeline, read_items(lines, "prompts"), JOB, out)


def test_a_job_that_was_stopped_anywhere_ends_as_if_it_had_not_been(pipeline, lines, done, tmp_path):
    """Stopped between any two results, with half a line in the file; the lines left are not made again."""
    _, results = done

    class Stop(Exception):
        pass

    told = []

    def stop_after(count):
        def tell(line):
            told.append(line["index"])
            if len(told) == count:
                raise Stop

        return tell

    items = read_items(lines, "prompts")
    for count in (1, 4, 9):
        told.clear()
        with pytest.raises(Stop):
            run_job(pipeline, items, JOB, tmp_path, told=stop_after(count))
        with open(tmp_path / "results.jsonl", "a") as file:
            file.write('{"index": 4, "id": "dr')
    assert run_job(pipeline, items, JOB, tmp_path) == results
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".wav"}
    assert made == {name: (done[0] / name).read_bytes() for name in made} and len(made) == 3


def test_a_full_disk_stops_the_job_and_nothing_is_lost(pipeline, tmp_path):
    items = read_items(["two beeps", "a drum", "rain"], "prompts")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            run_job(pipeline, items, JOB, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename.endswith(".wav") and not list(tmp_path.glob("*.wav*"))
    assert [line["file"] for line in run_job(pipeline, items, JOB, tmp_path)] == [f"0000{n}.wav" for n in range(3)]


def test_changed_lines_are_made_again_and_other_jobs_refused(pipeline, lines, done):
    out, results = done
    with pytest.raises(UserError, match=r"a job with other settings \(seconds, seed\); choose another folder"):
        run_job(pipeline, read_items(lines, "p"), dataclasses.replace(JOB, seed=4, seconds=0.3), out)
    changed = [*lines[:10], json.dumps({"prompt": "a drum", "seed": 78}), *lines[11:]]
    again = run_job(pipeline, read_items(changed, "prompts"), JOB, out)
    assert again[10]["seed"] == 78 and again[:2] == results[:2]
    assert run_job(pipeline, read_items(lines, "prompts"), JOB, out)[10] == results[10]


def test_the_best_candidate_is_kept_and_all_scores_are(pipeline, tmp_path):
    job = dataclasses.replace(JOB, candidates=3, scorer="mine")
    items = read_items(["two beeps", "a drum", '{"prompt": "?", "audio": "a.wav"}', "rain"], "prompts")

    def scorer(prompt, clip):
        return math.nan if prompt == "rain" or clip.seed == 4 else clip.codes[0, 0]

    results = run_job(pipeline, items, job, tmp_path, scorer=scorer)
    for index in (0, 1):
        ranked = results[index]["candidates"]
        scores = [entry["score"] for entry in ranked if entry["score"] is not None]
        assert scores == sorted(scores, reverse=True) and results[index]["seed"] == ranked[0]["seed"]
        assert sorted(entry["seed"] for entry in ranked) == list(range(3 + 3 * index, 6 + 3 * index))
        beside = json.loads((tmp_path / f"0000{index}.wav.json").read_text())
        assert beside["candidates"] == ranked
    assert results[0]["candidates"][-1] == {"seed": 4, "score": None, "problem": "the scorer gave nan"}
    assert "ranked by their prompt's text" in results[2]["error"] and "None of 3 candidates" in results[3]["error"]
    with pytest.raises(UserError, match="does not say which weights"):
        replay(read_record(tmp_path / "00000.wav"), pipeline)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "expected a prompt on each line, found none"),
        ('rain\n{"prompt": "rain"', "prompts, line 2: begins like a JSON object but is none"),
        ('{"id": "a"}', 'line 1: has no "prompt"'),
        ('{"prompt": "a", "second": 3}', "line 1: there is no field 'second'; the fields are id, prompt, audio"),
        ('{"prompt": "a", "seed": 1.5}', "seed can not be 1.5"),
        ('{"prompt": 3}', "prompt can not be 3"),
        ('{"prompt": "a", "id": "../a"}', "'../a' is no name for a file"),
        ('{"prompt": "a", "id": "A"}\n\n{"prompt": "b", "id": "a"}', "id 'a' stands in line 1 and in line 3"),
        ('{"prompt": "a", "id": "00001"}\nb', "id '00001' stands in line 1 and in line 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_any_work(text, problem):
    with pytest.raises(UserError, match=problem):
        read_items(text.splitlines(), "prompts")
    assert [item.prompt for item in read_items(["", " rain ", '{"prompt": "a"}'], "p")] == ["rain", "a"]


def test_jobs_that_contradict_themselves_are_refused():
    for fields in (dict(candidates=2), dict(scorer="likelihood"), dict(candidates=0), dict(depth="24", suffix=".mp3")):
        with pytest.raises(UserError):
            Job(**fields)
