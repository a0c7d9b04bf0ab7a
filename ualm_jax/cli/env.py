"""`ualm env`: versions, devices, and the settings that apply here; what to paste into a bug report."""

import importlib.metadata
import os
import pathlib
import platform

from ualm_jax.cli.arguments import Parser

_DESCRIPTION = """\
Prints versions, devices and the XLA settings that apply on this machine.

  ualm env
  ualm env --config configs/pretrain_7b.py      the GPU settings for this model
"""
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "libtpu", "tokamax", "torch")


def main(argv: list[str]) -> int:
    parser = Parser("ualm env", description=_DESCRIPTION)
    parser.add_argument("--config", default="configs/pretrain_1_5b.py", metavar="FILE", help="whose layers to assume")
    args = parser.parse_args(argv)

    import jax

    import ualm_jax
    from ualm_jax.cli.config_file import load_config
    from ualm_jax.mapping import from_mapping
    from ualm_jax.models.config import Architecture, Execution, layer_bytes
    from ualm_jax.parallel import gpu_flags
    from ualm_jax.parallel.startup import start

    config = load_config(args.config, [])
    architecture = from_mapping(Architecture, config.model.to_dict(), "config.model")
    execution = from_mapping(Execution, config.execution.to_dict(), "config.execution")
    needed = layer_bytes(architecture, execution)
    start(layer_bytes=needed)
    print(f"ualm {ualm_jax.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in _PACKAGES:
        print(f"{package:<18}{_version(package)}")
    card = gpu_flags.architecture()
    if card is not None:
        print(f"GPU architecture  {card}")
    print(f"XLA_FLAGS         {os.environ.get('XLA_FLAGS') or 'none'}")
    level = jax.config.jax_optimization_level
    print(f"optimisation      {'as XLA chooses' if level == 'UNKNOWN' else level}")
    print(f"compiled programs {_kept_programs(jax.config.jax_compilation_cache_dir)}")
    for device in jax.devices():
        limit = (device.memory_stats() or {}).get("bytes_limit")
        memory = f", {limit / 2**30:.1f} GiB for JAX" if limit else ""
        print(f"device {device.id:<11}{device.device_kind} ({device.platform}{memory})")
    if card is None:
        print("\nOn NVIDIA cards a run would start with (one layer's weights are the threshold):")
        version = tuple(int(part) for part in jax.__version__.split(".")[:2])
        for name in sorted({key[0] for key in gpu_flags.TABLE}):
            flags, refused = gpu_flags.merge("", gpu_flags.flags_for(name, version, needed))
            left_out = f"   (refused here: {', '.join(refused)})" if refused else ""
            print(f"  {name}: optimisation {gpu_flags.OPTIMIZATION_LEVEL} {flags}{left_out}")
    return 0


def _kept_programs(folder: str | None) -> str:
    if folder is None:
        return "not kept (UALM_CACHE_DIR=off, no folder to write to, or several CPU devices)"
    sizes = [path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    return f"in {folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
