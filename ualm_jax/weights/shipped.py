"""Models that come with the package and are opened by their names."""

import os
import pathlib

from ualm_jax.buckets import Folder, open_folder
from ualm_jax.errors import UserError

LANGUAGES = {"soundscript": "soundscript-2"}  # what kind of captions each model knows
FOLDER = pathlib.Path(__file__).parents[1] / "shipped"


def located(path: str | os.PathLike) -> Folder:
    """`path`; where there is nothing at it and it is the name of a shipped model, the folder of that.

    Raises UserError for a URL of another kind than gs://BUCKET/PATH, and where the package was installed without the
    model.
    """
    path = open_folder(path)
    if str(path) not in LANGUAGES or path.exists():
        return path
    folder = FOLDER / path
    if not folder.is_dir():
        raise UserError(
            f"This installation of ualm_jax came without the model {path}; install the package from its repository, "
            "or make the model with `make box`."
        )
    return folder


def named(path: Folder) -> str:
    """How others find it, too: the name of a shipped model, of other folders their path."""
    return path.name if path.parent == FOLDER else str(path)


def language(path: Folder) -> str | None:
    """What kind of captions the model in a folder knows, and no others; None for models that are not shipped."""
    return LANGUAGES.get(path.name) if path.parent == FOLDER else None
