"""The command explains itself at once, and a slip of the user is one sentence."""

import json
import subprocess
import sys

import pytest

from ualm_jax.cli import main
from ualm_jax.cli.main import VERBS, run
from ualm_jax.parallel import processes


def test_help_lists_every_verb(capsys):
    assert run(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"ualm {verb} " in output for verb in VERBS)


HELP = """
import contextlib, io, json, sys
from ualm_jax.cli.main import VERBS, run
found = {}
for verb in VERBS:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            code = run([*verb.split(), "--help"])
        except SystemExit as stop:
            code = stop.code
    heavy = {"jax", "flax", "transformers", "tensorflow_datasets", "torch"} & set(sys.modules)
    found[verb] = code, sorted(heavy), shown.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def explanations():
    """What every verb says to --help, in one fresh process, and what that had imported by then."""
    return json.loads(subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_importing_jax(verb, explanations):
    code, heavy, shown = explanations[verb]
    assert code == 0 and heavy == [] and shown.startswith("usage: ualm")


def test_training_and_generating_start_without_torch():
    """Where it is installed, importing it takes longer than all the rest."""
    code = "import sys, ualm_jax.train.stages.run, ualm_jax.pretrained; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_one_of_several_processes_shows_what_nobody_explains_and_leaves(capsys, monkeypatch):
    """On JAX's way out it would wait five minutes for the others."""

    def fail(_):
        raise RuntimeError("NCCL has failed")

    left = []
    monkeypatch.setattr(main.interrupts, "watch", lambda _: None)
    monkeypatch.setattr(main, "run", fail)
    with pytest.raises(RuntimeError, match="NCCL"):
        main.main()
    monkeypatch.setattr(processes, "joined", lambda: True)
    monkeypatch.setattr(processes, "part", lambda: left.append("told the others"))
    monkeypatch.setattr(main, "_leave", left.append)
    main.main()
    assert left == ["told the others", 1] and "RuntimeError: NCCL has failed" in capsys.readouterr().err
