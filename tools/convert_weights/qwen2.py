"""Qwen2 as Hugging Face stores it: a text model becomes a UALM, and a UALM's decoder becomes a text model."""

import json
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from ualm_jax.codecs.xcodec.config import read_config as read_codec_config
from ualm_jax.convert_weights.card import Hashes, write_card, written_whole
from ualm_jax.convert_weights.checkpoint import Checkpoint
from ualm_jax.convert_weights.foreign import WEIGHTS, TensorFiles, open_directory
from ualm_jax.convert_weights.hf_config import qwen2_values, read_qwen2
from ualm_jax.convert_weights.language_model import (
    InitialValues,
    array_infos,
    pieces,
    read_theirs,
    tables_equal,
    their_dtypes,
)
from ualm_jax.convert_weights.parts import (
    copy_tokenizer,
    encoder_shapes,
    has_tokenizer,
    part_directory,
    read_encoder_config,
    write_codec,
    write_encoder,
)
from ualm_jax.convert_weights.safetensors_files import SHARD_BYTES, write_safetensors
from ualm_jax.convert_weights.store import ArrayInfo, Piece, write_arrays
from ualm_jax.models.audio_encoder.weights import UNUSED
from ualm_jax.models.config import Architecture
from ualm_jax.models.hf_names import QWEN2, QWEN2_EXTENDED, Format, their_shapes
from ualm_jax.tokens.vocabulary import Vocabulary

STD = 0.02


def import_qwen2(
    source: pathlib.Path,
    out: pathlib.Path,
    *,
    codec: pathlib.Path | None = None,
    encoder: pathlib.Path | None = None,
    tokenizer: pathlib.Path | None = None,
    codebook_size: int = 1024,
    num_codebooks: int = 8,
    seed: int = 0,
    std: float = STD,
    advance: Callable[[int], None] = lambda size: None,
) -> int:
    """A UALM on a text model: its rows are copied, what it lacks is drawn. Returns the bytes written.

    codec: an X-codec, copied to codec/; it sets codebook_size and num_codebooks.
    encoder: an audio encoder, copied to encoder/; it sets the width of the adapter. Without it there is no adapter.
    tokenizer: copied to tokenizer/; by default what lies in `source`.
    """
    codec_dir = None if codec is None else part_directory(codec, "codec")
    encoder_dir = None if encoder is None else part_directory(encoder, "encoder")
    if codec_dir is not None:
        found = read_codec_config(codec_dir / "config.json")
        codebook_size, num_codebooks = found.codebook_size, found.num_quantizers
    feature_width = None if encoder_dir is None else read_encoder_config(encoder_dir / "config.json").output_width
    model = plan_qwen2(
        source,
        codebook_size=codebook_size,
        num_codebooks=num_codebooks,
        feature_width=feature_width,
        seed=seed,
        std=std,
    )
    tokenizer_dir = tokenizer or (source if has_tokenizer(source) else None)
    with written_whole(out) as partial, Hashes(model.files.files) as hashes:
        if tokenizer_dir is not None:
            copy_tokenizer(tokenizer_dir, partial / "tokenizer", model.architecture.vocabulary.text_size)
        if codec_dir is not None:
            write_codec(partial / "codec", codec_dir / "config.json", open_directory(codec_dir))
        if encoder_dir is not None:
            tensors = open_directory(encoder_dir)
            shapes = encoder_shapes(read_encoder_config(encoder_dir / "config.json"))
            tensors.check(shapes, encoder_dir, unread=UNUSED)
            write_encoder(partial / "encoder", encoder_dir / "config.json", tensors)
        write_arrays(partial / "params", model.infos, model.pieces, advance)
        notes = {"tied": model.form.head is None, "config": model.kept, "seed": seed, "std": std}
        write_card(
            partial,
            kind="ualm",
            importer="qwen2",
            source=source,
            hashes=hashes.result(),
            model=model.config,
            notes=notes,
        )
    return sum(int(np.prod(info.shape)) * info.dtype.itemsize for info in model.infos.values())


class Plan:
    """A Qwen2 directory, checked, and how it becomes our arrays."""

    def __init__(self, form: Format, config: Architecture, files: TensorFiles, kept: dict, initial: InitialValues):
        self.form, self.config, self.files, self.kept = form, config, files, kept
        self.infos: dict[str, ArrayInfo] = array_infos(form, config, files, initial.dtype)
        self.pieces: list[Piece] = pieces(form, config, files, self.infos, initial)


def plan_qwen2(
    source: pathlib.Path,
    *,
    codebook_size: int = 1024,
    num_codebooks: int = 8,
    feature_width: int | None = None,
    seed: int = 0,
    std: float = STD,
) -> Plan:
    """Raises UserError where `source` is no whole Qwen2 model."""
    decoder, text_size, tied, kept = read_qwen2(source / "config.json")
    files = open_directory(source)
    embed = files.tensors.get(QWEN2.embed)
    dtype = np.dtype(np.float32) if embed is None or embed.dtype not in WEIGHTS.values() else embed.dtype
    config = Architecture(
        decoder=decoder,
        vocabulary=Vocabulary(text_size, codebook_size, num_codebooks),
        feature_width=feature_width,
        param_dtype="bfloat16" if dtype.name == "bfloat16" else "float32",
    )
    form = QWEN2._replace(head=None) if tied else QWEN2
    files.check(their_shapes(form, config), source, unread=frozenset({QWEN2.head} if tied else ()))
    return Plan(form, config, files, kept, InitialValues(seed, std, dtype))


def export_hf(
    checkpoint: Checkpoint,
    out: pathlib.Path,
    *,
    vocabulary: str = "text",
    shard_bytes: int = SHARD_BYTES,
    advance: Callable[[int], None] = lambda size: None,
) -> int:
    """A Qwen2ForCausalLM directory. Returns the bytes written.

    vocabulary: "text" keeps the rows of text ids, so that the model is a text model with its own tokenizer;
        "extended" keeps all rows and writes vocabulary.json, which says what the ids are. Stream embeddings and
        adapter have no place in this format. Head and embedding are stored once where they are equal.
    """
    config = checkpoint.architecture
    form = QWEN2 if vocabulary == "text" else QWEN2_EXTENDED
    if tables_equal(form, config, checkpoint.store):
        form = form._replace(head=None)
    tensors = their_dtypes(form, config, checkpoint.store)
    with written_whole(out) as partial:
        write_safetensors(
            partial,
            tensors,
            lambda name: read_theirs(form, config, checkpoint.store, name),
            shard_bytes=shard_bytes,
            advance=advance,
        )
        first, last = form.rows(config.vocabulary)
        kept = {k: v for k, v in checkpoint.notes.get("config", {}).items() if vocabulary == "text" or "token" not in k}
        values = qwen2_values(
            config.decoder,
            last - first,
            tied=form.head is None,
            dtype=checkpoint.store.dtype("embed").name,
            kept=kept,
        )
        (partial / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
        tokenizer = checkpoint.part("tokenizer")
        if vocabulary == "extended":
            ids = {"size": config.vocabulary.size, "intervals": config.vocabulary.intervals()}
            (partial / "vocabulary.json").write_text(json.dumps(ids, indent=2) + "\n")
        elif tokenizer is not None:
            shutil.copytree(tokenizer, partial, dirs_exist_ok=True)
    return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in tensors.values())
