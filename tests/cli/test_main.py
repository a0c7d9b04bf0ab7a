"""The command explains itself at once, and a slip of the user is one sentence."""

import subprocess
import sys

import pytest

from ualm_jax.cli.main import VERBS, run


def test_help_lists_every_verb(capsys):
    assert run(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"ualm {verb} " in output for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_importing_jax(verb):
    script = (
        "import sys\n"
        "from ualm_jax.cli.main import run\n"
        "try:\n"
        f"    run({[*verb.split(), '--help']!r})\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0, stop.code\n"
        "heavy = {'jax', 'flax', 'transformers', 'tensorflow_datasets', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ualm")


def test_an_unknown_verb_is_one_sentence(capsys):
    assert run(["trian"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unknown_argument_of_train_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit):
        run(["train", "--config", "configs/tiny.py", "--workdir", str(tmp_path), "--batch-size", "4"])
    assert "--batch-size" in capsys.readouterr().err


def test_a_manifest_that_is_not_there_is_one_sentence(capsys, tmp_path):
    arguments = ["--source", "manifest", "--input", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]
    assert run(["data", "prepare", *arguments]) == 1
    message = capsys.readouterr().err
    assert "none.jsonl" in message and message.count("\n") == 1 and not (tmp_path / "out").exists()
