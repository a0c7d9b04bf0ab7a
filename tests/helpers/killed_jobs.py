"""Jobs that take long enough to be killed: python killed_jobs.py (prepare | encode) FROM PARTS OUT.

prepare: of 100 sounds in two worker processes, FROM is not looked at; encode: of the sounds in FROM.
"""

import sys
from pathlib import Path
from unittest import mock

from helpers.fake_sounds import FakeSource, encode_fake, prepare_fake_sounds


def main(job: str, sounds: str, parts: str, out: str) -> None:
    if job == "prepare":
        prepare_fake_sounds(FakeSource(100, seconds=0.2), Path(parts), Path(out), shard_size=15, workers=2)
        return
    with mock.patch("ualm_jax.data.prepare.encode_audio._GROUP", 1):
        encode_fake(Path(sounds), Path(parts), Path(out), seconds=0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
