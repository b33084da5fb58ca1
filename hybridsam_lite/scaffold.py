"""`hybridsam new`: a hybrid model, data, tests, a training script and a notebook in a folder of the user's own."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

__all__ = ["new"]

SUFFIX = ".txt"  # of the templates, so that no tool takes them for modules of this package
NAME, CLASS = "my_model", "MyModel"  # in the templates


def new(name: str, folder: Path = Path()) -> Path:
    """Write a hybrid model that runs at once, to be changed into one's own.

    Args:
        name: of the model and its folder: lower-case letters, digits and underscores.
        folder: where the new folder goes.

    Returns:
        The new folder. It appears whole or not at all.

    Raises:
        ValueError: for a name that is no such word.
        FileExistsError: if the folder is there already; nothing in it is changed.

    >>> with tempfile.TemporaryDirectory() as here:
    ...     sorted(path.name for path in new("spring", Path(here)).iterdir())
    ['README.md', 'data.py', 'explore.ipynb', 'model.py', 'test_model.py', 'train.py']
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"a model's name consists of lower-case letters, digits and underscores and begins with a letter, "
            f"got {name!r}; for example: hybridsam new {NAME}"
        )
    target = folder / name
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} is there already and was left as it is; choose another name or folder")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; make it first")
    title = "".join(word.capitalize() for word in name.split("_"))
    made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        for template in sorted(files("hybridsam_lite").joinpath("template").iterdir(), key=lambda file: file.name):
            text = template.read_text(encoding="utf-8").replace(NAME, name).replace(CLASS, title)
            (made / template.name.removesuffix(SUFFIX)).write_text(text, encoding="utf-8")
        made.chmod(0o777 & ~_umask())
        made.rename(target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
