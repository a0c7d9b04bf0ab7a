"""Which files of a folder hold a data set, in every way that the library `datasets` and the hub save one."""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ualm_jax.data.raw.files import is_url, matching, open_binary
from ualm_jax.data.raw.sound_source import LeftOut
from ualm_jax.errors import UserError


def find_files(path: str, split: str | None) -> tuple[list[str], list[LeftOut]]:
    """The data files of one split, in order, and those that are passed over.

    path: one Parquet or Arrow file; a folder of `save_to_disk` (state.json or dataset_dict.json says what belongs to
    it) or of the library's cache (dataset_info.json does); or one as on the hub, where README.md says it, or else the
    names of the files do. A split of a hub folder with several subsets is called "SUBSET/SPLIT".
    Raises UserError where there is no such data set, and where it has several splits and none is named.
    """
    if os.path.isfile(path) or (is_url(path) and path.endswith(".parquet")):
        if split is not None:
            raise UserError(f"{path}: is one file, of which all is read; a split is chosen in a folder")
        return [path], []
    below = f"{path if is_url(path) else glob.escape(path)}/**"
    present = matching(f"{below}/*.parquet") + matching(f"{below}/*.arrow")
    if not present:
        raise UserError(f"{path}: holds no data set; expected a file, or a folder with *.parquet or *.arrow below it")
    splits = _splits(path, present)
    if split is None and len(splits) > 1:
        raise UserError(f"{path}: holds several splits ({', '.join(splits)}); name one with --split")
    chosen = next(iter(splits)) if split is None else split
    if chosen not in splits:
        raise UserError(f"{path}: has no split {split!r}; it has {', '.join(splits)}")
    if not splits[chosen]:
        raise UserError(f"{path}: its split {chosen!r} has no Parquet or Arrow file; copy the data set again")
    for file in splits[chosen]:
        if file not in present:
            raise UserError(f"{file}: this file of the data set is missing; copy the data set again")
    return splits[chosen], _passed_over(present, splits, chosen)


def _passed_over(present: Sequence[str], splits: Mapping[str, Sequence[str]], chosen: str) -> list[LeftOut]:
    result, rest = [], [file for file in present if file not in splits[chosen]]
    for name, files in splits.items():
        if name != chosen and files:
            result.append(LeftOut(files[0], f"of the split {name!r}, which was not asked for", len(files)))
            rest = [file for file in rest if file not in files]
    return result + [LeftOut(file, "no part of the data set that the folder describes") for file in rest]


def _splits(path: str, present: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split."""
    state, info = _read_json(f"{path}/state.json"), _read_json(f"{path}/dataset_info.json")
    if state is not None:
        return {state.get("_split") or "train": _saved(path, state)}
    if (saved := _read_json(f"{path}/dataset_dict.json")) is not None:
        splits = {name: _read_json(f"{path}/{name}/state.json") for name in saved["splits"]}
        for name, state in splits.items():
            if state is None:
                raise UserError(f"{path}: dataset_dict.json names the split {name!r}, but {name}/state.json is missing")
        return {name: _saved(f"{path}/{name}", state) for name, state in splits.items()}
    if nested := matching(f"{path if is_url(path) else glob.escape(path)}/**/state.json"):
        folders = ", ".join(os.path.dirname(each) for each in nested)
        raise UserError(f"{path}: holds data sets that were saved each by itself; name one of {folders}")
    files = [file for file in present if file.endswith(".parquet")]
    try:
        if not files and info is not None and info.get("splits"):
            return _cached(path, info)
        return _as_on_the_hub(path, files or [file for file in present if not _is_cache(file)])
    except ImportError as error:
        raise UserError(
            f"{path}: which files belong to which split is found out by the package datasets; run "
            "`pip install '.[hf]'`, or name one file"
        ) from error


def _saved(folder: str, state: Mapping[str, Any]) -> list[str]:
    if state.get("_indices_data_files"):
        raise UserError(f"{folder}: saved by an old version of datasets with its rows reordered; save it again")
    return [f"{folder}/{file['filename']}" for file in state["_data_files"]]


def _cached(path: str, info: Mapping[str, Any]) -> dict[str, list[str]]:
    from datasets.naming import filenames_for_dataset_split  # of the extra hf

    name = info.get("dataset_name") or info.get("builder_name")
    return {
        split: filenames_for_dataset_split(
            path, each.get("dataset_name") or name, split, "arrow", each.get("shard_lengths")
        )
        for split, each in info["splits"].items()
    }


def _as_on_the_hub(path: str, files: Sequence[str]) -> dict[str, list[str]]:
    """What README.md says, or else what the names of files and folders say, by the library's own rules."""
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    base = path if is_url(path) else os.path.abspath(path)
    names = {_absolute(file): file for file in files}
    try:
        readme = _read(f"{path}/README.md")
        card = DatasetCard(readme.decode()).data if readme is not None and readme.startswith(b"---") else None
        subsets = MetadataConfigs.from_dataset_card_data(card) if card is not None else {}
        patterns = {
            name: sanitize_patterns(each["data_files"]) for name, each in subsets.items() if "data_files" in each
        }
        if not patterns:
            patterns = {"": get_data_patterns(base)}
        found = {
            f"{subset}/{split}" if len(patterns) > 1 else str(split): sorted(map(str, listed))
            for subset, each in patterns.items()
            for split, listed in DataFilesDict.from_patterns(each, base, [".parquet", ".arrow"]).items()
        }
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: what belongs to which split is not clear ({reason}); name one file instead"
        ) from error
    return {split: [names[file] for file in listed if file in names] for split, listed in found.items()}


def _absolute(file: str) -> str:
    return file if is_url(file) else os.path.abspath(file)


def _is_cache(file: str) -> bool:
    """What `map` and `filter` leave beside the data."""
    return os.path.basename(file).startswith("cache-")


def _read(path: str) -> bytes | None:
    try:
        with open_binary(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _read_json(path: str) -> Any:
    content = _read(path)
    try:
        return None if content is None else json.loads(content)
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error})") from error
