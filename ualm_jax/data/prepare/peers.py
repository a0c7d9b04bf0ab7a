"""Processes that share a job through a folder: each shows that it lives, and a wait for one that does not ends."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ualm_jax.data.prepare.shard_files import write_file
from ualm_jax.errors import UserError

_BEAT = 2.0  # seconds between signs of life
_SILENCE = 60.0  # seconds without one after which a process counts as gone
_LOOK_EVERY = 0.5  # seconds between looks at what other processes have done


class Peers:
    """One of `count` processes that see the same `folder`. A context manager; the others are told what ended it.

    run: the same for all processes of a run, and different from that of other runs.
    """

    def __init__(self, folder: Path, run: str, index: int, count: int):
        self.index, self.count = index, count
        self._folder, self._run = folder, run
        self._published: dict[str, object] = {}  # by a process that is alone
        self._stop = threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}  # last sign of life, and when it was new to us

    def __enter__(self) -> "Peers":
        if self.count > 1:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self.index == 0:  # what earlier runs have left
                for path in self._folder.iterdir():
                    if not path.name.startswith((self._run, "unfinished")):
                        path.unlink(missing_ok=True)
            self._thread = threading.Thread(target=self._show_life, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, error_type, error, _) -> None:
        if self.count == 1:
            return
        self._stop.set()
        self._thread.join()
        if error is not None:
            self._tell({"failed": str(error) or error_type.__name__})
        elif self.index == 0:  # which is the last one that is waited for
            shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self, condition: Callable[[], bool], processes: range) -> None:
        """Returns when `condition` holds. Raises UserError if one of `processes`, which make it hold, is gone."""
        while not condition():
            for process in processes:
                if process != self.index:
                    self._check(process)
            time.sleep(_LOOK_EVERY)

    def publish(self, name: str, content: object) -> None:
        """Keep something JSON-able for all, this process too, to `read`."""
        if self.count == 1:
            self._published[name] = content
            return
        write_file(self._folder, self._path(name), json.dumps(content).encode())

    def read(self, name: str, writer: int) -> object:
        """What process `writer` has published under this name, once it has."""
        if name in self._published:
            return self._published[name]
        self.wait(self._path(name).is_file, range(writer, writer + 1))
        return json.loads(self._path(name).read_text())

    def _check(self, process: int) -> None:
        path, now = self._path(f"life-{process}"), time.monotonic()
        shown = path.read_text() if path.is_file() else ""
        # Only whether it changes counts: clocks of different machines need not agree.
        if process not in self._seen or self._seen[process][0] != shown:
            self._seen[process] = shown, now
        failed = json.loads(shown).get("failed") if shown else None
        if failed is not None:
            raise UserError(f"process {process} of {self.count} has stopped: {failed}")
        if now - self._seen[process][1] > _SILENCE:
            raise UserError(
                f"process {process} of {self.count} has shown no sign of life for {_SILENCE:.0f} s: it was killed, or "
                f"does not see {self._folder}; what is finished is kept, run the same again"
            )

    def _show_life(self) -> None:
        beats = 0
        while not self._stop.is_set():
            try:
                self._tell({"beats": beats})
            except OSError:  # the folder is gone: the dataset is complete
                return
            beats += 1
            self._stop.wait(_BEAT)

    def _tell(self, content: dict[str, object]) -> None:
        write_file(self._folder, self._path(f"life-{self.index}"), json.dumps(content).encode())

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._run}-{name}.json"
