"""Qwen2 as Hugging Face stores it: a text model becomes a UALM, and a UALM's decoder becomes a text model."""

import dataclasses
import pathlib
import shutil
from typing import Any

import numpy as np

from ualm_jax.codecs.xcodec.config import read_config as read_codec_config
from ualm_jax.convert_weights.card import Hashes, write_card, written_whole
from ualm_jax.convert_weights.ours_to_hf import hf_dtypes, read_hf, tables_equal
from ualm_jax.convert_weights.parts import copy_tokenizer, part_directory, write_codec, write_encoder
from ualm_jax.convert_weights.progress import Progress, silent
from ualm_jax.convert_weights.safetensors_files import SHARD_BYTES, write_safetensors
from ualm_jax.convert_weights.write_arrays import write_arrays
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder.weights import UNUSED
from ualm_jax.models.hf_names import QWEN2, QWEN2_EXTENDED
from ualm_jax.tokens.tokenizer import is_tokenizer
from ualm_jax.tokens.vocabulary import EOS, EOT
from ualm_jax.weights.audio_tower import encoder_shapes, read_encoder_config
from ualm_jax.weights.hf_config import qwen2_values
from ualm_jax.weights.hf_folder import open_directory, write_json
from ualm_jax.weights.hf_qwen2 import DEFAULT_EXTENSION, Extension, plan_qwen2
from ualm_jax.weights.opener import Weights
from ualm_jax.weights.peft import write_adapters


def import_qwen2(
    source: pathlib.Path,
    out: pathlib.Path,
    *,
    codec: pathlib.Path | None = None,
    encoder: pathlib.Path | None = None,
    tokenizer: pathlib.Path | None = None,
    extension: Extension = DEFAULT_EXTENSION,
    progress: Progress = silent,
) -> int:
    """A UALM on a text model: its rows are copied, what it lacks is drawn. Returns the bytes written.

    codec: an X-codec, copied to codec/; it sets the codebooks of `extension`.
    encoder: an audio encoder, copied to encoder/; it sets the width of the adapter. Without it there is no adapter.
    tokenizer: copied to tokenizer/; by default what lies in `source`.
    """
    codec_dir = None if codec is None else part_directory(codec, "codec")
    encoder_dir = None if encoder is None else part_directory(encoder, "encoder")
    if codec_dir is not None:
        found = read_codec_config(codec_dir / "config.json")
        sizes = dict(codebook_size=found.codebook_size, num_codebooks=found.num_quantizers)
        extension = dataclasses.replace(extension, **sizes)
    feature_width = None if encoder_dir is None else read_encoder_config(encoder_dir / "config.json").output_width
    model = plan_qwen2(source, extension, feature_width)
    tokenizer_dir = tokenizer or (source if is_tokenizer(source) else None)
    with written_whole(out) as partial, Hashes(model.files.files) as hashes:
        if tokenizer_dir is not None:
            copy_tokenizer(tokenizer_dir, partial / "tokenizer", model.architecture.vocabulary.text_size)
        if codec_dir is not None:
            write_codec(partial / "codec", codec_dir / "config.json", open_directory(codec_dir))
        if encoder_dir is not None:
            tensors = open_directory(encoder_dir)
            shapes = encoder_shapes(read_encoder_config(encoder_dir / "config.json"))
            tensors.check(shapes, encoder_dir, unread=UNUSED)
            write_encoder(partial / "encoder", encoder_dir, tensors)
        write_arrays(partial / "params", model.infos, model.pieces, progress)
        notes = {"tied": model.form.head is None, "seed": extension.seed, "std": extension.std, **model.kept}
        write_card(
            partial,
            kind="ualm",
            importer="qwen2",
            source=source,
            hashes=hashes.result(),
            architecture=model.architecture,
            param_dtype=model.param_dtype,
            notes=notes,
        )
    return sum(int(np.prod(info.shape)) * info.dtype.itemsize for info in model.infos.values())


def export_hf(
    weights: Weights,
    out: pathlib.Path,
    *,
    vocabulary: str = "text",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> int:
    """A Qwen2ForCausalLM directory. Returns the bytes written.

    vocabulary: "text" keeps the rows of text ids, so that the model is a text model with its own tokenizer;
        "extended" keeps all rows and writes vocabulary.json, which says what the ids are. Stream embeddings and
        adapter have no place in this format. Head and embedding are stored once where they are equal.
    """
    architecture, store = weights.architecture, weights.arrays()
    form = QWEN2 if vocabulary == "text" else QWEN2_EXTENDED
    if tables_equal(form, architecture, store):
        form = form._replace(head=None)
    tensors = hf_dtypes(form, architecture, store)
    with written_whole(out) as partial:
        write_safetensors(
            partial,
            tensors,
            lambda name: read_hf(form, architecture, store, name),
            shard_bytes=shard_bytes,
            progress=progress,
        )
        first, last = form.rows(architecture.vocabulary)
        config, generation = _carried(weights, extended=vocabulary == "extended")
        values = qwen2_values(
            architecture.decoder,
            last - first,
            tied=form.head is None,
            dtype=store.dtype("embed").name,
            kept=config,
        )
        write_json(partial / "config.json", values)
        if generation:
            write_json(partial / "generation_config.json", generation)
        tokenizer = weights.parts.get("tokenizer")
        if vocabulary == "extended":
            ids = {"size": architecture.vocabulary.size, "intervals": architecture.vocabulary.intervals()}
            write_json(partial / "vocabulary.json", ids)
        elif tokenizer is not None:
            shutil.copytree(tokenizer, partial, dirs_exist_ok=True)
    return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in tensors.values())


def export_peft(weights: Weights, out: pathlib.Path) -> int:
    """The low-rank adapters of a run, as PEFT stores them. Returns the bytes of the tensors."""
    if weights.lora is None:
        raise UserError(f"{weights.path} has no low-rank adapters to export: it was trained without lora.rank.")
    with written_whole(out) as partial:
        return write_adapters(weights.arrays().parts, weights.lora, partial)


def _carried(weights: Weights, *, extended: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of config.json and generation_config.json that came with the text model, or with what a run began with.

    extended: token ids are those of the whole vocabulary, and its own tokens end a text too.
    """
    config, generation = (dict(weights.notes.get(name, {})) for name in ("config", "generation_config"))
    if not extended:
        return config, generation
    start = weights.architecture.vocabulary.text_start
    for fields in (config, generation):
        for name, ids in fields.items():
            if name.endswith("token_id") and ids is not None:
                fields[name] = [start + one for one in ids] if isinstance(ids, list) else start + ids
        ends = fields.get("eos_token_id") or []
        fields["eos_token_id"] = [EOS, EOT, *(ends if isinstance(ends, list) else [ends])]
    return config, generation
