"""Both sides on the same random input, in float32: torch and transformers (hf), and ours in JAX.

An error is the largest difference, divided by the largest magnitude of hf's where that is above 1. Modules read
hf's input, so that each stands for itself; the model reads tokens.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ualm_jax.convert_weights.verify import BF16_KL_LIMIT, MODEL_LIMIT, MODULE_LIMIT, TOP_K, Row
from ualm_jax.models.attention import AttentionSpec, attend
from ualm_jax.models.config import Architecture, Execution
from ualm_jax.models.hf_names import Format
from ualm_jax.models.norm import rms_norm
from ualm_jax.models.rope import apply_rope, rope_tables
from ualm_jax.models.ualm import UALM
from ualm_jax.parallel.mesh import MeshConfig, make_mesh
from ualm_jax.parallel.sharding import reshard
from ualm_jax.tokens.types import Batch
from ualm_jax.weights.opener import open_weights
from ualm_jax.weights.tensor_files import TensorFiles

ROWS, STEPS, SEED = 2, 48, 0


def language_model(
    source: pathlib.Path, converted: pathlib.Path, importer: str, files: TensorFiles, form: Format
) -> Iterator[Row]:
    """Embedding, every layer, norm, adapter and logits; then KL and top-k of the next-token distributions."""
    weights = open_weights(converted)
    exact = Execution(param_dtype="float32", compute_dtype="float32")
    weights = dataclasses.replace(weights, execution=exact)
    architecture = weights.architecture
    tokens = _tokens(architecture, text_only=form.text_only)
    hf = _outputs_of_hf(source, architecture, importer, files, tokens)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    model = weights.load_model(mesh)
    with jax.set_mesh(mesh):
        batch = _batch(tokens)
        yield _row("embedding", _embedded(model, batch), hf["embedding"], MODULE_LIMIT)
        inputs = [hf["embedding"], *hf["layers"]]
        for number, expected in enumerate(hf["layers"]):
            output = _layer(model, number, _place(inputs[number]), batch)
            yield _row(f"layer {number}", output, expected, MODULE_LIMIT)
        yield _row("norm", _normed(model, _place(inputs[-1])), hf["norm"], MODULE_LIMIT)
        if "adapter" in hf:
            yield _row("adapter", _adapted(model, _place(hf["features"])), hf["adapter"], MODULE_LIMIT)
        logits = np.asarray(_logits(model, batch, form.text_only))
        yield _row("logits, end to end", logits, hf["logits"], MODEL_LIMIT)
        kl = _kl(hf["logits"], logits)
        yield Row("KL per token, largest", float(kl.max()), MODEL_LIMIT)
        yield Row(f"top-{TOP_K} agreement", _agreement(hf["logits"], logits), None)
        model.execution = dataclasses.replace(exact, compute_dtype="bfloat16")
        kl = _kl(hf["logits"], np.asarray(_logits(model, batch, form.text_only)))
        yield Row("KL per token in bfloat16, largest", float(kl.max()), BF16_KL_LIMIT)


def codec(source: pathlib.Path, converted: pathlib.Path) -> Iterator[Row]:
    """Codes of noise of odd lengths, and the waveform of random codes."""
    import torch
    from transformers import XcodecModel

    from ualm_jax.codecs.xcodec.model import XCodec

    hf, ours = XcodecModel.from_pretrained(source).eval(), XCodec.from_directory(converted)
    rng = np.random.default_rng(SEED)
    differing = frames = 0
    for samples in (ours.sample_rate, ours.sample_rate // 2 + 79, ours.sample_rate // 3 + 311):
        wav = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        with torch.inference_mode():
            codes = hf.encode(torch.from_numpy(wav)[None, None]).audio_codes[0].T.numpy()
        differing += int((codes != ours.encode(wav)).any(1).sum())
        frames += len(codes)
    yield Row(f"frames of {frames} with other codes", differing, 0)
    codes = rng.integers(0, ours.codebook_sizes[0], (25, len(ours.codebook_sizes)), np.int32)
    with torch.inference_mode():
        wav = hf.decode(torch.from_numpy(codes.T.astype(np.int64))[None]).audio_values[0, 0].numpy()
    yield _row("decoded waveform", ours.decode(codes), wav, MODEL_LIMIT)


def encoder(converted: pathlib.Path, files: TensorFiles) -> Iterator[Row]:
    """Embeddings of noise, one whole window and a shorter one."""
    import torch
    from transformers import AutoConfig

    from ualm_jax.models.audio_encoder import OmniConfig, load_state
    from ualm_jax.weights.audio_tower import read_encoder_config

    config = dataclasses.replace(read_encoder_config(converted / "config.json"), compute_dtype="float32")
    tensors = {name: files.read(name).astype(np.float32) for name in files.tensors}
    omni = isinstance(config, OmniConfig)
    if omni:
        from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder as Theirs
    else:
        from transformers import AudioFlamingo3Encoder as Theirs
    hf = Theirs(AutoConfig.from_pretrained(converted)).eval()
    hf.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()}, strict=True)
    window = 2 * (config.half_chunk if omni else config.num_positions)
    lengths = np.array([window, window // 2 + 1], np.int32)
    heard = np.arange(window) < lengths[:, None]
    mels = np.random.default_rng(SEED).standard_normal((2, 128, window)).astype(np.float32) * heard[:, None]
    with torch.inference_mode():
        if omni:
            joined = np.concatenate([mel[:, :length] for mel, length in zip(mels, lengths, strict=True)], axis=1)
            expected = hf(torch.from_numpy(joined), feature_lens=torch.from_numpy(lengths).long())
            expected = expected.last_hidden_state.numpy()
        else:
            mask = torch.from_numpy(heard).long()
            expected = hf(torch.from_numpy(mels), input_features_mask=mask).last_hidden_state.numpy()
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        ours = load_state(config, tensors)
        embeddings, counts = jax.jit(lambda encoder, mels, lengths: encoder(mels, lengths))(ours, mels, lengths)
    embeddings, counts = np.asarray(embeddings), np.asarray(counts)
    clips = [clip[:count] for clip, count in zip(embeddings, counts, strict=True)]
    if not omni:
        expected = np.concatenate([clip[: len(own)] for clip, own in zip(expected, clips, strict=True)])
    yield _row("embeddings", np.concatenate(clips), expected, MODEL_LIMIT)


def _tokens(architecture: Architecture, *, text_only: bool) -> np.ndarray:
    """[B, T, S]: text in stream 0; where the format has audio rows, half of the positions hold a frame."""
    rng, vocabulary = np.random.default_rng(SEED), architecture.vocabulary
    tokens = np.zeros((ROWS, STEPS, vocabulary.num_streams), np.int32)
    tokens[..., 0] = rng.integers(vocabulary.text_start, vocabulary.audio_start, (ROWS, STEPS))
    if not text_only:
        for stream in range(vocabulary.num_streams):
            ids = vocabulary.audio_pad(stream) + rng.integers(0, vocabulary.stream_size, (ROWS, STEPS // 2))
            tokens[:, STEPS // 2 :, stream] = ids
    return tokens


def _batch(tokens: np.ndarray) -> Batch:
    positions = np.broadcast_to(np.arange(STEPS, dtype=np.int32), (ROWS, STEPS))
    weights, segments = np.ones(tokens.shape, np.float32), np.ones((ROWS, STEPS), np.int32)
    return Batch(*(_place(array) for array in (tokens, weights, segments, positions)))


def _place(array: np.ndarray) -> jax.Array:
    """Rows are split over the batch axes of the mesh, as the model expects them."""
    return reshard(jnp.asarray(array), "batch", *[None] * (array.ndim - 1))


def _outputs_of_hf(
    source: pathlib.Path, architecture: Architecture, importer: str, files: TensorFiles, tokens: np.ndarray
) -> dict[str, Any]:
    """What transformers computes: a text model from its own directory, a reference model from its tensors."""
    import torch
    from transformers import AutoModelForCausalLM

    seen: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        if importer == "qwen2":
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
            ids = torch.from_numpy(tokens[..., 0] - architecture.vocabulary.text_start).long()
            embedded = model.model.embed_tokens(ids)
        else:
            model = _reference_model(architecture, files)
            ids = torch.from_numpy(tokens).long()
            rows = model.model.embed_tokens(ids)
            embedded = torch.where(ids[..., None] == 0, 0, rows).sum(2)
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_hook(lambda module, args, output, n=number: seen.update({n: _array(output)}))
        hidden = model.model(inputs_embeds=embedded).last_hidden_state
        found = {"embedding": _array(embedded), "norm": _array(hidden)}
        if importer != "qwen2":
            streams = torch.from_numpy(files.read("stream_emb.weight").astype(np.float32))
            streams[0] = 0
            hidden = hidden[:, :, None] + streams
            found |= _adapter(files, architecture)
        found["logits"] = _array(model.lm_head(hidden))
    return found | {"layers": [seen[number] for number in range(architecture.decoder.num_layers)]}


def _reference_model(architecture: Architecture, files: TensorFiles):
    """The Qwen2 inside a reference checkpoint, with its extended tables."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from ualm_jax.weights.hf_config import qwen2_values

    values = qwen2_values(architecture.decoder, architecture.vocabulary.size, tied=False, dtype="float32", kept={})
    model = Qwen2ForCausalLM(Qwen2Config(**values)).eval()
    state = {name: torch.from_numpy(files.read(name).astype(np.float32)) for name in model.state_dict()}
    model.load_state_dict(state, strict=True)
    return model


def _adapter(files: TensorFiles, architecture: Architecture) -> dict[str, np.ndarray]:
    if architecture.feature_width is None:
        return {}
    weight, bias = (files.read(f"adaptor.continuous_audio.{part}").astype(np.float32) for part in ("weight", "bias"))
    features = np.random.default_rng(SEED).standard_normal((ROWS, STEPS, architecture.feature_width)).astype(np.float32)
    return {"features": features, "adapter": features @ weight.T + bias}


@jax.jit
def _embedded(model: UALM, batch: Batch):
    return model.embed_tokens(batch.tokens)


@jax.jit
def _layer(model: UALM, number, x, batch: Batch):
    """What layer `number` makes of `x`; every layer runs the same program."""
    structure, state = nnx.split(model.decoder.layers)
    layer = nnx.merge(structure, jax.tree.map(lambda stacked: stacked[number], state))
    decoder = model.architecture.decoder
    cos, sin = rope_tables(batch.positions, decoder.head_dim, decoder.rope_theta)
    attention = AttentionSpec(batch.segment_ids)

    def attend_all(q, k, v):
        return attend(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, attention), None

    return layer(x, attend_all)[0]


@jax.jit
def _normed(model: UALM, x):
    return rms_norm(x, model.decoder.norm[...], model.architecture.decoder.norm_eps)


@jax.jit
def _adapted(model: UALM, features):
    return model.adapter(features)


@functools.partial(jax.jit, static_argnames="text_only")
def _logits(model: UALM, batch: Batch, text_only: bool):
    """[B, T, text] of stream 0, or [B, T, S, V] of all streams."""
    hidden = model(batch)
    text = model.text_head[...].astype(jnp.float32)
    if text_only:
        return hidden.astype(jnp.float32) @ text[:, model.architecture.vocabulary.text_start :]
    states = jnp.concatenate([hidden[:, :, None], model.stream_states(hidden)], axis=2).astype(jnp.float32)
    audio = model.audio_head[...].astype(jnp.float32)
    return jnp.concatenate([states @ text, states @ audio.reshape(len(audio), -1)], axis=-1)


def _row(name: str, ours, hf: np.ndarray, limit: float) -> Row:
    ours = np.asarray(ours, np.float32)
    if ours.shape != hf.shape:
        raise ValueError(f"{name}: {ours.shape} is compared with {hf.shape}")
    return Row(name, float(np.abs(ours - hf).max() / max(1.0, np.abs(hf).max())), limit)


def _kl(hf: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """KL(hf || ours) of every next-token distribution, in nats."""
    p, q = _log_softmax(hf), _log_softmax(ours)
    return (np.exp(p) * (p - q)).sum(-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _agreement(hf: np.ndarray, ours: np.ndarray) -> float:
    """Mean share of their k likeliest tokens that are among our k likeliest."""
    k = min(TOP_K, hf.shape[-1])
    best = [np.argpartition(-logits, k - 1, axis=-1)[..., :k] for logits in (hf, ours)]
    return float((best[0][..., :, None] == best[1][..., None, :]).any(-1).mean())


def _array(tensor) -> np.ndarray:
    return (tensor[0] if isinstance(tensor, tuple) else tensor).numpy()
