"""One of two processes that shall meet twice: python waiting_process.py ADDRESS INDEX. Process 1 comes to the first
meeting alone; what process 0 is told at the second is printed, and what process 1 is told of another step."""

import os
import sys
import time

from ualm_jax.errors import UserError
from ualm_jax.parallel import processes
from ualm_jax.parallel.startup import start


def main(address: str, index: str) -> None:
    start(distributed=f"{address},2,{index}", keep_programs=False)
    print(int(processes.from_first("greet", int(index) + 5)), *processes.from_all("greet", int(index)), flush=True)
    processes.check_same("codec", "one", "take the same")
    try:
        processes.check_same("step", int(index) + 3, "start again")
    except UserError as error:
        print(error, flush=True)
    if index == "1":
        time.sleep(60)
    try:
        processes.meet("save", seconds=1)
    except UserError as error:
        print(error, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
