"""tools/fetch_sounds.py: what it reads out of the Debian packages, and how it fails and resumes."""

import gzip
import importlib.util
import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from helpers.tools import tool

from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.errors import UserError

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "fetch_sounds.py"
spec = importlib.util.spec_from_file_location("fetch_sounds", TOOL)
fetch_sounds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fetch_sounds)


def put_sound(path: pathlib.Path, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(rate // 4), rate)


@pytest.fixture
def tuxpaint(tmp_path):
    """A small tree like that of tuxpaint-stamps-default."""
    stamps = tmp_path / fetch_sounds.TUXPAINT / "usr/share/tuxpaint/stamps"
    texts = {
        "animals/frog": "A frog.\nfr.utf8=Une grenouille.\n",
        "animals/frog_desc": "not a sound of a frog\n",
        "seasonal/candy": "Hard candy—yum!\n",
        "symbols/math/7": "Seven.\n",
    }
    for name, text in texts.items():
        put_sound(stamps / f"{name}.ogg", 44100)
        (stamps / f"{name}.txt").write_text(text, encoding="utf-8")
    put_sound(stamps / "animals/frog_desc_fr.wav", 44100)
    put_sound(stamps / "animals/mosquito.ogg", 44100)  # no text
    (stamps / "animals/toad.txt").write_text("A toad.\n")  # no sound
    return tmp_path


@pytest.fixture
def asterisk(tmp_path):
    """Small trees like those of the two asterisk packages."""
    sounds = tmp_path / fetch_sounds.ASTERISK / "usr/share/asterisk/sounds/en_US_f_Allison"
    for name in ("activated", "letters/at", "tt-monkeys"):
        put_sound(sounds / f"{name}.wav")
    doc = tmp_path / fetch_sounds.ASTERISK_TEXTS / "usr/share/doc" / fetch_sounds.ASTERISK_TEXTS
    doc.mkdir(parents=True)
    text = "; Core Asterisk Sounds: English\n\nactivated: Activated.\nletters/at: at [@]\n"
    text += "not-recorded: Nobody said this.\ntt-monkeys: [sound of monkeys screaming]\n"
    (doc / "core-sounds-en.txt.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_tuxpaint_gives_captioned_sounds_without_spoken_ones(tuxpaint):
    records = list(fetch_sounds.tuxpaint_records(tuxpaint))
    assert [(record["id"], record["caption"]) for record in records] == [
        ("tuxpaint/animals/frog", "A frog."),
        ("tuxpaint/seasonal/candy", "Hard candy—yum!"),
    ]


def test_asterisk_gives_every_recorded_prompt_with_its_words(asterisk):
    records = list(fetch_sounds.asterisk_records(asterisk))
    assert [(record["id"], record["caption"]) for record in records] == [
        ("asterisk/activated", 'A voice says: "Activated."'),
        ("asterisk/letters/at", 'A voice says: "at"'),
        ("asterisk/tt-monkeys", "Sound of monkeys screaming."),
    ]


@pytest.mark.parametrize(
    ("transcript", "caption"),
    [
        (" Please  hold.  Thanks.", 'A voice says: "Please hold. Thanks."'),
        (
            ' Dial 4 for a polite "don\'t call" menu.',
            "A voice says: \"Dial 4 for a polite 'don't call' menu.\"",
        ),
        (' IAX (note: does not say "2")', 'A voice says: "IAX"'),
        (" After the tone. (simple tone sound plays)", 'A voice says: "After the tone."'),
        (" space [ ]", 'A voice says: "space"'),
        (" (1 second of silence)", "1 second of silence."),
        (" [this is a simple beep tone]", "A simple beep tone."),
    ],
)
def test_speech_is_quoted_and_remarks_are_not_spoken(transcript, caption):
    assert fetch_sounds.asterisk_caption(transcript) == caption


@pytest.mark.parametrize("name", ["tuxpaint", "asterisk"])
def test_what_it_writes_a_manifest_reads(name, tuxpaint, asterisk, capsys):
    out = tuxpaint
    fetch_sounds.write_manifest(out / f"{name}.jsonl", getattr(fetch_sounds, f"{name}_records")(out))
    manifest = Manifest(out / f"{name}.jsonl", sample_rate=16000)
    assert all(len(manifest[i].wav) == pytest.approx(4000, abs=1) for i in range(len(manifest)))
    fetch_sounds.report(out / f"{name}.jsonl", expected=9)
    printed = capsys.readouterr().out
    assert f"{len(manifest)} sounds, 0.0 minutes" in printed
    assert f"{len(manifest)} records where 9 were expected" in printed


@pytest.mark.parametrize(
    "name, slip, option",
    [
        ("scaling", "--pgn", "--png"),
        ("fetch_sounds", "--oout", "--out"),
        ("build_qwen_tokenizer", "--resorce", "--resource"),
    ],
)
def test_a_misspelt_option_of_a_tool_is_named_with_the_one_that_was_meant(name, slip, option, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [f"{name}.py", slip, "x"])
    with pytest.raises(SystemExit) as stop:
        tool(name).main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{name}.py: there is no option {slip}; did you mean {option}?\n"


def test_without_apt_it_says_so_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get was not found; these sounds are Debian packages"):
        fetch_sounds.main(["--out", str(tmp_path / "sounds")])


def fake_programs(folder: pathlib.Path, monkeypatch, apt_get: str) -> None:
    """Stand-ins for apt-get and dpkg that log their calls; the fake dpkg unpacks the trees prepared by the test."""
    folder.mkdir()
    for name, body in {"apt-get": apt_get, "dpkg": 'mkdir -p "$3/usr"'}.items():
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{body}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_what_was_fetched_is_not_fetched_again(tmp_path, monkeypatch):
    fake_programs(tmp_path / "bin", monkeypatch, 'touch "$2_1.6.1-1_all.deb"')
    out = tmp_path / "sounds"
    out.mkdir()
    (out / "some-sounds.part" / "half").mkdir(parents=True)  # left by a run that was killed
    for _ in range(2):
        assert fetch_sounds.fetch("some-sounds", out) == "1.6.1-1"
    assert len((tmp_path / "bin" / "calls").read_text().splitlines()) == 2
    assert sorted(path.name for path in out.iterdir()) == ["packages", "some-sounds"]
    assert not (out / "some-sounds" / "half").exists()


def test_a_failed_download_gives_apts_reason_and_a_remedy_and_can_be_repeated(tmp_path, monkeypatch):
    complaint = "echo 'E: Unable to locate package' >&2; echo 'W: unsandboxed' >&2; exit 100"
    fake_programs(tmp_path / "bin", monkeypatch, f'[ -e {tmp_path}/up ] && touch "$2_1_all.deb" && exit; {complaint}')
    out = tmp_path / "sounds"
    out.mkdir()
    with pytest.raises(UserError, match=r"failed \(E: Unable to locate package\): run `apt-get update` as root"):
        fetch_sounds.fetch("some-sounds", out)
    (tmp_path / "up").touch()
    assert fetch_sounds.fetch("some-sounds", out) == "1"


def test_licences_name_package_version_licence_and_copyright_file():
    text = fetch_sounds.licences({package: "1.2-3" for package in fetch_sounds.LICENCES})
    assert (
        "| tuxpaint-stamps-default | 1.2-3 | GPL-2 "
        "| tuxpaint-stamps-default/usr/share/doc/tuxpaint-stamps-default/copyright |"
    ) in text
    assert text.count("CC-BY-SA-3.0") == 2


@pytest.mark.slow
def test_the_real_packages_hold_what_is_expected(tmp_path, capsys):
    for package in fetch_sounds.LICENCES:
        if shutil.which("apt-get") is None:
            pytest.skip("apt-get is not here: the sounds are Debian packages")
        if subprocess.run(["apt-get", "download", "--print-uris", package], capture_output=True).returncode:
            pytest.skip(f"apt knows no package {package}: not Debian, or `apt-get update` was never run")
    try:
        fetch_sounds.main(["--out", str(tmp_path)])
    except UserError as error:
        if "apt-get download" not in str(error):
            raise
        pytest.skip(f"the packages can not be downloaded here: {error}")
    printed = capsys.readouterr().out
    assert "tuxpaint.jsonl: 107 sounds, 4.1 minutes" in printed
    assert "asterisk.jsonl: 568 sounds, 25.5 minutes" in printed
    assert "expected" not in printed
    for name in ("tuxpaint", "asterisk"):
        for line in (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            assert not pathlib.Path(json.loads(line)["audio"]).is_absolute()
    for package in fetch_sounds.LICENCES:
        copyright_file = tmp_path / package / "usr/share/doc" / package / "copyright"
        assert fetch_sounds.LICENCES[package] in copyright_file.read_text(encoding="utf-8")
