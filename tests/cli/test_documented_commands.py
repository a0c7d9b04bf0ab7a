"""Every `ualm` command of the README and the docs is one that `ualm` takes as it is written."""

import argparse
import pathlib
import re
import shlex

import pytest
from helpers.config_files import ROOT

from ualm_jax.cli.config_file import load_config
from ualm_jax.cli.main import run
from ualm_jax.mapping import from_mapping
from ualm_jax.train.codec_config import CodecRunConfig
from ualm_jax.train.config import RunConfig
from ualm_jax.train.enhance_config import EnhanceRunConfig

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "launch" / "recipe.md"]
TRAINING = {"train": RunConfig, "codec train": CodecRunConfig, "enhance train": EnhanceRunConfig}


def commands_of(page: pathlib.Path) -> list[list[str]]:
    """What stands in blocks of code and begins with `ualm`; a line that ends with a backslash goes on.

    Commands that are cut short by "..." are left out; a bucket is taken for a folder, which needs no extra installed.
    """
    found, fenced = [], False
    for line in re.sub(r"\\\n\s*", " ", page.read_text()).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and line.strip().startswith("ualm "):
            words = shlex.split(line.replace("gs://BUCKET", "bucket"), comments=True)[1:]
            found += [] if "..." in words else [words]
    return found


COMMANDS = [pytest.param(words, id=f"{page.stem}: {' '.join(words)}") for page in PAGES for words in commands_of(page)]


class Parsed(BaseException):
    """Ends a verb where its work would begin; nothing that it catches."""


@pytest.fixture
def only_parsed(monkeypatch, tmp_path):
    """Verbs end when their words are parsed; the config files are there, other files not yet."""
    parse, depth = argparse.ArgumentParser.parse_known_args, []

    def stop(self, *args, **kwargs):
        depth.append(self)
        try:
            taken = parse(self, *args, **kwargs)
        finally:
            depth.pop()
        if depth:  # a part of the command that is a parser of its own
            return taken
        raise Parsed(taken[1])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_taken_as_it_is_written(words, only_parsed, capsys):
    for _ in range(9):
        try:
            run(words)
        except Parsed as parsed:
            (unknown,) = parsed.args
            assert all(word.startswith("--config.") for word in unknown), unknown
            return
        except SystemExit:
            missing = re.search(r"there is no (?:folder )?(\S+)", message := capsys.readouterr().err)
            assert missing is not None, message
            place = only_parsed / missing[1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch() if place.suffix[1:].isalpha() and "to write" not in message else place.mkdir()
    pytest.fail(message)


def verb_of(words: list[str]) -> str | None:
    """The training that a command runs; None for one that trains nothing."""
    if "--config" not in words or "--print-config" in words:
        return None
    longest_first = sorted(TRAINING, key=len, reverse=True)
    return next((verb for verb in longest_first if words[: len(verb.split())] == verb.split()), None)


@pytest.mark.parametrize("words", [param for param in COMMANDS if verb_of(param.values[0])])
def test_a_training_that_is_shown_has_all_that_it_needs(words):
    overrides = [word for word in words if word.startswith("--config.")]
    config = load_config(str(ROOT / words[words.index("--config") + 1]), overrides)
    from_mapping(TRAINING[verb_of(words)], config.to_dict())
