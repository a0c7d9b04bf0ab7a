"""The folder of a job over many items: what it is made with, and a line for each item that is done.

OUT/job.json        what all items have in common; another job is refused
OUT/results.jsonl   a line for each item, appended when it is done, put in order when all are
"""

import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ualm_jax.audio.write import write_whole
from ualm_jax.errors import UserError

RESULTS = "results.jsonl"


@runtime_checkable
class Keyed(Protocol):
    """id: names its result. key: changes with all that is asked for."""

    id: str

    @property
    def key(self) -> str: ...


def settle(out: pathlib.Path, made_with: Mapping[str, Any]) -> None:
    """Writes job.json, or finds that it says the same. Raises UserError where it does not."""
    made = json.loads(json.dumps(made_with))
    record = out / "job.json"
    if not record.is_file():
        write_whole({record: (json.dumps(made, indent=1) + "\n").encode()})
        return
    try:
        before = dict(json.loads(record.read_text()))
    except (ValueError, TypeError):
        raise UserError(f"{record}: is damaged; choose another folder, or remove it to begin anew.") from None
    other = sorted(name for name in made.keys() | before.keys() if made.get(name) != before.get(name))
    if other:
        raise UserError(
            f"{out}: holds results of a job with other settings ({', '.join(other)}); choose another folder."
        )


def complete(
    out: pathlib.Path,
    items: Sequence[Keyed],
    make: Callable[[list[int]], Iterable[tuple[int, dict[str, Any]]]],
    told: Callable[[Mapping[str, Any]], None],
) -> list[dict[str, Any]]:
    """The lines of all items, in order; those that are missing are made, those with an `error` once more.

    make: (index, line) of these items, in any order. told: called with the line of each item as it is done, and first
    with those that were done before.
    """
    done = _read_done(out / RESULTS, items)
    for line in done.values():
        told(line)
    left = [index for index in range(len(items)) if index not in done]
    with open(out / RESULTS, "ab") as results:
        for index, line in make(left):
            line = {"index": index, "id": items[index].id, "key": items[index].key, **line}
            results.write(_encoded(line))
            results.flush()
            os.fsync(results.fileno())
            done[index] = line
            told(line)
    lines = [done[index] for index in range(len(items))]
    content = b"".join(map(_encoded, lines))
    if content != (out / RESULTS).read_bytes():
        write_whole({out / RESULTS: content})
    return lines


def _encoded(line: Mapping[str, Any]) -> bytes:
    """A lone surrogate, as in the name of a file that is no UTF-8, becomes its escape, which JSON knows too."""
    return json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _read_done(results: pathlib.Path, items: Sequence[Keyed]) -> dict[int, dict[str, Any]]:
    """Lines of items that are done, by index. What failed, or lost its `file`, is made again; a line that a kill left
    unfinished goes. Raises UserError for a whole line that is damaged."""
    if not results.is_file():
        return {}
    content = results.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(results, len(whole))
    places = {item.id: (index, item.key) for index, item in enumerate(items)}
    done = {}
    for number, text in enumerate(whole.splitlines(), 1):  # of bytes, for texts may hold what ends a line elsewhere
        try:
            line = json.loads(text)
            index, key = places.get(line["id"], (None, None))
            there = "file" not in line or (results.parent / line["file"]).is_file()
            same = key == line["key"]
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{results} line {number}: is damaged; remove the line, and its item is made again."
            ) from None
        if same and "error" not in line and there:
            done[index] = line | {"index": index}
    return done
