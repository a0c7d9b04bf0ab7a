"""What lies beside converted weights, for programs (`ualm.json`) and people (`README.md`); and the folder itself."""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ualm_jax
from ualm_jax.errors import UserError
from ualm_jax.mapping import to_mapping
from ualm_jax.models.config import Architecture
from ualm_jax.outputs import check_new_folder, lock
from ualm_jax.weights.checksums import sha256, sha256_of
from ualm_jax.weights.converted import CARD, FORMAT, checked_files


@contextlib.contextmanager
def written_whole(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """The new folder OUT.partial, renamed to `out` when all went well and removed when not.

    Raises UserError where `out` cannot be made, or another conversion writes it.
    """
    out = check_new_folder(out)
    partial = out.with_name(f"{out.name}.partial")
    left_behind = partial.exists()
    if left_behind and not (partial / "lock").is_file():
        raise UserError(f"{partial} is in the way, and no conversion made it; move it, or choose another --out.")
    partial.mkdir(parents=True, exist_ok=True)
    with lock(partial):
        try:
            for entry in partial.iterdir() if left_behind else ():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != "lock":
                    entry.unlink()
            yield partial
            (partial / "lock").unlink()
            os.replace(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


class Hashes:
    """SHA-256 of files, worked out by another thread while they are converted inside its `with`."""

    def __init__(self, files: list[pathlib.Path]):
        self._pool = ThreadPoolExecutor(1)
        self._futures = {file.name: self._pool.submit(sha256, file) for file in files}

    def __enter__(self) -> "Hashes":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def result(self) -> dict[str, str]:
        return {name: future.result() for name, future in self._futures.items()}


def write_card(
    directory: pathlib.Path,
    *,
    kind: str,
    importer: str,
    source: pathlib.Path,
    hashes: dict[str, str],
    architecture: Architecture | None = None,
    param_dtype: str = "float32",
    notes: dict[str, Any] | None = None,
) -> None:
    """Writes `ualm.json` and `README.md` into `directory`.

    kind: "ualm", "codec" or "encoder". notes: what an export needs to give the source back.
    """
    card: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "ualm_jax": ualm_jax.__version__,
        "source": {
            "importer": importer,
            "name": source.resolve().name,
            "sha256": hashes,
            "license": _license(source if source.is_dir() else source.parent),
            **(notes or {}),
        },
    }
    if architecture is not None:
        # What the weights are; how they are computed with is for their user to choose.
        card["model"] = to_mapping(architecture) | {"param_dtype": param_dtype}
        vocabulary = architecture.vocabulary
        card["vocabulary"] = {"size": vocabulary.size, "intervals": vocabulary.intervals()}
        card["parameters"] = architecture.num_params()
    card["files"] = sha256_of(directory, checked_files(directory))
    (directory / CARD).write_text(json.dumps(card, indent=2) + "\n")
    (directory / "README.md").write_text(_readme(card, directory))


def _license(source: pathlib.Path) -> str | None:
    """The licence that a Hugging Face model card states in its head."""
    readme = source / "README.md"
    if not readme.is_file():
        return None
    found = re.match(r"---\n(.*?)\n---", readme.read_text(errors="replace"), re.DOTALL)
    line = re.search(r"^license:\s*(\S+)", found.group(1), re.MULTILINE) if found else None
    return line.group(1) if line else None


def _readme(card: dict[str, Any], directory: pathlib.Path) -> str:
    source = card["source"]
    stated = f"`{source['license']}`, as its model card says" if source["license"] else "not stated beside it"
    lines = [
        f"# {source['name']}, converted",
        "",
        f"Weights converted by ualm_jax {card['ualm_jax']} from `{source['name']}` with "
        f"`ualm convert {source['importer']}`.",
        "",
        f"Licence of the source: {stated}. It goes on to hold for these weights.",
        "",
    ]
    if "model" in card:
        model, vocabulary = card["model"], card["vocabulary"]
        decoder = model["decoder"]
        lines += [
            "## Model",
            "",
            f"{card['parameters']:,} parameters: {decoder['num_layers']} layers of width {decoder['width']}, "
            f"{decoder['num_heads']} query and {decoder['num_kv_heads']} key/value heads, MLP {decoder['mlp_dim']}, "
            f"adapter for features of width {model['feature_width']}.",
            "",
            f"## Vocabulary: {vocabulary['size']} ids",
            "",
            "| part | ids |",
            "|---|---|",
            *(
                f"| {name} | {' '.join(f'{start}..{stop - 1}' for start, stop in intervals)} |"
                for name, intervals in vocabulary["intervals"].items()
            ),
            "",
            "Begin a training run with it: `--config.train.init_from=DIR`.",
            "",
        ]
    folders = sorted(path.name for path in directory.iterdir() if path.is_dir())
    lines += ["## Files", "", f"`{CARD}`, {', '.join(f'`{name}/`' for name in folders)}", ""]
    lines += ["SHA-256 of the foreign files:", "", *(f"- `{f}` {h}" for f, h in source["sha256"].items()), ""]
    return "\n".join(lines)
