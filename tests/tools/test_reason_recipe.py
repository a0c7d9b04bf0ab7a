"""The two rounds as one script: what each command reads was made by one before it, and its options exist."""

import pathlib
import sys

import pytest

from ualm_jax.cli.config_file import load_config
from ualm_jax.mapping import from_mapping
from ualm_jax.reason.builders.config import BuildConfig
from ualm_jax.train.config import RunConfig

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import reason_recipe

    return reason_recipe


@pytest.mark.parametrize("size", ["tiny", "7b"])
def test_every_command_reads_what_one_before_it_made(recipe, size):
    made = {"begin", "encoder"}
    commands = recipe.commands("begin", "encoder", size, 4)
    assert [words[0] for words in commands] == [
        *("reason", "train", "reason", "score", "train", "reason", "train", "reason", "score", "train")
    ]
    for words in commands:
        options = dict(zip(words, words[1:], strict=False))
        overrides = [word for word in words if word.startswith("--config.")]
        config = load_config(options["--config"], overrides).to_dict()
        if words[0] == "reason":
            assert options["--model"] in made and words[2] in ("sft", "pairs", "reflections", "final")
            from_mapping(BuildConfig, config)
            made |= {options["--out"], f"{options['--out']}/dataset"}
            continue
        run = from_mapping(RunConfig, config)
        read = [source.directory for source in run.data.sources] or [run.data.directory]
        assert set(read) <= made and run.train.init_from in made and run.train.encoder in made
        assert run.train.steps == 4
        if words[0] == "score":
            made.add(run.preference.reference)
        elif run.train.objective == "preference":
            assert run.preference.reference in made
        if words[0] == "train":
            made.add(options["--workdir"])
    assert "runs/dpo_2" in made
    assert len(read) == 1 and [len(w.split("directory")) for w in commands[6] if "sources" in w] == [3]


def test_it_goes_on_after_a_stop_and_takes_more_words(recipe, tmp_path, monkeypatch):
    ran = []

    def ualm(words):
        ran.append(words)
        if len(ran) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "ualm", ualm)
    (tmp_path / "begin").mkdir()
    monkeypatch.chdir(tmp_path)
    line = "reason_recipe.py --begin begin --out out --data=--config.samples=3"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit, match="holds no audio encoder"):
        recipe.main()
    (tmp_path / "begin" / "encoder").mkdir()
    monkeypatch.setattr(sys, "argv", [*line.split(), "--size", "8b"])
    with pytest.raises(
        SystemExit, match="there is no config sft_reason_8b .* of --size there are 7b, soundscript, tiny"
    ):
        recipe.main()
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(KeyboardInterrupt):
        recipe.main()
    monkeypatch.chdir(tmp_path)
    recipe.main()
    assert ran[3:6] == ran[:3] and len(ran) == 13
    assert all((words[-1] == "--config.samples=3") == (words[0] == "reason") for words in ran)
    assert str(tmp_path / "begin") in ran[0] and f"--config.train.encoder={tmp_path / 'begin' / 'encoder'}" in ran[1]
