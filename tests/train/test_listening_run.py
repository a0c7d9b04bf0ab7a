"""A whole run that listens: sounds to hear, a frozen encoder, held-out loss, sounds made on the way, an answer."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from ualm_jax.audio.io import read_audio
from ualm_jax.audio.mel import MelFrontEnd
from ualm_jax.cli.main import run
from ualm_jax.convert_weights.codec_and_encoder import import_encoder
from ualm_jax.errors import UserError
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.segment import generate
from ualm_jax.models.audio_encoder import OmniConfig, read_settings
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.pretrained import load
from ualm_jax.tokens.layout import build_prompt
from ualm_jax.tokens.types import Message, Modality, Role
from ualm_jax.weights.audio_tower import encoder_shapes
from ualm_jax.weights.fingerprints import check_together, parts_of

SIZES = {
    "model_type": "qwen2_5_omni_audio_encoder",
    "encoder_layers": 2,
    "d_model": 32,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "n_window": 100,
    "output_dim": 48,
}
pytestmark = pytest.mark.usefixtures("as_many_devices_as_the_mesh_has")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with `tower` (Hugging Face), `encoder` (converted), `data` and the run `run`; this process trains it."""
    folder = tmp_path_factory.mktemp("listening")
    tower = folder / "tower"
    tower.mkdir()
    (tower / "config.json").write_text(json.dumps(SIZES))
    rng = np.random.default_rng(0)
    shapes = encoder_shapes(OmniConfig.from_hf(SIZES))
    save_file(
        {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()},
        tower / "model.safetensors",
    )
    import_encoder("omni-audio", tower, folder / "encoder")
    settings = {"normalize": False, "max_seconds": 2.0, "compute_dtype": "float32"}
    (folder / "encoder" / "encoder" / "settings.json").write_text(json.dumps(settings))
    commands = [
        "data prepare --source soundscript --count 24 --max-seconds 1.5 --task audio_to_caption "
        f"--out {folder / 'data'}",
        f"train --config configs/tiny.py --workdir {folder / 'run'} --config.train.encoder={folder / 'encoder'} "
        f"--config.data.directory={folder / 'data'} --config.eval.directory={folder / 'data'} "
        "--config.data.audio_slots=4 --config.model.feature_width=48 "
        "--config.data.seq_len=320 --config.data.batch_size=4 --config.model.decoder.num_layers=2 "
        "--config.model.decoder.width=64 --config.model.decoder.mlp_dim=128 --config.data.packing_bins=8 "
        "--config.train.steps=6 --config.eval.every=3 --config.eval.batches=2 --config.eval.seconds=0.3",
    ]
    for command in commands:
        assert run(command.split()) == 0, command
    return folder


def metrics(trained) -> list[dict]:
    return [json.loads(line) for line in (trained / "run" / "metrics.jsonl").read_text().splitlines()]


def test_held_out_loss_is_measured_and_falls(trained):
    losses = [row["eval/loss"] for row in metrics(trained) if "eval/loss" in row]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_evaluation_leaves_sounds_and_tensorboard_has_them(trained):
    names = sorted(path.name for path in (trained / "run" / "samples").iterdir())
    assert names == [f"step_{step:07d}_{prompt}.wav" for step in (3, 6) for prompt in (0, 1)]
    (events,) = (trained / "run" / "tensorboard").glob("events*")
    written = events.read_bytes()
    assert b"prompt_0/spectrogram" in written and b"audio/wav" in written


def test_the_frozen_encoder_lies_beside_the_run_unchanged(trained):
    copied = (trained / "run" / "encoder" / "model.safetensors").read_bytes()
    assert copied == (trained / "encoder" / "encoder" / "model.safetensors").read_bytes()


def test_training_and_serving_hear_alike(trained, tmp_path):
    """Both take the front end from the folder of the encoder; one that says something else is another encoder."""
    from ualm_jax.weights.audio_tower import load_encoder

    heard = load_encoder(trained / "run" / "encoder")
    assert heard.front_end == MelFrontEnd(200, windowed=False, normalize=False, max_seconds=2.0)
    assert heard.front_end.batch_frames == 200 and heard.config.compute_dtype == "float32"
    shutil.copytree(trained / "encoder" / "encoder", tmp_path / "encoder")
    settings = tmp_path / "encoder" / "settings.json"
    settings.write_text(settings.read_text().replace("false", "true"))
    with pytest.raises(UserError, match="are different encoders"):
        check_together(parts_of(trained / "run"), {"encoder": tmp_path / "encoder"})
    settings.write_text('{"normalise": true}')
    with pytest.raises(UserError, match="settings.json.normalise is not a field.*normalize"):
        load_encoder(tmp_path / "encoder")


def test_the_front_end_of_an_old_run_is_in_its_configuration(trained, tmp_path):
    shutil.copytree(trained / "encoder" / "encoder", tmp_path / "run" / "encoder")
    (tmp_path / "run" / "encoder" / "settings.json").unlink()
    data = {"normalize_clips": False, "audio_encoder": "omni", "window_frames": 400}
    (tmp_path / "run" / "config.json").write_text(json.dumps({"data": data}))
    assert read_settings(tmp_path / "run" / "encoder") == {"normalize": False, "max_seconds": 4.0}


def likeliest_text(run_directory, path, question, tokens) -> str:
    """The answer by parts: messages, features, the closed generation of one segment. A token here is a byte."""
    loaded = load(run_directory)
    front_end, wav = loaded.encoder.front_end, read_audio(path, sample_rate=16000)
    text = Message(Role.USER, Modality.TEXT, np.array(loaded.tokenizer.encode(question), np.int32))
    clip = Message(Role.USER, Modality.CLIP, front_end.clip_length(len(wav)))
    prompt = build_prompt([text, clip], loaded.model.architecture.vocabulary)
    with jax.set_mesh(loaded.mesh):
        (answer,) = generate(
            loaded.model,
            [prompt],
            SamplingParams(seed=0, max_tokens=tokens),
            modality="text",
            heard=[front_end.features(wav)],
            encoder=loaded.encoder,
        )
    return loaded.tokenizer.decode(answer.tokens.tolist())


def test_a_trained_run_answers_about_a_sound(trained, capsys, tmp_path):
    from ualm_jax.audio.write import write_sound
    from ualm_jax.data.raw.soundscript import SoundScript

    write_sound(tmp_path / "heard.wav", SoundScript(1, 0, 16000, 1.0, 1.5)[0].wav, 16000)
    ask = ["generate", "--workdir", str(trained / "run"), "--prompt", "What is it?", "--max-tokens", "20"]
    capsys.readouterr()
    assert run([*ask, "--listen", str(tmp_path / "heard.wav")]) == 0
    first = capsys.readouterr().out
    assert run([*ask, "--listen", str(tmp_path / "heard.wav")]) == 0
    assert capsys.readouterr().out == first
    # After six steps it may be blanks. Whatever it is, it is the likeliest text to these messages.
    assert first == likeliest_text(trained / "run", tmp_path / "heard.wav", "What is it?", len(first) - 1) + "\n"
    with pytest.raises(SystemExit):
        run([*ask, "--listen", str(tmp_path / "none.wav")])
    assert f"there is no {tmp_path / 'none.wav'}" in capsys.readouterr().err
    asked = ["--audio", str(tmp_path / "heard.wav"), "What is it?", "--max-tokens", "20"]
    assert run(["ask", "--model", str(trained / "run"), *asked]) == 0
    assert capsys.readouterr().out == first


def test_a_trained_run_judges_sounds(trained):
    from ualm_jax.data.raw.soundscript import SoundScript
    from ualm_jax.evaluate.listening import ListeningJudge, opened
    from ualm_jax.generate.clip import Clip

    wav = SoundScript(1, 0, 16000, 1.0, 1.5)[0].wav
    clip = Clip(wav, 16000, np.zeros((1, 8), np.int32), prompt="", settings=SamplingParams())
    sure = opened(trained / "run")("a tone", clip)
    assert 0 < sure < 1 and sure == ListeningJudge(load(trained / "run"))("a tone", clip)
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:2])):
        assert opened(trained / "run").parts.mesh.size == 2  # what one device has no room for


def test_an_encoder_that_does_not_fit_is_refused(trained, capsys, tmp_path):
    command = f"train --config configs/tiny.py --workdir {tmp_path / 'run'} --config.data.directory={trained / 'data'} "
    listening = f"--config.train.encoder={trained / 'encoder'} --config.data.audio_slots=4 "
    cases = {
        f"--config.train.encoder={trained / 'encoder'}": "needs both",
        listening: "model.feature_width is None, but the encoder's features are 48",
    }
    for arguments, sentence in cases.items():
        assert run([*command.split(), *arguments.split()]) == 1
        assert sentence in capsys.readouterr().err
