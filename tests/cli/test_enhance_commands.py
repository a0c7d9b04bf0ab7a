"""`ualm enhance`: sounds of any rate to 48 kHz stereo, what it is worth, and what foreign weights hold."""

import json

import jax
import numpy as np
import pytest
import soundfile
from helpers.config_files import ROOT
from helpers.enhancers import tiny_enhancer

from ualm_jax.cli.main import run
from ualm_jax.codecs.enhance.weights import save_directory
from ualm_jax.codecs.xcodec.model import XCodec


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    enhancer = tiny_enhancer()
    save_directory(jax.device_get(enhancer.params), enhancer.config, folder, {})
    return str(folder)


def sound(rate: int, channels: int = 1) -> np.ndarray:
    wav = 0.3 * np.sin(2 * np.pi * 500 * np.arange(rate // 5) / rate)
    return np.repeat(wav[:, None], channels, axis=1)


@pytest.mark.parametrize("rate, channels", [(16000, 1), (8000, 1), (192000, 2)])
def test_a_sound_becomes_48_khz_stereo_as_long_as_it_was(weights, tmp_path, rate, channels, capsys):
    soundfile.write(tmp_path / "in.wav", sound(rate, channels), rate)
    out = tmp_path / "out.flac"
    assert run(["enhance", str(tmp_path / "in.wav"), str(out), "--weights", weights, "--depth", "24", "--plot"]) == 0
    made, found = soundfile.read(out)
    assert found == 48000 and made.shape == (9600, 2) and (tmp_path / "out.flac.png").exists()
    assert "0.20 s of 48 kHz stereo" in capsys.readouterr().out


def test_silence_and_clipping_are_sounds_too(weights, tmp_path):
    for name, wav in {"silent": np.zeros(4000), "clipped": np.sign(sound(16000)[:, 0])}.items():
        soundfile.write(tmp_path / f"{name}.wav", wav, 16000)
        assert run(["enhance", str(tmp_path / f"{name}.wav"), str(tmp_path / "out.wav"), "--weights", weights]) == 0
        made, _ = soundfile.read(tmp_path / "out.wav")
        assert np.isfinite(made).all() and np.abs(made).max() < 1


def test_what_can_not_be_enhanced_is_one_sentence(weights, tmp_path, capsys):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "good.wav", sound(16000), 16000)
    (tmp_path / "folder").mkdir()
    out = str(tmp_path / "out.wav")
    for source, folder, message in [
        ("empty.wav", weights, "no samples"),
        ("text.wav", weights, "not a readable sound file"),
        ("good.wav", str(tmp_path / "folder"), "expected the config.json of an enhancer, found no such file"),
    ]:
        assert run(["enhance", str(tmp_path / source), out, "--weights", folder]) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out.wav").exists()
    with pytest.raises(SystemExit):
        run(["enhance", str(tmp_path / "good.wav"), str(tmp_path / "out.txt"), "--weights", weights])
    assert "expected a name that ends with" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(["enhance", str(tmp_path / "good.wav"), str(tmp_path / "folder" / ".." / "good.wav"), "--weights", weights])
    assert "is IN, which would be lost" in capsys.readouterr().err


def test_an_evaluation_has_the_rows_of_doing_nothing(weights, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        soundfile.write(folder / f"{index}.wav", 0.2 * rng.standard_normal((24000, 2)) * [1.0, 0.1], 48000)
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    assert run(["enhance", "eval", weights, "--sounds", str(folder), "--seconds", "0.3", *files]) == 0
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert list(rows) == ["resampled", "zero side", "enhanced"] and all(name in said for name in rows)
    assert rows["resampled"]["upper"] > 3  # the upper band is silent
    assert rows["resampled"]["level"] == pytest.approx(20, abs=1) == rows["zero side"]["level"]
    assert rows["zero side"]["upper"] == rows["enhanced"]["upper"] < rows["resampled"]["upper"]

    heard = []

    class Silencing(XCodec):
        def __init__(self):
            pass

        def round_trip(self, wavs):
            heard.extend(map(len, wavs))
            return [0 * wav for wav in wavs]

    monkeypatch.setattr(XCodec, "from_directory", lambda path: Silencing())
    through = ["--sounds", str(folder), "--seconds", "0.3", "--codec", str(folder), "--json", str(tmp_path / "b.json")]
    assert run(["enhance", "eval", weights, *through]) == 0
    assert heard == [4800, 4800]
    assert json.loads((tmp_path / "b.json").read_text())["rows"]["enhanced"]["upper"] != rows["enhanced"]["upper"]
    assert all(row["low"] < 1e-3 for row in rows.values())
    assert (tmp_path / "a.png").stat().st_size > 1000
    for index in range(2):
        soundfile.write(folder / f"{index}.wav", np.zeros((24000, 2)), 48000)
    assert run(["enhance", "eval", weights, "--sounds", str(folder), "--seconds", "0.3"]) == 1
    assert capsys.readouterr().err == (
        "ualm enhance eval: the sounds are silent: nothing of them is above -60 dB, where levels can be compared.\n"
    )
    with pytest.raises(SystemExit):
        run(["enhance", "eval", weights, "--sounds", str(folder), "--seconds", "0.01"])
    assert "--seconds: expected a number of at least 0.05, got '0.01'" in capsys.readouterr().err


def test_a_probe_says_whether_weights_fit(weights, capsys):
    config = ["--config", str(ROOT / "configs" / "enhance_small.py")]
    tiny = {"frame": 16, "width": 8, "mlp_dim": 8, "encoder_blocks": 1, "decoder_blocks": 2}
    tiny |= {"kernel_size": 3, "latent_width": 4, "noise_bands": 5}
    config += [f"--config.enhancer.{name}={value}" for name, value in tiny.items()]
    assert run(["enhance", "probe", f"{weights}/model.safetensors", *config]) == 0
    assert "every tensor fits" in capsys.readouterr().out
    assert run(["enhance", "probe", f"{weights}/model.safetensors", *config, "--config.enhancer.width=9"]) == 1
    said = capsys.readouterr().out
    other = ["--config", str(ROOT / "configs" / "codec_small.py")]
    assert run(["enhance", "probe", f"{weights}/model.safetensors", *other]) == 1
    assert "codec_small.py: expected the configuration of an enhancer" in capsys.readouterr().err
    assert "missing: encoder.in.kernel" in said and "fits nothing: encoder.in.kernel [99, 8]" in said
