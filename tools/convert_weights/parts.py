"""The parts that stay as Hugging Face stores them: codec, audio encoder and tokenizer.

They are frozen and used through readers of that layout, so their tensors are checked and kept, not transposed.
"""

import pathlib
import shutil

import numpy as np

from ualm_jax.codecs.xcodec.config import XCodecConfig, read_config
from ualm_jax.codecs.xcodec.weights import params_from_tensors
from ualm_jax.convert_weights.progress import Progress, silent
from ualm_jax.convert_weights.safetensors_files import write_safetensors
from ualm_jax.errors import UserError
from ualm_jax.tokens.tokenizer import load_tokenizer
from ualm_jax.weights.audio_tower import write_encoder_config
from ualm_jax.weights.tensor_files import TensorFiles


def part_directory(path: pathlib.Path, part: str) -> pathlib.Path:
    """`path` itself, or its subfolder `part` where `path` is a converted checkpoint or a run."""
    return path / part if (path / part).is_dir() else path


def check_codec(config: XCodecConfig, tensors: TensorFiles) -> None:
    """Raises UserError where these are not the tensors of this X-codec in float32."""
    where = ", ".join(map(str, tensors.files))
    params_from_tensors({name: tensors.read(name) for name in tensors.tensors}, config, where)


def check_foreign(directory: pathlib.Path) -> XCodecConfig:
    """The configuration of a codec that `transformers` and the reference can hold. Raises UserError for another."""
    config = read_config(directory / "config.json")
    if config.codebook_dim is not None:
        raise UserError(
            f"{directory}: expected an X-codec as `transformers` has it, found factorised codes (codebook_dim "
            f"{config.codebook_dim}), for which its layout has no place."
        )
    return config


def write_codec(
    out: pathlib.Path, config_file: pathlib.Path, tensors: TensorFiles, progress: Progress = silent
) -> None:
    """`out` as `XCodec.from_directory` and `transformers` read it; all tensors as they came."""
    check_codec(read_config(config_file), tensors)
    out.mkdir()
    shutil.copyfile(config_file, out / "config.json")
    write_safetensors(out, _table(tensors), tensors.read, shard_bytes=1 << 62, progress=progress)


def write_encoder(out: pathlib.Path, like: pathlib.Path, tensors: TensorFiles, progress: Progress = silent) -> None:
    """`out` with the configuration and the settings of the encoder in the folder `like`, and `tensors` as they came."""
    out.mkdir()
    write_encoder_config(like, out)
    write_safetensors(out, _table(tensors), tensors.read, progress=progress)


def copy_tokenizer(source: pathlib.Path, out: pathlib.Path, text_size: int) -> None:
    """Raises UserError where the tokenizer has ids that the text table has no rows for."""
    size = load_tokenizer(source).size
    if size > text_size:
        raise UserError(
            f"{source}: the tokenizer has ids up to {size - 1}, but the model's text table has {text_size} rows; "
            f"they do not belong together."
        )
    out.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and (file.name.startswith(("tokenizer", "vocab", "merges", "special_", "added_", "chat_"))):
            shutil.copyfile(file, out / file.name)


def _table(tensors: TensorFiles) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    return {name: (info.shape, info.dtype) for name, info in tensors.tensors.items()}
