"""Outputs are checked before work begins, and one job at a time writes to a folder."""

import os
import subprocess
import sys

import pytest

from ualm_jax.errors import UserError
from ualm_jax.outputs import check_new_folder, lock


def test_a_new_folder_may_be_missing_or_empty(tmp_path):
    assert check_new_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_new_folder(tmp_path) == tmp_path
    assert not list(tmp_path.iterdir()), "checking makes nothing"


@pytest.mark.parametrize("path", ["gs://bucket/data", "s3://bucket/data", "file:///tmp/x", "gs:/bucket", ""])
def test_a_url_is_no_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="expected a folder on this machine"):
        check_new_folder(path)
    assert not list(tmp_path.iterdir())


def test_nothing_that_exists_is_in_danger(tmp_path):
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UserError, match="exists already and is not empty"):
        check_new_folder(tmp_path)
    with pytest.raises(UserError, match="file: is a file"):
        check_new_folder(tmp_path / "file")
    with pytest.raises(UserError, match="since .*file is a file"):
        check_new_folder(tmp_path / "file" / "below" / "it")


def test_one_process_at_a_time(tmp_path):
    program = (
        "import pathlib, sys, time\n"
        "from ualm_jax.outputs import lock\n"
        "with lock(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {other.pid} on .* is writing here"), lock(tmp_path):
        pass
    other.kill()
    other.wait()
    with lock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()
    with lock(tmp_path):  # and again
        pass
