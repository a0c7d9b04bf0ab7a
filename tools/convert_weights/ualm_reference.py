"""The reference's checkpoints: DeepSpeed's mp_rank_00_model_states.pt, with decoder, adapter, codec and encoder."""

import math
import pathlib

import numpy as np

from ualm_jax.codecs.xcodec.config import read_config as read_codec_config
from ualm_jax.convert_weights.card import Hashes, write_card, written_whole
from ualm_jax.convert_weights.ours_to_hf import hf_dtypes, read_hf
from ualm_jax.convert_weights.parts import check_foreign, copy_tokenizer, part_directory, write_codec, write_encoder
from ualm_jax.convert_weights.progress import Progress, silent
from ualm_jax.convert_weights.write_arrays import write_arrays
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder.weights import UNUSED
from ualm_jax.models.config import Architecture
from ualm_jax.models.hf_names import ADAPTER, STREAMS, hf_shapes, reference
from ualm_jax.tokens.tokenizer import is_tokenizer
from ualm_jax.tokens.vocabulary import NUM_SPECIAL, Vocabulary
from ualm_jax.weights.audio_tower import encoder_shapes, read_encoder_config
from ualm_jax.weights.hf_config import read_qwen2
from ualm_jax.weights.hf_folder import open_directory
from ualm_jax.weights.hf_to_ours import array_infos, pieces
from ualm_jax.weights.opener import Weights
from ualm_jax.weights.tensor_files import TensorFiles

EMBED = "model.embed_tokens.weight"
STATES = "mp_rank_00_model_states.pt"
HANDLERS = "multimodal_io_dict."
CODEC = HANDLERS + "discrete_audio.codec_model."
ENCODERS = (HANDLERS + "continuous_audio.model.audio_tower.", HANDLERS + "continuous_audio.model.")


def find_states(source: pathlib.Path) -> pathlib.Path:
    """The one model file at or below `source`."""
    found = [source] if source.is_file() else sorted(source.rglob(STATES))
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(source)) for path in found[:5]) or "none"
        raise UserError(f"{source}: expected one {STATES} at or below it, found {names}; give the folder of one step.")
    if (found[0].parent / STATES.replace("00", "01")).exists():
        raise UserError(f"{found[0]}: this is one of several tensor-parallel parts, which are not put together here.")
    return found[0]


class Plan:
    """A reference checkpoint, checked, and its parts."""

    def __init__(self, source: pathlib.Path, base: pathlib.Path):
        """base: the Qwen2 directory it was trained from; sizes and tokenizer are taken from it."""
        self.file = find_states(source)
        decoder, text_size, _, self.kept = read_qwen2(base)
        self.files = TensorFiles([self.file])
        tensors = self.files.tensors
        for name in (EMBED, STREAMS[0].hf):
            if name not in tensors:
                raise UserError(f"{self.file}: tensor {name} is missing; this is no checkpoint of the UALM reference.")
        num_streams = tensors[STREAMS[0].hf].shape[0]
        rows = tensors[EMBED].shape[0]
        audio = rows - NUM_SPECIAL - text_size
        if audio <= 0 or audio % num_streams or audio == num_streams:
            raise UserError(
                f"{self.file}: {rows} token rows are not {NUM_SPECIAL} special, {text_size} text (vocab_size of "
                f"{base}) and {num_streams} codebooks of one size; is {base} the model it was trained from?"
            )
        adapter = tensors.get(ADAPTER[0].hf)
        self.architecture = Architecture(
            decoder=decoder,
            vocabulary=Vocabulary(text_size, audio // num_streams - 1, num_streams),
            feature_width=None if adapter is None else adapter.shape[-1],
        )
        self.param_dtype = "bfloat16" if tensors[EMBED].dtype.name == "bfloat16" else "float32"
        self.form = reference(self.architecture)
        handlers = frozenset(name for name in tensors if name.startswith(HANDLERS))
        self.files.check(hf_shapes(self.form, self.architecture), self.file, unread=handlers)
        self.codec = TensorFiles([self.file], CODEC)
        encoder_prefix = next((p for p in ENCODERS if any(name.startswith(p) for name in handlers)), ENCODERS[0])
        self.encoder = TensorFiles([self.file], encoder_prefix)
        strange = [name for name in sorted(handlers) if not name.startswith((CODEC, encoder_prefix))]
        if strange:
            raise UserError(f"{self.file}: tensor {strange[0]} belongs to no part that is known here.")
        self.infos = array_infos(self.form, self.architecture, self.files)
        self.pieces = pieces(self.form, self.architecture, self.files, self.infos, None)


def import_reference(
    source: pathlib.Path,
    out: pathlib.Path,
    *,
    base: pathlib.Path,
    codec: pathlib.Path | None = None,
    encoder: pathlib.Path | None = None,
    progress: Progress = silent,
) -> int:
    """A UALM from a reference checkpoint. Returns the bytes written.

    base: the Qwen2 directory it was trained from.
    codec, encoder: what the checkpoint's own were loaded from; needed where it holds such, for their config.json.
        A codec that training rounded to bfloat16 is replaced by this one in float32, of which it must be the rounding.
    """
    model = Plan(source, base)
    with written_whole(out) as partial, Hashes([model.file]) as hashes:
        if is_tokenizer(base):
            copy_tokenizer(base, partial / "tokenizer", model.architecture.vocabulary.text_size)
        notes = dict(model.kept)
        if model.codec.tensors:
            notes["codec_dtype"] = _import_codec(model, codec, partial / "codec")
        if model.encoder.tensors:
            if encoder is None:
                raise UserError(f"{model.file} holds an audio encoder; give --encoder DIR with its config.json.")
            encoder_dir = part_directory(encoder, "encoder")
            shapes = encoder_shapes(read_encoder_config(encoder_dir / "config.json"))
            model.encoder.check(shapes, model.file, unread=UNUSED)
            write_encoder(partial / "encoder", encoder_dir, model.encoder)
            notes["encoder_prefix"] = model.encoder.prefix
        write_arrays(partial / "params", model.infos, model.pieces, progress)
        write_card(
            partial,
            kind="ualm",
            importer="ualm-reference",
            source=model.file,
            hashes=hashes.result(),
            architecture=model.architecture,
            param_dtype=model.param_dtype,
            notes=notes,
        )
    return sum(int(np.prod(info.shape)) * info.dtype.itemsize for info in model.infos.values())


def _import_codec(model: Plan, codec: pathlib.Path | None, out: pathlib.Path) -> str:
    if codec is None:
        raise UserError(f"{model.file} holds an X-codec; give --codec DIR, the X-codec it was trained with.")
    directory = part_directory(codec, "codec")
    found = read_codec_config(directory / "config.json")
    vocabulary = model.architecture.vocabulary
    if (found.codebook_size, found.num_quantizers) != (vocabulary.codebook_size, vocabulary.num_codebooks):
        raise UserError(
            f"{directory}: has {found.num_quantizers} codebooks of {found.codebook_size}, but {model.file} was trained "
            f"with {vocabulary.num_codebooks} of {vocabulary.codebook_size}."
        )
    dtypes = {info.dtype for info in model.codec.tensors.values() if info.dtype != np.float32}
    if not dtypes:
        write_codec(out, directory / "config.json", model.codec)
        return "float32"
    whole = open_directory(directory)
    for name, info in model.codec.tensors.items():
        rounded = whole.read(name).astype(info.dtype) if name in whole.tensors else None
        if rounded is None or not np.array_equal(rounded, model.codec.read(name)):
            raise UserError(
                f"{model.file}: tensor {CODEC}{name} in {info.dtype} is not the rounding of {name} in {directory}; "
                f"codes need the codec in float32, so give the one it was trained with."
            )
    write_codec(out, directory / "config.json", whole)
    return dtypes.pop().name


def export_reference(
    weights: Weights, out: pathlib.Path, *, codec: pathlib.Path | None = None, progress: Progress = silent
) -> int:
    """OUT/global_stepN/mp_rank_00_model_states.pt and OUT/latest, as DeepSpeed writes them. Returns the bytes written.

    codec: an X-codec with the tensors that only training uses, where the checkpoint's own lacks them.
    """
    try:
        import torch
    except ImportError:
        raise UserError("torch is needed to write this format; `pip install '.[torch]'`.") from None
    directory = part_directory(codec, "codec") if codec is not None else weights.parts.get("codec")
    if directory is not None:
        check_foreign(directory)
    architecture, form, store = weights.architecture, reference(weights.architecture), weights.arrays()
    sizes = {
        name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in hf_dtypes(form, architecture, store).items()
    }
    state, done = {}, 0
    for name, size in sizes.items():
        state[name] = _torch(read_hf(form, architecture, store, name))
        done += size
        progress(done, sum(sizes.values()))
    if directory is not None:
        state |= _part(directory, CODEC, np.dtype(weights.notes.get("codec_dtype", "float32")))
    if "encoder" in weights.parts:
        state |= _part(weights.parts["encoder"], weights.notes.get("encoder_prefix", ENCODERS[0]), None)
    step = weights.step
    counters = {"global_step": step, "global_steps": step, "global_samples": 0, "skipped_steps": 0}
    with written_whole(out) as partial:
        folder = partial / f"global_step{step}"
        folder.mkdir()
        torch.save({"module": state, **counters, "dp_world_size": 1, "mp_world_size": 1}, folder / STATES)
        (partial / "latest").write_text(folder.name)
    return sum(tensor.nbytes for tensor in state.values())


def _part(directory: pathlib.Path, prefix: str, dtype: np.dtype | None) -> dict:
    files = open_directory(directory)
    return {
        prefix + name: _torch(files.read(name) if dtype is None else files.read(name).astype(dtype))
        for name in files.tensors
    }


def _torch(value: np.ndarray):
    import torch

    value = np.array(value)  # torch wants memory of its own that may be written
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)
