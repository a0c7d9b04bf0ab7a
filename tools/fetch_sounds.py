#!/usr/bin/env python3
"""Fetch real captioned sounds to try things with: python tools/fetch_sounds.py --out sounds

They come from three Debian packages, by `apt-get download` and `dpkg -x`: nothing is installed and no root is
needed. Written to the folder: `tuxpaint.jsonl` (animals, households, vehicles), `asterisk.jsonl` (a voice
speaks telephone prompts), `LICENSES.md` and what the packages hold, about 430 MB. Run it again after an
interruption: finished downloads are kept.
"""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ualm_jax.cli.arguments import Parser, output_directory
from ualm_jax.data.raw.manifest import Manifest
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError

TUXPAINT = "tuxpaint-stamps-default"
ASTERISK = "asterisk-core-sounds-en-wav"
ASTERISK_TEXTS = "asterisk-core-sounds-en"
LICENCES = {TUXPAINT: "GPL-2", ASTERISK: "CC-BY-SA-3.0", ASTERISK_TEXTS: "CC-BY-SA-3.0"}
EXPECTED = {"tuxpaint": 107, "asterisk": 568}


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("fetch_sounds.py", description=__doc__)
    parser.add_argument(
        "--out", type=output_directory, required=True, help="folder to write to; not one that git tracks"
    )
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    versions = {}
    for number, package in enumerate(LICENCES, start=1):
        print(f"[{number}/{len(LICENCES)}] {package}", flush=True)
        versions[package] = fetch(package, out)
    write_manifest(out / "tuxpaint.jsonl", tuxpaint_records(out))
    write_manifest(out / "asterisk.jsonl", asterisk_records(out))
    (out / "LICENSES.md").write_text(licences(versions))
    for name, expected in EXPECTED.items():
        report(out / f"{name}.jsonl", expected)
    print(f"Licences: {out / 'LICENSES.md'}")


def fetch(package: str, out: Path) -> str:
    """Download and unpack one Debian package to out/package, unless that is done; returns its version."""
    archives = out / "packages"
    archives.mkdir(exist_ok=True)
    # Packages and folders get their final name when they are whole.
    if not list(archives.glob(f"{package}_*.deb")):
        partial = archives / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        run(["apt-get", "download", package], partial, "run `apt-get update` as root and try again")
        for archive in partial.glob("*.deb"):
            archive.rename(archives / archive.name)
        shutil.rmtree(partial)
    archive = next(archives.glob(f"{package}_*.deb")).resolve()
    if not (out / package).exists():
        unpacked = out / f"{package}.part"
        shutil.rmtree(unpacked, ignore_errors=True)
        run(["dpkg", "-x", str(archive), unpacked.name], out, f"delete {archive} and try again")
        unpacked.rename(out / package)
    return archive.name.removeprefix(f"{package}_").rsplit("_", 1)[0].replace("%3a", ":")


def run(command: list[str], folder: Path, remedy: str) -> None:
    """The program's progress goes to the terminal; its complaints are shown only if it fails."""
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]} was not found; these sounds are Debian packages, get them on Debian or Ubuntu")
    done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line and not line.startswith("W:")]
        complaint = errors[-1] if errors else f"exit status {done.returncode}"
        raise UserError(f"`{' '.join(command)}` failed ({complaint}): {remedy}")


def tuxpaint_records(out: Path) -> Iterator[dict[str, str]]:
    """Every stamp's sound with the English first line of the text beside it.

    Left out: symbols/ (letters, numbers and faces, spoken), spoken descriptions, sounds without a text.
    """
    stamps = out / TUXPAINT / "usr/share/tuxpaint/stamps"
    for sound in sorted([*stamps.rglob("*.ogg"), *stamps.rglob("*.wav")]):
        text = sound.with_suffix(".txt")
        inside = sound.relative_to(stamps)
        if inside.parts[0] == "symbols" or "_desc" in sound.stem or not text.exists():
            continue
        caption = text.read_text(encoding="utf-8").partition("\n")[0].strip()
        name = f"tuxpaint/{inside.with_suffix('')}"
        yield {"audio": str(sound.relative_to(out)), "caption": caption, "id": name}


def asterisk_records(out: Path) -> Iterator[dict[str, str]]:
    """Every prompt that has both a sound and a transcript."""
    sounds = out / ASTERISK / "usr/share/asterisk/sounds/en_US_f_Allison"
    texts = out / ASTERISK_TEXTS / "usr/share/doc" / ASTERISK_TEXTS / "core-sounds-en.txt.gz"
    for line in gzip.decompress(texts.read_bytes()).decode("utf-8").splitlines():
        name, colon, transcript = line.partition(":")
        sound = sounds / f"{name}.wav"
        if colon and not line.startswith(";") and sound.exists():
            caption = asterisk_caption(transcript)
            yield {"audio": str(sound.relative_to(out)), "caption": caption, "id": f"asterisk/{name}"}


def asterisk_caption(transcript: str) -> str:
    """Speech is quoted; a remark in brackets that is all there is describes the sound itself."""
    words = " ".join(transcript.split())
    if remark := re.fullmatch(r"\[(.+)\]|\((.+)\)", words):
        description = (remark[1] or remark[2]).removeprefix("this is ")
        return f"{description[0].upper()}{description[1:]}."
    spoken = re.sub(r"\s*(\[.*?\]|\(.*?\))", "", words).replace('"', "'")
    return f'A voice says: "{spoken}"'


def write_manifest(path: Path, records: Iterator[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def report(path: Path, expected: int) -> None:
    """Read every sound once; say how many there are, how long, and which can not be read."""
    manifest = Manifest(path, sample_rate=16000)
    seconds, unreadable = 0.0, []
    for index in range(len(manifest)):
        try:
            seconds += len(manifest[index].wav) / manifest.sample_rate
        except BadRecord as error:
            unreadable.append(str(error))
    print(f"{path}: {len(manifest) - len(unreadable)} sounds, {seconds / 60:.1f} minutes")
    if len(manifest) != expected:
        print(f"{path}: {len(manifest)} records where {expected} were expected; the package may have changed")
    for problem in unreadable:
        print(problem)


def licences(versions: dict[str, str]) -> str:
    lines = [
        "# Where these sounds come from",
        "",
        "| Debian package | version | licence | copyright file |",
        "|---|---|---|---|",
    ]
    for package, version in versions.items():
        lines.append(f"| {package} | {version} | {LICENCES[package]} | {package}/usr/share/doc/{package}/copyright |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"fetch_sounds: {error}")
