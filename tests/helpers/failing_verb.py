"""A verb whose work is `function`, which a test sets."""


def main(argv: list[str]) -> int:
    return function() or 0  # noqa: F821
