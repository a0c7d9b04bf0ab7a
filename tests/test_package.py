"""The wheel holds all that the command needs outside of a checkout."""

import pathlib
import re
import subprocess
import sys
import zipfile

import ualm_jax

ROOT = pathlib.Path(__file__).parents[1]


def test_the_wheel_holds_configs_and_converters(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"ualm_jax-{ualm_jax.__version__}")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for config in (ROOT / "configs").glob("*.py"):
        assert f"ualm_jax/configs/{config.name}" in names
    for module in (ROOT / "tools" / "convert_weights").glob("*.py"):
        assert f"ualm_jax/convert_weights/{module.name}" in names
    for module in (ROOT / "ualm_jax").rglob("*.py"):
        assert str(module.relative_to(ROOT)) in names
    assert not any(name.startswith(("tests/", "tools/", "configs/")) for name in names)
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        assert "ualm = ualm_jax.cli.main:main" in archive.read(entry_points).decode()


def test_every_path_that_the_architecture_page_names_is_there():
    """Words in backticks that hold a slash or end with .py, relative to the package, or to the checkout."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    words = set(re.findall(r"`([a-z_0-9/.]+)`", page))
    paths = {word for word in words if "/" in word or word.endswith(".py")}
    rooms = {"raw/", "prepare/", "dataset/", "loading/"}  # of data/

    def exists(path: str) -> bool:
        module = path.rsplit("/", 1)[0] + "/" + path.rsplit("/", 1)[-1].split(".")[0] if "/" in path else path
        return any(
            (base / name).exists()
            for base in (ROOT / "ualm_jax", ROOT)
            for name in (path, f"{path}.py", f"{module}.py", module)
        )

    assert len(paths) > 40 and not {path for path in paths - rooms if not exists(path)}
