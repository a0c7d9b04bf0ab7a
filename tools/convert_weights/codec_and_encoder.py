"""X-codec and audio encoders by themselves, out of and into Hugging Face's layout."""

import math
import pathlib
import shutil

from ualm_jax.convert_weights.card import Hashes, write_card, written_whole
from ualm_jax.convert_weights.parts import check_codec, check_foreign, part_directory, write_codec, write_encoder
from ualm_jax.convert_weights.progress import Progress, silent
from ualm_jax.errors import UserError
from ualm_jax.models.audio_encoder.weights import UNUSED
from ualm_jax.weights.audio_tower import encoder_shapes, open_tower, read_encoder_config
from ualm_jax.weights.checksums import sha256
from ualm_jax.weights.hf_folder import open_directory
from ualm_jax.weights.tensor_files import TensorFiles

KINDS = {"omni-audio": "OmniConfig", "af-whisper": "AFWhisperConfig"}


def import_xcodec(source: pathlib.Path, out: pathlib.Path, *, progress: Progress = silent) -> int:
    """OUT/codec from an X-codec directory, its tensors checked and kept. Returns the bytes written."""
    files = open_directory(source)
    with written_whole(out) as partial, Hashes(files.files) as hashes:
        write_codec(partial / "codec", source / "config.json", files, progress)
        write_card(partial, kind="codec", importer="xcodec", source=source, hashes=hashes.result())
    return _size(files)


def import_encoder(importer: str, source: pathlib.Path, out: pathlib.Path, *, progress: Progress = silent) -> int:
    """OUT/encoder from a whole model, of which only the tower's tensors are read. Returns the bytes written."""
    config = read_encoder_config(source / "config.json")
    if type(config).__name__ != KINDS[importer]:
        raise UserError(f"{source / 'config.json'}: describes another encoder than {importer}; use the other importer.")
    files = open_tower(source)
    files.check(encoder_shapes(config), source, unread=UNUSED)
    with written_whole(out) as partial:
        write_encoder(partial / "encoder", source, files, progress)
        # Of what was written: a whole model's shards hold far more than its tower.
        hashes = {f"encoder/{file.name}": sha256(file) for file in sorted((partial / "encoder").glob("*.safetensors"))}
        notes = {"prefix": files.prefix}
        write_card(partial, kind="encoder", importer=importer, source=source, hashes=hashes, notes=notes)
    return _size(files)


def export_xcodec(source: pathlib.Path, out: pathlib.Path) -> int:
    """A Hugging Face X-codec directory, from a converted checkpoint or a run. Returns the bytes written."""
    directory = part_directory(source, "codec")
    files = open_directory(directory)
    check_codec(check_foreign(directory), files)
    with written_whole(out) as partial:
        shutil.copytree(directory, partial, dirs_exist_ok=True)
    return _size(files)


def _size(files: TensorFiles) -> int:
    return sum(info.dtype.itemsize * math.prod(info.shape) for info in files.tensors.values())
