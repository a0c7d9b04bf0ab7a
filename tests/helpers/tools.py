"""The programs in tools/, which are no package and import each other by name."""

import importlib
import pathlib
import sys
from types import ModuleType

_TOOLS = pathlib.Path(__file__).parents[2] / "tools"


def tool(name: str) -> ModuleType:
    sys.path.insert(0, str(_TOOLS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(_TOOLS))
