"""Scorers that open weights of their own: CLAP, and a model that listens."""

import dataclasses
import sys
import types

import jax
import numpy as np
import pytest
import soxr
import torch
from helpers import golden_model
from helpers.audio_encoders import GOLDEN, random_encoder
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, PreTrainedTokenizerFast

from ualm_jax.errors import UserError
from ualm_jax.evaluate.audiobox import AXES, Audiobox
from ualm_jax.evaluate.clap import Clap
from ualm_jax.evaluate.listening import ListeningJudge
from ualm_jax.generate.clip import Clip
from ualm_jax.generate.made_by import MadeBy
from ualm_jax.generate.parts import Parts
from ualm_jax.generate.sampling import SamplingParams
from ualm_jax.generate.score import score
from ualm_jax.generate.scorers import OPENED, load_function, load_scorer, score_all
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.tokens.types import Role


def clip(seconds: float, seed: int, rate: int = 16000) -> Clip:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    codes = np.zeros((1, 2), np.int32)
    return Clip(samples, rate, codes, prompt="", settings=SamplingParams(), end=None, made_by=MadeBy())


@pytest.fixture(scope="module")
def parts(golden_dir) -> Parts:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model, encoder = golden_model.load(golden_dir), random_encoder(GOLDEN)
    return Parts(mesh=mesh, model=model, encoder=encoder, tokenizer=load_tokenizer(golden_dir / "qwen2"))


def test_a_judge_says_how_sure_it_is_of_yes(parts):
    judge = ListeningJudge(parts, "Is this {caption}?")
    captions, clips = ["rain", "a drum", "rain"], [clip(0.7, 0), clip(0.7, 1), clip(0.7, 1)]
    found = judge.batch(captions, clips)
    for caption, sound, value in zip(captions, clips, found, strict=True):
        message, features = parts.sound_message(sound)
        sums = {}
        for answer in ("yes", "no"):
            said = [parts.text_message(f"Is this {caption}?"), message, parts.text_message(answer, Role.ASSISTANT)]
            with jax.set_mesh(parts.mesh):
                (probabilities,) = score(parts.model, [said], heard=[features], encoder=parts.encoder)
            sums[answer] = probabilities[:, 0].sum()  # of a text, whose tokens have weight 1
        odds = np.exp(sums["yes"]) / np.exp(sums["no"])
        assert value == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert judge(captions[0], clips[0]) == pytest.approx(found[0], abs=1e-5)
    assert len(set(found)) == 3  # both what is asked and what is heard matter


def test_a_judge_that_can_not_listen_is_refused(parts, golden_dir):
    deaf = golden_dir / "qwen2"
    with pytest.raises(UserError, match=f"judge:{deaf} has no encoder; name a model that listens"):
        load_scorer(f"judge:{deaf}", parts)
    with pytest.raises(UserError, match="holds no encoder"):
        ListeningJudge(dataclasses.replace(parts, encoder=None))


class LoudnessOfWindows:
    """The package's model, instead: the mean square of what of a window is sound, in a unit of each axis."""

    target_transform = {axis: {"mean": float(place), "std": 1.0 + place} for place, axis in enumerate(AXES)}

    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        assert local_files_only
        if "broken" in folder:
            raise ValueError("no such weights")
        return cls()

    def eval(self):
        return self

    def __call__(self, batch):
        wav, mask = batch["wav"], batch["mask"]
        assert wav.shape == mask.shape == (len(wav), 1, 160000) and not wav[~mask].any()
        return dict.fromkeys(AXES, (wav**2).sum(-1) / mask.sum(-1))


@pytest.fixture
def audiobox(monkeypatch, tmp_path):
    """A folder with a model, of the package's stand-in."""
    for name in ("audiobox_aesthetics", "audiobox_aesthetics.model", "audiobox_aesthetics.model.aes"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["audiobox_aesthetics.model.aes"].AesMultiOutput = LoudnessOfWindows
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("seconds, rate", [(0.5, 16000), (13.0, 16000), (21.0, 24000)])
def test_audiobox_hears_windows_and_weighs_them_by_what_is_sound(audiobox, seconds, rate):
    sound = clip(seconds, 5, rate)
    wav = sound.samples if rate == 16000 else soxr.resample(sound.samples, rate, 16000, quality="HQ")
    power = float(np.mean(wav.astype(np.float64) ** 2))
    scorer = load_function(OPENED["audiobox"], "Scorer")(str(audiobox))
    found = scorer.axes(sound)
    assert found == pytest.approx({axis: power * (1 + place) + place for place, axis in enumerate(AXES)}, abs=1e-6)
    assert scorer("whatever", sound) == pytest.approx(np.mean(list(found.values())))


def test_what_audiobox_lacks_is_one_sentence(audiobox, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no config.json; name a folder with the files of facebook/audiobox"):
        Audiobox(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(UserError, match="broken is no model of audiobox_aesthetics .no such weights"):
        Audiobox(broken)
    monkeypatch.setitem(sys.modules, "audiobox_aesthetics.model.aes", None)
    with pytest.raises(UserError, match="audiobox needs .*pip install --no-deps audiobox_aesthetics"):
        Audiobox(audiobox)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    """A CLAP of random weights with a tokenizer of five words, as Hugging Face stores them."""
    folder = tmp_path_factory.mktemp("clap")
    words = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "rain", "drum"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    text = dict(vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    audio = dict(patch_embeds_hidden_size=16, depths=[1, 1], num_attention_heads=[2, 2], hidden_size=32)
    audio |= dict(spec_size=64, num_mel_bins=16, window_size=4, patch_size=4, patch_stride=[4, 4], num_classes=2)
    torch.manual_seed(0)
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        feature_size=16, sampling_rate=16000, hop_length=160, max_length_s=1, truncation="rand_trunc", padding="repeat"
    )
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def test_clap_is_the_cosine_of_what_transformers_embeds(clap_folder):
    scorer, sound = Clap(clap_folder), clip(0.8, 0, 24000)
    processor, model = ClapProcessor.from_pretrained(clap_folder), ClapModel.from_pretrained(clap_folder)
    wav = soxr.resample(sound.samples, 24000, 16000, quality="HQ")
    features = processor(text=["rain"], audio=[wav], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**features).logits_per_audio / model.logit_scale_a.exp()
    assert scorer("rain", sound) == pytest.approx(float(logits), abs=1e-6)
    assert -1 <= scorer("drum", sound) <= 1 and scorer("drum", sound) != scorer("rain", sound)


def test_clap_scores_a_long_clip_the_same_each_time_and_leaves_the_generator_alone(parts, clap_folder):
    scorer, sound = load_scorer(f"clap:{clap_folder}", parts), clip(3.0, 1)
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    first = score_all(scorer, ["rain"], [sound])[0].value
    assert np.random.random() == expected
    assert score_all(scorer, ["rain"], [sound])[0].value == first


def test_clap_that_is_not_there_is_one_sentence(parts, tmp_path):
    with pytest.raises(UserError, match="there is no config.json; name a folder with a ClapModel"):
        load_scorer(f"clap:{tmp_path}", parts)
    (tmp_path / "config.json").write_text('{"model_type": "clap"}')
    with pytest.raises(UserError, match="is no ClapModel with its processor"):
        load_scorer(f"clap:{tmp_path}", parts)
