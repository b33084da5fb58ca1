"""The real data of the two tunnels (Causal Chambers): fetched once, verified, unpacked safely, kept in a cache.

The PyPI package `causalchamber` knows where a dataset lies and the checksum of its archive; nothing else of it is
used, and it is imported only to download. An archive holds many experiments: only the one that a task needs is
unpacked. Source, CC BY 4.0: Gamella, Bühlmann and Peters, Causal chambers as a real-world physical testbed for AI
methodology, Nature Machine Intelligence 2025 (arXiv 2404.11341).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
import textwrap
import warnings
import zipfile
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hybridsam_lite.methods import nearest

__all__ = ["ORIGINS", "RealDataError", "camera_images", "folder", "impulses", "note", "origin"]

ORIGINS = ("stand-in", "real")
LARGEST = 4 * 2**30  # bytes unpacked from one archive; the experiments used here need less than a tenth of it
TIMEOUT = 30  # s without an answer

IMPULSES = ("wt_intake_impulse_v1", "load_out_0.5_osr_downwind_4")
READINGS = 50  # of one impulse: 5 idle, 20 at full load, 25 idle
FULL_LOAD = (np.arange(READINGS) >= 5) & (np.arange(READINGS) < 25)
CAMERA = ("lt_camera_v1", "uniform_ap_1.8_iso_500.0_ss_0.005")

Arrays = dict[str, NDArray[Any]]


class RealDataError(OSError):
    """The real data cannot be had, or is not what it should be; the message says what to do."""


def origin(data: str) -> str:
    """Check the name of a source of data: "stand-in" (simulated, needs no network) or "real".

    >>> origin("stand-in")
    'stand-in'
    """
    if data not in ORIGINS:
        raise ValueError(f"unknown data {data!r}{nearest(data, ORIGINS)}; expected one of: {', '.join(ORIGINS)}")
    return data


def note(task: str, data: str) -> str:
    """What a task says about the source of its data.

    >>> note("wind_tunnel", "stand-in")
    'using the simulated stand-in; to use the real data run `hybridsam run wind_tunnel --data real`'
    """
    if origin(data) == "real":
        return "real data: Causal Chambers, Gamella et al. 2025, CC BY 4.0"
    return f"using the simulated stand-in; to use the real data run `hybridsam run {task} --data real`"


def folder() -> Path:
    """Where downloaded data is kept: HYBRIDSAM_DATA, or hybridsam in XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("HYBRIDSAM_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "hybridsam"


def impulses() -> Arrays:
    """The wind tunnel's pressure curves, one fan impulse each (experiment load_out_0.5_osr_downwind_4).

    The file has one row per reading, and 50 rows in a row are an impulse. That is checked, not assumed: `flag` (the
    impulse's number) and `hatch` must be constant in each impulse, `flag` must differ between neighbours, `timestamp`
    must not run backwards, and the intake load must be idle for 5 readings, full for 20 and idle for 25.

    Returns:
        hatch (impulse,) in degrees; load_in, load_out, pressure_downwind and pressure_ambient (Pa), each (impulse, 50);
        time (impulse, 50) in seconds from the impulse's first reading.

    Raises:
        RealDataError: the data cannot be had, or is not of this form.
    """
    dataset, experiment = IMPULSES
    file = _cached(dataset, f"{experiment}.csv") / f"{experiment}.csv"
    readings = ("load_in", "load_out", "pressure_downwind", "pressure_ambient")
    table = _read_table(file, (*readings, "hatch", "timestamp", "flag"))
    if len(table) % READINGS:
        raise _unexpected(file, f"{len(table)} rows are not a multiple of the {READINGS} readings of an impulse")
    cut = {name: table[name].to_numpy(float, copy=True).reshape(-1, READINGS) for name in table}
    flag, hatch, time = cut["flag"], cut["hatch"], cut["timestamp"]
    wrong = {
        "the flag changes within": (flag != flag[:, :1]).any(1),
        "the flag is the same before and in": np.append(False, flag[1:, 0] == flag[:-1, 0]),
        "the hatch moves in": np.ptp(hatch, axis=1) > 0.05,
        "the time runs backwards in": (np.diff(time) < 0).any(1),
        "the intake load is not 5 readings idle, 20 full and 25 idle in": ((cut["load_in"] > 0.5) != FULL_LOAD).any(1),
    }
    for what, where in wrong.items():
        if where.any():
            raise _unexpected(file, f"{what} {where.sum()} of {len(flag)} impulses, first in number {where.argmax()}")
    return {"hatch": hatch[:, 0], "time": time - time[:, :1], **{name: cut[name] for name in readings}}


def camera_images(side: int = 64) -> Arrays:
    """The light tunnel's images and settings (experiment uniform_ap_1.8_iso_500.0_ss_0.005).

    Returns:
        images (image, 3, side, side) of bytes; red, green, blue (image,) from 0 to 255; pol_1, pol_2 (image,) in
        degrees.

    Raises:
        RealDataError: the data cannot be had, or is not of this form.
    """
    from PIL import Image

    dataset, experiment = CAMERA
    inside = _cached(dataset, f"{experiment}/{experiment}.csv", f"{experiment}/images_{side}/") / experiment
    file = inside / f"{experiment}.csv"
    settings = ("red", "green", "blue", "pol_1", "pol_2")
    table = _read_table(file, settings, text="image_file")
    images = np.empty((len(table), 3, side, side), np.uint8)
    for i, name in enumerate(tqdm(table["image_file"], desc="reading images", unit="image", leave=False)):
        path = inside / f"images_{side}" / Path(name).name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(path)
            with image:
                size = image.size
                pixels = np.asarray(image.convert("RGB")) if size == (side, side) else None  # a huge one is not decoded
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise _unexpected(path, f"not a readable image ({error})") from error
        if pixels is None:
            raise _unexpected(path, f"expected {side} x {side} pixels, got {size[0]} x {size[1]}")
        images[i] = pixels.transpose(2, 0, 1)
    return {"images": images, **{name: table[name].to_numpy(float, copy=True) for name in settings}}


def split(every: Arrays, counts: tuple[int, ...]) -> list[Arrays]:
    """Parts of these sizes, drawn without replacement and always alike.

    >>> [len(part["x"]) for part in split({"x": np.arange(10)}, (5, 2, 3))]
    [5, 2, 3]
    """
    total = len(next(iter(every.values())))
    if total < sum(counts):
        raise RealDataError(f"the real data has {total} samples, expected at least {sum(counts)}")
    order = np.random.default_rng(0).permutation(total)
    cuts = np.split(order[: sum(counts)], np.cumsum(counts)[:-1])
    return [{name: values[cut] for name, values in every.items()} for cut in cuts]


def _read_table(file: Path, columns: tuple[str, ...], text: str | None = None) -> pd.DataFrame:
    """The named columns of a CSV file, numbers but for the one of `text`."""
    wanted = [*columns, text] if text else [*columns]
    try:
        table = pd.read_csv(file, usecols=wanted, dtype={c: str if c == text else float for c in wanted})
    except (OSError, ValueError) as error:
        raise _unexpected(file, str(error)) from error
    bad = table.isin([np.inf, -np.inf]) | table.isna()
    if table.empty or bad.any(axis=None):
        raise _unexpected(file, f"{len(table)} rows, of which {bad.any(axis=1).sum()} have empty or infinite cells")
    return table[wanted]


def _unexpected(path: Path, what: str) -> RealDataError:
    what = textwrap.shorten(what, 200)
    return RealDataError(f"{path!s:.600}: {what}; if the file was changed, delete {folder()} to download it again")


def _cached(dataset: str, *members: str) -> Path:
    """The dataset's folder in the cache, downloaded if it is not there.

    It appears there complete or not at all: everything happens in a temporary folder that is renamed at the end.

    Args:
        dataset: name of the dataset, which is also the archive's top folder.
        members: files, and folders with a slash at their end, to be unpacked.
    """
    target = folder() / dataset
    if target.is_dir():
        return target
    try:
        folder().mkdir(parents=True, exist_ok=True)
        url, checksum = _lookup(dataset)
        with tempfile.TemporaryDirectory(dir=folder(), prefix=".download-", ignore_cleanup_errors=True) as scratch:
            archive = Path(scratch) / "archive.zip"
            _download(url, archive, checksum)
            _unpack(archive, Path(scratch), [f"{dataset}/{name}" for name in members])
            try:
                (Path(scratch) / dataset).rename(target)
            except OSError:
                if not target.is_dir():  # if it is, another process was faster
                    raise
    except RealDataError:
        raise
    except OSError as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 160)
        raise RealDataError(
            f"the real data {dataset!r} is not in {folder()} and could not be downloaded ({reason}); connect to the "
            "internet and repeat, set HYBRIDSAM_DATA to a folder that has it, or use the stand-in: --data stand-in"
        ) from error
    return target


def _lookup(dataset: str) -> tuple[str, str]:
    """URL and MD5 checksum of a dataset's archive; importing the package's list of them asks the network for it."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints
            from causalchamber.datasets import directory
        entry = directory["datasets"][dataset]
        return str(entry["url"]), str(entry["md5"])
    except ImportError as error:
        raise RealDataError(
            f'the real data needs the package causalchamber ({error}): pip install "hybridsam-lite[chambers]"; '
            "or use the stand-in: --data stand-in"
        ) from error
    except OSError:
        raise  # no network, which the caller explains
    except Exception as error:  # whatever else a page that is not the list may cause
        raise RealDataError(f"causalchamber's list of datasets has no usable entry {dataset!r} ({error!r})") from error


def _download(url: str, path: Path, checksum: str) -> None:
    """Download to `path`, with a progress bar, and compare with the MD5 checksum."""
    import requests  # comes with causalchamber

    digest = hashlib.md5(usedforsecurity=False)  # against damage; the archive's content is checked in _unpack
    with requests.get(url, stream=True, timeout=TIMEOUT) as response, path.open("wb") as file:
        response.raise_for_status()
        size = int(response.headers.get("content-length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=f"downloading {url.rsplit('/', 1)[-1]}") as bar:
            for block in response.iter_content(2**20):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
    if digest.hexdigest() != checksum:
        raise RealDataError(
            f"the download of {url} is damaged or was changed: {path.stat().st_size} bytes with MD5 checksum "
            f"{digest.hexdigest()}, expected {checksum}; nothing was kept, repeat the command"
        )


def _unpack(archive: Path, into: Path, wanted: list[str]) -> None:
    """Unpack the wanted members of a zip archive, after all of its members were found harmless."""
    try:
        with zipfile.ZipFile(archive) as content:
            chosen = []
            for member in content.infolist():
                path = PureWindowsPath(member.filename)  # knows the separators and roots of all systems
                kind = stat.S_IFMT(member.external_attr >> 16)
                if path.drive or path.root or ".." in path.parts:
                    raise RealDataError(f"the archive was refused: {member.filename!r} points out of its folder")
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise RealDataError(f"the archive was refused: {member.filename!r} is a link or a special file")
                if any(member.filename == w or (w.endswith("/") and member.filename.startswith(w)) for w in wanted):
                    chosen.append(member)
            size = sum(member.file_size for member in chosen)
            if size > LARGEST:
                raise RealDataError(f"the archive was refused: {size} bytes to unpack, expected at most {LARGEST}")
            for w in wanted:
                if not any(m.filename == w or (m.filename.startswith(w) and not m.is_dir()) for m in chosen):
                    raise RealDataError(f"the archive has no {w!r}; expected the layout of the released datasets")
            content.extractall(into, chosen)
    except RealDataError:
        raise
    except Exception as error:  # a damaged archive raises many kinds, which differ between versions of Python
        raise RealDataError(f"the archive cannot be unpacked ({error!s:.200})") from error
