"""A job of a thousand, killed at many moments, in processes of its own: nothing is made twice, nothing is lost."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import generating

COUNT = 1000


@pytest.mark.slow
def test_a_killed_job_goes_on(golden_dir, tmp_path):
    lines = [json.dumps({"prompt": f"sound {index}", "seconds": 0.1 + index % 7 / 10}) for index in range(COUNT)]
    lines[::9] = [json.dumps({"prompt": f"say {index}", "modality": "text"}) for index in range(len(lines[::9]))]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))

    def start(out):
        command = [sys.executable, generating.__file__, golden_dir, tmp_path / "prompts.jsonl", out]
        return subprocess.Popen([str(word) for word in command])

    assert start(tmp_path / "whole").wait(300) == 0
    whole = contents(tmp_path / "whole")
    assert len(whole["results.jsonl"].splitlines()) == COUNT

    out, kills = tmp_path / "killed", 0
    while True:
        kept = lines_of(out)
        times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.wav")}
        process = start(out)
        target = len(kept) + 1 + (kills * 97) % 251
        while process.poll() is None and len(lines_of(out)) < target:
            time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.kill()
        process.wait()
        kills += 1
        assert lines_of(out)[: len(kept)] == kept
        done = {json.loads(line).get("file") for line in kept}
        assert all((out / name).stat().st_mtime_ns == times[name] for name in done if name)
    assert kills >= 5
    assert contents(out) == whole


def lines_of(out: Path) -> list[str]:
    """Whole lines."""
    if not (out / "results.jsonl").exists():
        return []
    return [line for line in (out / "results.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "lock"}
