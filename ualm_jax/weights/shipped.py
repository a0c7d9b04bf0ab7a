"""Models that come with the package and are opened by their names."""

import os
import pathlib

from ualm_jax.errors import UserError

NAMES = ("soundscript",)
_FOLDER = pathlib.Path(__file__).parents[1] / "shipped"


def located(path: str | os.PathLike) -> pathlib.Path:
    """`path`; where there is nothing at it and it is the name of a shipped model, the folder of that.

    Raises UserError where the package was installed without the model.
    """
    path = pathlib.Path(path)
    if path.exists() or str(path) not in NAMES:
        return path
    folder = _FOLDER / path
    if not folder.is_dir():
        raise UserError(
            f"This installation of ualm_jax came without the model {path}; install the package from its repository, "
            "or make the model with `make box`."
        )
    return folder
