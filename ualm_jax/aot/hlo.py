"""What a compiled program sends over the network, read from its text."""

import collections
import dataclasses
import math
import re

import numpy as np

_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(_COLLECTIVES)})(?:-start)?\(")
_CALLS = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_SHAPE = re.compile(r"\b(pred|bf16|f8\w*|[fsuc]\d+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All executions of one collective in one run of the program.

    count: times it runs. sent: bytes that one device sends over all runs. across: whether its group spans machines.
    """

    kind: str
    count: int
    sent: float
    group: int
    across: bool
    shape: str


def collectives(text: str, num_devices: int, devices_per_machine: int | None = None) -> list[Collective]:
    """Every collective of an optimised HLO module, with what is inside loops counted as often as it runs.

    Bytes sent per device follow the ring algorithms: (g - 1) / g of the whole array for all-gather, reduce-scatter
    and all-to-all in groups of g, twice that for all-reduce, all of it for collective-permute.
    """
    bodies = _computations(text)
    runs = _runs(bodies)
    found = {}
    for name, lines in bodies.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match is None or not runs[name]:
                continue
            shape, kind = match.groups()
            key = _identity(kind, line) or (name, line)
            groups = _groups(line, num_devices)
            size = groups.shape[1]
            across = devices_per_machine is not None and bool(
                np.any(groups // devices_per_machine != groups[:, :1] // devices_per_machine)
            )
            one = Collective(
                kind, runs[name], runs[name] * _sent(kind, shape, size, "-start(" in line), size, across, shape
            )
            if size > 1 and (key not in found or found[key].count < one.count):
                found[key] = one
    return list(found.values())


def by_kind(found: list[Collective]) -> dict[str, dict[str, float]]:
    """{kind: {"count", "bytes"}}, in a fixed order, kinds that do not occur left out."""
    table = {}
    for kind in _COLLECTIVES:
        some = [one for one in found if one.kind == kind]
        if some:
            table[kind] = {"count": float(sum(one.count for one in some)), "bytes": sum(one.sent for one in some)}
    return table


def _computations(text: str) -> dict[str, list[str]]:
    bodies, name = {}, None
    for line in text.splitlines():
        match = _COMPUTATION.match(line)
        if match:
            name = "ENTRY" if line.startswith("ENTRY") else match.group(1)
            bodies[name] = []
        elif name is not None:
            bodies[name].append(line)
    return bodies


def _identity(kind: str, line: str) -> tuple[str, str] | None:
    """What the parts share that a collective was split into (start, steps and end each show it); None if it was not.

    Channel 1 says nothing: every collective written in `shard_map` has it.
    """
    name = re.search(r'async_collective_name="([^"]+)"', line) or re.search(r"channel_id=(?!1\b)(\d+)", line)
    return (kind, name.group(1)) if name else None


def _runs(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs."""
    callers = collections.defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            times = _trip_count(line, bodies) if " while(" in line else 1
            names = _CALLS.findall(line) + [one for group in _BRANCHES.findall(line) for one in group.split(", ")]
            for callee in names:
                callers[callee.strip("% ")].append((name, times))
    known = {"ENTRY": 1}

    def runs(name: str) -> int:
        if name not in known:
            known[name] = sum(runs(caller) * times for caller, times in callers[name])
        return known[name]

    return {name: runs(name) for name in bodies}


def _trip_count(line: str, bodies: dict[str, list[str]]) -> int:
    """Of a `while`: said by the compiler, or the constant its condition compares a counter from 0 with; else 1."""
    said = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
    if said:
        return int(said.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line).group(1)
    limits = [int(n) for text in bodies[condition] for n in re.findall(r"s32\[\]\S* constant\((\d+)\)", text)]
    return limits[0] if len(limits) == 1 else 1


def _sent(kind: str, shape: str, group: int, started: bool) -> float:
    sizes = [
        math.prod(map(int, dims.split(","))) * _width(dtype) if dims else _width(dtype)
        for dtype, dims in _SHAPE.findall(shape)
    ]
    # The result of a `-start` is (operand, result, ...): the larger of them is the whole array.
    whole = max(sizes) if started and kind != "all-reduce" else sum(sizes)
    if kind == "reduce-scatter":
        whole = whole if started else whole * group
    if kind == "collective-permute":
        return float(whole)
    return whole * (group - 1) / group * (2 if kind == "all-reduce" else 1)


def _width(dtype: str) -> int:
    if dtype == "pred" or dtype.startswith("f8"):
        return 1
    return int(re.search(r"\d+", dtype).group()) // 8


def _groups(line: str, num_devices: int) -> np.ndarray:
    """Devices of each group, [groups, size], from any of the ways in which the compiler writes them."""
    pairs = re.search(r"source_target_pairs=\{(\{[\d,{}]+\})\}", line)
    if pairs:
        return np.array([[int(n) for n in pair.split(",")] for pair in re.findall(r"\{([\d,]+)\}", pairs.group(1))])
    listed = re.search(r"replica_groups=\{(\{[\d,{}]+\})\}", line)
    if listed:
        return np.array([[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed.group(1))])
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota:
        count, size, dims, order = iota.groups()
        ids = np.arange(num_devices).reshape([int(n) for n in dims.split(",")])
        if order:
            ids = ids.transpose([int(n) for n in order.split(",")])
        return ids.reshape(int(count), int(size))
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line)
    if mesh:
        return _mesh_groups(*mesh.groups(), num_devices)
    return np.arange(num_devices)[None]


def _mesh_groups(axes: str, named: str, num_devices: int) -> np.ndarray:
    """mesh['a'=4,'b'=2] {'a', 'b':(1)2}: groups along axes, or along a part ":(devices before it)size" of an axis."""
    sizes, names = [], []
    parts = {name: part for name, part in re.findall(r"'(\w+)'(?::\((\d+)\)\d+)?", named)}
    lengths = dict(re.findall(r"'(\w+)':\(\d+\)(\d+)", named))
    for name, size in ((name, int(size)) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)):
        if name in lengths:
            before, inside = int(parts[name]), int(lengths[name])
            sizes += [before, inside, size // before // inside]
            names += [None, name, None]
        else:
            sizes.append(size)
            names.append(name if name in parts else None)
    ids = np.arange(num_devices).reshape(sizes)
    inside = [i for i, name in enumerate(names) if name is not None]
    outside = [i for i, name in enumerate(names) if name is None]
    size = math.prod(sizes[i] for i in inside)
    return ids.transpose(outside + inside).reshape(-1, size)
