"""Package definition. `configs/` and `tools/convert_weights/` are part of the package: links in it point to them."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.*)"', (HERE / "ualm_jax" / "__init__.py").read_text()).group(1)

setup(
    name="ualm-jax",
    version=VERSION,
    description="UALM in JAX: one language model that understands and makes audio",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["ualm_jax", "ualm_jax.*"]),
    package_data={"ualm_jax": ["shipped/**/*"], "ualm_jax.evaluate.soundscript": ["lists.json"]},
    install_requires=[
        "absl-py",
        "array-record>=0.8",
        "flax>=0.12.8",
        "grain>=0.2.17",
        "jax>=0.10.2",
        "jaxtyping>=0.3",
        "librosa>=0.11",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "ml-dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12",
        "pydantic>=2.10",
        "pyloudnorm>=0.2",
        "rich>=14",
        "safetensors>=0.5",
        "scipy>=1.13",
        "soundfile>=0.13",
        "soxr>=1.0",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tensorstore>=0.1.84",
        "tokenizers>=0.22",
        "transformers>=5.0",
    ],
    extras_require={
        "beam": ["apache-beam>=2.77"],
        "cuda": ["jax[cuda13]", "tokamax>=0.0.12"],
        "gcs": ["gcsfs>=2026.1", "google-cloud-storage>=3"],
        "hf": ["datasets>=4", "pyarrow>=21"],
        "remote": ["fsspec>=2025.3"],
        "tpu": ["jax[tpu]"],
        "torch": ["torch>=2.6"],
        "test": [
            "beartype>=0.20",
            "datasets>=4",
            "fsspec>=2025.3",
            "gcp-storage-emulator>=2026.7",
            "gcsfs>=2026.1",
            "google-cloud-storage>=3",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "pyarrow>=21",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.15",
            "torch==2.13.0",
        ],
    },
    entry_points={"console_scripts": ["ualm = ualm_jax.cli.main:main"]},
)
