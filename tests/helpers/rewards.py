"""Rewards for tests of online preference learning."""


def likes_low(prompt, answer):
    """The share of ids below 64: a quarter of what a random model of bytes says."""
    return float((answer.ids < 64).sum()) / max(len(answer.ids), 1)


def indifferent(prompt, answer):
    return 0.3


def moody(prompt, answer):
    """Fails for some answers, and has no opinion of others."""
    kind = int(answer.ids.sum()) % 3
    if kind == 0:
        raise ValueError("not this one")
    return float("nan") if kind == 1 else float(len(answer.ids)) + answer.ids[0] / 256


def never(prompt, answer):
    raise ValueError("no ears")
