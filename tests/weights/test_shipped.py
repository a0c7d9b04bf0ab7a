"""Models that come with the package are opened by name; whatever is there by that name comes first."""

import pathlib

import pytest

from ualm_jax.errors import UserError
from ualm_jax.weights import shipped


def test_a_name_stands_for_the_folder_in_the_package_unless_there_is_such_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "package")
    (tmp_path / "package" / "soundscript").mkdir(parents=True)
    assert shipped.located("soundscript") == tmp_path / "package" / "soundscript"
    assert shipped.language(shipped.located("soundscript")) == "soundscript-2"
    assert shipped.located("./other") == pathlib.Path("other")
    assert shipped.named(shipped.located("soundscript")) == "soundscript"
    assert shipped.named(pathlib.Path("runs/other")) == "runs/other"
    (tmp_path / "soundscript").mkdir()
    assert shipped.located("soundscript") == pathlib.Path("soundscript")
    assert shipped.language(pathlib.Path("soundscript")) is None


def test_a_package_without_the_model_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="came without the model soundscript; .*make box"):
        shipped.located("soundscript")
