"""Tables and pictures of what `ualm bench card` found, for docs/performance.md.

python tools/card_report.py card            writes card/report.md and card/NAME.png
"""

import json
import pathlib
import sys
from typing import Any

from ualm_jax.bench import picture, trace
from ualm_jax.bench.card import SUMMARY
from ualm_jax.bench.result import Bars, markdown
from ualm_jax.cli.arguments import Parser, input_directory
from ualm_jax.errors import UserError


def main() -> None:
    parser = Parser("card_report.py", description=__doc__)
    parser.add_argument("folder", type=input_directory, help="that `ualm bench card --out` has filled")
    try:
        print(write_report(parser.parse_args().folder))
    except UserError as error:
        sys.exit(f"card_report.py: {error}")


def write_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes report.md, and a picture for each part with figures. Raises UserError where nothing was measured there."""
    if not (folder / SUMMARY).is_file():
        raise UserError(f"{folder}: holds no {SUMMARY}; `ualm bench card --out {folder}` makes it.")
    summary = json.loads((folder / SUMMARY).read_text())
    cells = [["part", "ended", "s", "of at most"]]
    sections = []
    for part in summary["parts"]:
        taken = f"{part['seconds']:.0f}" if "seconds" in part else ""
        cells.append([part["name"], part["status"], taken, f"{part['limit_seconds']:g}"])
        sections.append(_section(folder, part))
    machine = ", ".join(f"{name} {value}" for name, value in summary["machine"].items())
    report = folder / "report.md"
    report.write_text("\n\n".join([f"# A card, measured\n\n{machine}", markdown(cells), *sections]) + "\n")
    return report


def _section(folder: pathlib.Path, part: dict[str, Any]) -> str:
    """Of one part: what it measured, and where it did not end well, what it said last."""
    lines = [f"## {part['name']}", f"`ualm bench {' '.join(part['words'])}`"]
    if part["status"] != "done":
        said = "\n".join(part["said"])
        lines.append(f"{part['status']}; its last words:\n\n```\n{said}\n```")
    if part.get("figures") is None:
        return "\n\n".join(lines)
    found = json.loads((folder / part["figures"]).read_text())
    device = f"{found['machine']['devices']} x {found['machine']['device']}"
    lines += [f"{found['title']}; {device}", found["table"], "\n".join(f"- {note}" for note in found["notes"])]
    if "trace" in found:
        lines += [f"Kernels of one run, {1e3 * found['trace']['seconds']:,.2f} ms:", trace.table(found["trace"])]
    if found["bars"]:
        picture.draw(found["title"], [Bars(**bars) for bars in found["bars"]], folder / f"{part['name']}.png")
        lines.append(f"![{part['name']}]({part['name']}.png)")
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
