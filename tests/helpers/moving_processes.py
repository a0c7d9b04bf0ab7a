"""One process of a run that moves between numbers of processes: python moving_processes.py DIR STATE OUT INDEX COUNT.

Reads four batches from where STATE says and writes what it read, and where it then stands, to OUT.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

from ualm_jax.data.dataset.folder import open_dataset
from ualm_jax.data.loading.config import DataConfig
from ualm_jax.data.loading.loader import make_loader


def config_of(directory: str) -> DataConfig:
    return DataConfig(directory=directory, seq_len=160, batch_size=4, packing_bins=8, cfg_dropout=0.3, seed=3)


def main(directory: str, state: str, out: str, index: str, count: str) -> None:
    loader = make_loader(
        config_of(directory),
        open_dataset(directory).vocabulary,
        process_index=int(index),
        process_count=int(count),
    )
    if Path(state).is_file():
        loader.set_state(json.loads(Path(state).read_text()))
    batches = list(itertools.islice(loader, 4))
    np.savez(out, tokens=[batch.tokens for batch, _ in batches], records=[records for _, records in batches])
    Path(out).with_suffix(".json").write_text(json.dumps(loader.get_state()))
    loader.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
