"""Work that threads do before its result is needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int,
    most: int | None = None,
) -> Iterator[Result]:
    """`function` of each item, in order; up to `ahead` results are made before they are asked for.

    `items` is read in the caller's thread. An exception of `function` is raised when its result is asked for.
    most: no more is begun while the items whose results wait have this length together; None: no limit.
    """
    items = iter(items)
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, Future]] = deque()
    held = 0

    def begin() -> None:
        nonlocal held
        while len(waiting) < ahead and (most is None or held < most):
            item = next(items, waiting)  # `waiting` is none of them
            if item is waiting:
                return
            size = 0 if most is None else len(item)
            waiting.append((size, pool.submit(function, item)))
            held += size

    try:
        begin()
        while waiting:
            size, future = waiting.popleft()
            result = future.result()
            held -= size
            begin()
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
