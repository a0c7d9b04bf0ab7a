"""`ualm codec eval`: measures at 1, 2, 4, ... codebooks and a page that needs nothing else."""

import json
import re

import numpy as np
import pytest
import soundfile
from helpers.sounds import sounds

from ualm_jax.cli.main import run
from ualm_jax.codecs.xcodec.init import init_random, tiny_config
from ualm_jax.codecs.xcodec.model import XCodec
from ualm_jax.codecs.xcodec.weights import save_directory
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
    assert run(["codec", "eval", str(folder / "codec"), "--sounds", str(folder / "sounds")]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:4]] == ["1", "2", "4", "8"]
    page = (folder / "eval.html").read_text()
    assert len(re.findall(r"data:audio/wav;base64", page)) == 2 * 5  # two sounds, the original and four decodings
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
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
    assert measure(codec, wavs, codes, {8: wavs}).metrics[8]["log_spectral_distance"] == 0.0
