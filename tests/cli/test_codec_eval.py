"""`ualm codec eval`: measures at 1, 2, 4, ... codebooks and a page that needs nothing else."""

import json
import re

import numpy as np
import pytest
import soundfile
from helpers.sounds import sounds
from matplotlib.image import imread

from ualm_jax.cli.main import run
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory
from ualm_jax.errors import UserError
from ualm_jax.evaluate.codec import decoded, measure, numbers_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("eval")
    save_directory(init_random(tiny_config(), seed=0), tiny_config(), path / "codec")
    (path / "sounds").mkdir()
    for name in ("tone", "noise"):
        soundfile.write(path / "sounds" / f"{name}.wav", sounds(0.5)[name], 16000)
    (path / "sounds" / "broken.wav").write_bytes(b"nothing")
    return path


def test_a_folder_of_sounds_is_measured_and_shown(folder, capsys):
    words = ["--sounds", str(folder / "sounds"), "--plot", str(folder / "eval.png")]
    assert run(["codec", "eval", str(folder / "codec"), *words]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:4]] == ["1", "2", "4", "8"]
    page = (folder / "eval.html").read_text()
    assert len(re.findall(r"data:audio/wav;base64", page)) == 2 * 5  # two sounds, the original and four decodings
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
    assert imread(folder / "eval.png").shape[:2] == (2 * 168, 630)  # a line for each sound
    result = json.loads((folder / "eval.json").read_text())
    assert set(result["metrics"]) == {"1", "2", "4", "8"} and len(result["use"]) == 8


def test_scenes_are_read_by_track(folder, capsys):
    out = folder / "scenes.html"
    assert run(["codec", "eval", str(folder / "codec"), "--count", "2", "--examples", "1", "--out", str(out)]) == 0
    right = json.loads(out.with_suffix(".json").read_text())["right"]
    assert {"all", "class", "count", "order"} <= set(right["original"]) and set(right["original"].values()) == {1.0}
    assert right["8 codebooks"]["all"] < 1.0  # of random weights
    assert "scenes read right, original: all 100.0%, class 100.0%, count 100.0%" in capsys.readouterr().out


def test_all_codebooks_are_the_codec_itself(folder):
    codec = XCodec.from_directory(folder / "codec")
    wavs = [sounds(0.5)["melody"][:8000]]
    codes, made = decoded(codec, wavs)
    np.testing.assert_array_equal(made[8][0], codec.decode(codes[0])[: len(wavs[0])])
    assert numbers_of(codec) == [1, 2, 4, 8]
    with pytest.raises(UserError, match="the sounds are silent"):
        measure(codec, [np.zeros(8000)], codes, {8: wavs})
    assert measure(codec, wavs, codes, {8: wavs}).metrics[8]["log_spectral_distance"] == 0.0


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--sound", "x"], "there is no option --sound; did you mean --sounds?"),
        (["--seconds", "nan"], "--seconds: expected a number above 0, got 'nan'"),
        (["--seconds", "-1"], "--seconds: expected a number above 0, got '-1'"),
        (["--count", "0"], "--count: expected a whole number of at least 1, got 0"),
        (["--sounds", "/nope"], "--sounds: there is no /nope"),
        (["--out", "/nope/page.html"], "there is no folder /nope"),
        (["--out", "page.txt"], "ends with .html"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_decoded(folder, words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        run(["codec", "eval", str(folder / "codec"), *words])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in said and said.count("\n") == 1


def test_a_page_that_can_not_be_written_is_found_before_anything_is_decoded(folder, tmp_path, capsys):
    (tmp_path / "page.json").mkdir()
    with pytest.raises(SystemExit) as stop:
        run(["codec", "eval", str(folder / "codec"), "--out", str(tmp_path / "page.html")])
    assert stop.value.code == 2 and "page.json is a folder; choose another --out" in capsys.readouterr().err
    assert run(["codec", "eval", str(folder / "codec"), "--sounds", str(folder / "sounds"), "--seconds", "1e-4"]) == 1
    assert "none of the first 200 sounds lasts one frame" in capsys.readouterr().err
