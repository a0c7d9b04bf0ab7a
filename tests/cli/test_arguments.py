"""What is wrong on a command line is said when it is read: one sentence, exit status 2, nothing begun."""

import argparse
import os
import pathlib

import pytest

from ualm_jax.cli import arguments
from ualm_jax.cli.arguments import Parser, integer, number


def refuses(kind, value) -> str:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        kind(value)
    return str(error.value)


@pytest.mark.parametrize("value", ["0", "-1", "9", "2.5", "nan", "inf", "", "1e400", "many"])
def test_a_whole_number_out_of_bounds_is_refused(value):
    assert "a whole number, 1 to 8" in refuses(integer(at_least=1, at_most=8), value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "1e400", "2.5", "", "much"])
def test_a_number_that_is_not_finite_or_out_of_bounds_is_refused(value):
    assert value in refuses(number(above=0, at_most=2), value)


def test_bounds_are_inclusive_but_for_above():
    assert integer(at_least=1, at_most=8)("1") == 1 and integer(at_least=1, at_most=8)("8") == 8
    assert number(at_least=0, at_most=1)("0") == 0 and number(at_least=0, at_most=1)("1") == 1
    assert number()("-1e30") == -1e30


def test_a_text_is_utf8_and_not_blank():
    assert arguments.text("ein Gedöns") == "ein Gedöns"
    assert "UTF-8" in refuses(arguments.text, os.fsdecode(b"no \xff\xfe"))
    assert refuses(arguments.text, " \n") == "expected text, got none"


@pytest.mark.parametrize("kind", [arguments.local_path, arguments.input_file, arguments.output_directory])
@pytest.mark.parametrize("value", ["", "gs://bucket/runs", "https://host/a.json"])
def test_no_path_is_empty_or_a_url(kind, value):
    assert "expected a path" in refuses(kind, value)


def test_inputs_are_there_and_of_the_kind(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert arguments.input_file(str(file)) == file and arguments.input_directory(str(tmp_path)) == tmp_path
    assert "is a folder" in refuses(arguments.input_file, str(tmp_path))
    assert "is a file" in refuses(arguments.input_directory, str(file))
    assert "there is no" in refuses(arguments.input_file, str(tmp_path / "none"))


def test_outputs_can_be_written_and_nothing_is_left_by_trying(tmp_path):
    (tmp_path / "file").touch()
    kind = arguments.output_file(".wav", ".flac")
    assert kind(str(tmp_path / "a.WAV")) == tmp_path / "a.WAV"
    assert arguments.output_directory(str(tmp_path / "new/er")) == tmp_path / "new/er"
    assert "ends with .wav or .flac" in refuses(kind, str(tmp_path / "a.mp3"))
    assert "there is no folder" in refuses(kind, str(tmp_path / "none/a.wav"))
    assert "can not be written" in refuses(kind, "/proc/a.wav")
    assert "is a file" in refuses(arguments.output_directory, str(tmp_path / "file/below"))
    assert "can not be written" in refuses(arguments.output_directory, "/proc/a/b")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def slip(capsys, parse, *argv) -> str:
    with pytest.raises(SystemExit) as stop:
        parse(list(argv))
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    return message


@pytest.fixture
def parser():
    parser = Parser("ualm do", overrides=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=integer(at_least=0))
    arguments.add_device_arguments(parser)
    return parser


def test_an_unknown_option_is_named_with_the_nearest_one(parser, capsys):
    message = slip(capsys, parser.parse_args, "--promt", "x")
    assert message == "ualm do: there is no option --promt; did you mean --prompt?\n"
    assert "`ualm do --help` lists" in slip(capsys, parser.parse_args, "--zzz=1")


def test_an_option_of_a_subcommand_is_looked_for_there(capsys):
    parser = Parser("ualm do")
    part = parser.add_subparsers(dest="part").add_parser("part")
    part.add_argument("--rows", type=integer(at_least=1))
    assert parser.parse_args(["part", "--rows", "3"]).rows == 3
    assert slip(capsys, parser.parse_args, "part", "--row", "3").startswith("ualm do part: there is no option --row;")
    assert "argument --rows: expected a whole number" in slip(capsys, parser.parse_args, "part", "--rows", "0")


@pytest.mark.parametrize("devices", ["0", "-1", "513", "two"])
def test_devices_that_can_not_be_are_refused(parser, capsys, devices):
    assert "1 to 512" in slip(capsys, parser.parse_args, "--prompt", "x", "--devices", devices)


def test_processes_are_written_as_they_are_asked_for(parser, capsys):
    assert parser.parse_args(["--prompt", "x", "--distributed"]).distributed == "auto"
    assert parser.parse_args(["--prompt", "x", "--distributed", "host:1,2,0"]).distributed == "host:1,2,0"
    assert "HOST:PORT,COUNT,INDEX" in slip(capsys, parser.parse_args, "--prompt", "x", "--distributed", "host")


def test_fields_of_a_config_are_set_with_an_equals_sign_or_a_space(parser, capsys):
    argv = ["--config.a.b=1", "--prompt", "x", "--config.c", "-2", "--seed", "3"]
    args, overrides = parser.parse_with_overrides(argv)
    assert (args.prompt, args.seed, overrides) == ("x", 3, ["--config.a.b=1", "--config.c=-2"])
    assert "--config.c=VALUE" in slip(capsys, parser.parse_with_overrides, "--config.c", "--prompt", "x")


def test_no_checkout_hint_names_an_index():
    """The package is on none: `pip install '.[extra]'` is what works."""
    root = pathlib.Path(__file__).parents[2]
    files = [path for room in ("ualm_jax", "tools", "docs") for path in (root / room).rglob("*.*")]
    found = [path for path in files if path.suffix in (".py", ".md") and "ualm-jax[" in path.read_text()]
    assert not found
