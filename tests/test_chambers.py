"""The real data's loading: a small archive in the released layout, served by a local web server."""

import hashlib
import io
import os
import stat
import struct
import sys
import threading
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hybridsam_lite import cli
from hybridsam_lite.tasks import chambers
from hybridsam_lite.tasks.chambers import RealDataError

WIND = f"{chambers.IMPULSES[0]}/{chambers.IMPULSES[1]}.csv"
LIGHT = "{}/{}".format(*chambers.CAMERA)
SIDE = 8


def wind_table(count: int = 4) -> pd.DataFrame:
    """Rows as the released files have them: more columns than needed, times since 1970."""
    generator = np.random.default_rng(0)
    n = 50 * count
    return pd.DataFrame(
        {
            "timestamp": 1.7e9 + np.arange(n) * 0.1548 + np.repeat(np.arange(count), 50) * 2.0,
            "counter": np.arange(1, n + 1),
            "flag": np.repeat(np.arange(count), 50),
            "intervention": 0,
            "hatch": np.repeat(np.round(generator.uniform(0, 45, count), 1), 50),
            "load_in": np.tile(np.repeat([0.01, 1.0, 0.01], [5, 20, 25]), count),
            "load_out": 0.5,
            "pressure_downwind": generator.normal(95_000, 5, n),
            "pressure_ambient": generator.normal(95_000, 1, n),
            "config": "standard",
        }
    )


def csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def camera_members() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    names = ["c.png", "a.png", "b.png"]  # the table's order counts, not the alphabet's
    table = pd.DataFrame({"image_file": names, "red": [255, 1, 2], "green": [3, 4, 5], "blue": [6, 7, 8]})
    table["pol_1"], table["pol_2"] = [-180.0, 0.1, 90.0], [0.0, 10.0, 180.0]
    return {
        f"{LIGHT}/{chambers.CAMERA[1]}.csv": csv(table),
        **{f"{LIGHT}/images_{SIDE}/{n}": png(image) for n, image in zip(names, images, strict=True)},
        f"{LIGHT}/images_100/a.png": b"of another size",
        f"{chambers.CAMERA[0]}/scm_1_red/scm_1_red.csv": b"of another experiment",
    }


class Host:
    """A local web server in place of the data's host, and a list of datasets in place of the package's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cut = 0  # bytes to withhold at the end of each answer
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.requests.append(self.path)
                content = host.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write((content or b"")[: len(content or b"") - host.cut])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.list = ModuleType("causalchamber.datasets")
        self.list.directory = {"datasets": {}}
        monkeypatch.setitem(sys.modules, "causalchamber", ModuleType("causalchamber"))
        monkeypatch.setitem(sys.modules, "causalchamber.datasets", self.list)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def serve(self, dataset: str, content: bytes, md5: str | None = None) -> None:
        path = f"/{dataset}.zip"
        self.files[path] = content
        url = f"http://127.0.0.1:{self.server.server_port}{path}"
        md5 = md5 or hashlib.md5(content, usedforsecurity=False).hexdigest()
        self.list.directory["datasets"][dataset] = {"chamber": "wt", "image": False, "url": url, "md5": md5}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRIDSAM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def host(monkeypatch, cache):
    pytest.importorskip("requests", reason="the download needs requests, a dependency of causalchamber")
    served = Host(monkeypatch)
    yield served
    served.server.shutdown()
    served.server.server_close()


def nothing_kept(cache) -> bool:
    return not cache.exists() or not list(cache.iterdir())


def test_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HYBRIDSAM_DATA", str(tmp_path))
    assert chambers.folder() == tmp_path
    monkeypatch.delenv("HYBRIDSAM_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert chambers.folder() == tmp_path / "hybridsam"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert chambers.folder() == tmp_path / ".cache" / "hybridsam"


def test_origin_names_are_checked():
    assert chambers.origin("real") == "real"
    with pytest.raises(ValueError, match="expected one of: stand-in, real"):
        chambers.origin("reel")


def test_impulses(host, capsys):
    table = wind_table(4)
    host.serve(chambers.IMPULSES[0], archive({WIND: csv(table), f"{chambers.IMPULSES[0]}/load_out_1.csv": b"other"}))
    found = chambers.impulses()
    assert {name: x.shape for name, x in found.items()} == {
        "hatch": (4,),
        **dict.fromkeys(("time", "load_in", "load_out", "pressure_downwind", "pressure_ambient"), (4, 50)),
    }
    assert all(x.flags.writeable for x in found.values())  # or torch.as_tensor warns
    assert found["hatch"].tolist() == table["hatch"][::50].tolist()
    assert found["pressure_downwind"][2, 7] == pytest.approx(table["pressure_downwind"][107], rel=1e-12)
    # Seconds from each impulse's own start; times since 1970 are doubles with a resolution of 2e-7 s.
    np.testing.assert_allclose(found["time"], np.tile(np.arange(50) * 0.1548, (4, 1)), atol=1e-6)
    assert "downloading" in capsys.readouterr().err


def test_camera_images(host, cache):
    members = camera_members()
    host.serve(chambers.CAMERA[0], archive(members))
    found = chambers.camera_images(SIDE)
    assert found["images"].shape == (3, 3, SIDE, SIDE)
    assert found["images"].dtype == np.uint8
    assert all(x.flags.writeable for x in found.values())
    assert found["red"].tolist() == [255, 1, 2]
    assert found["pol_2"].tolist() == [0.0, 10.0, 180.0]
    first = np.asarray(Image.open(io.BytesIO(members[f"{LIGHT}/images_{SIDE}/c.png"])))
    np.testing.assert_array_equal(found["images"][0].transpose(1, 2, 0), first)
    # Of an archive of many experiments and sizes, only what is needed lies on the disk.
    files = {p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file()}
    assert files == {n for n in members if n.startswith(LIGHT) and "images_100" not in n}


def test_second_call_needs_neither_network_nor_package(host, monkeypatch):
    host.serve(chambers.IMPULSES[0], archive({WIND: csv(wind_table())}))
    first = chambers.impulses()
    monkeypatch.setitem(sys.modules, "causalchamber.datasets", None)  # importing it now fails
    again = chambers.impulses()
    assert len(host.requests) == 1
    assert all((first[name] == again[name]).all() for name in first)


def test_missing_package_is_named(monkeypatch, cache):
    monkeypatch.setitem(sys.modules, "causalchamber", None)
    with pytest.raises(RealDataError, match=r'pip install "hybridsam-lite\[chambers\]".*--data stand-in'):
        chambers.impulses()
    assert nothing_kept(cache)


def test_no_network_is_one_line_for_the_command_line(monkeypatch, cache):
    """Importing the package's list asks the network; its error, an OSError, is told with what to do."""

    class Offline:
        def find_spec(self, name, path=None, target=None):
            if name == "causalchamber.datasets":
                raise ConnectionError("HTTPSConnectionPool(host=...): Max retries exceeded with url: ...")

    monkeypatch.setitem(sys.modules, "causalchamber", ModuleType("causalchamber"))
    sys.modules["causalchamber"].__path__ = []
    monkeypatch.delitem(sys.modules, "causalchamber.datasets", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Offline(), *sys.meta_path])
    with pytest.raises(cli.USER_ERRORS, match=r"connect to the internet and repeat.*--data stand-in") as caught:
        chambers.impulses()
    assert isinstance(caught.value, RealDataError)
    assert "\n" not in str(caught.value)
    assert nothing_kept(cache)


def test_a_list_of_datasets_of_another_form(host, cache):
    host.list.directory = "<html>please log in</html>"
    with pytest.raises(RealDataError, match="no usable entry 'wt_intake_impulse_v1'"):
        chambers.impulses()
    assert nothing_kept(cache)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("checksum", "MD5 checksum .* expected 0000"),
        ("truncated", "could not be downloaded"),
        ("missing", "could not be downloaded .*404"),
        ("no zip", "cannot be unpacked"),
        ("other layout", "has no 'wt_intake_impulse_v1/load_out_0.5_osr_downwind_4.csv'"),
    ],
)
def test_bad_downloads_leave_nothing(host, cache, damage, message):
    content = archive({WIND: csv(wind_table())})
    content = {"no zip": b"not an archive", "other layout": archive({"data.csv": b"1"})}.get(damage, content)
    host.serve(chambers.IMPULSES[0], content, md5="0" * 32 if damage == "checksum" else None)
    host.cut = 100 if damage == "truncated" else 0
    if damage == "missing":
        host.files.clear()
    with pytest.raises(RealDataError, match=message):
        chambers.impulses()
    assert nothing_kept(cache)
    # And the next attempt, with the host in order, works.
    host.cut = 0
    host.serve(chambers.IMPULSES[0], archive({WIND: csv(wind_table())}))
    assert len(chambers.impulses()["hatch"]) == 4


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../outside.csv", "points out of its folder"),
        (f"{chambers.IMPULSES[0]}/../../outside.csv", "points out of its folder"),
        ("/etc/outside.csv", "points out of its folder"),
        ("C:/outside.csv", "points out of its folder"),
        ("..\\outside.csv", "points out of its folder"),
        (link(f"{chambers.IMPULSES[0]}/link.csv"), "is a link"),
    ],
)
def test_harmful_archives_are_refused_before_anything_is_written(host, cache, tmp_path, member, message):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(WIND, csv(wind_table()))
        file.writestr(member, "/etc/passwd")
    host.serve(chambers.IMPULSES[0], buffer.getvalue())
    with pytest.raises(RealDataError, match=message):
        chambers.impulses()
    assert nothing_kept(cache)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_absurdly_large_archives_are_refused(host, cache, monkeypatch):
    monkeypatch.setattr(chambers, "LARGEST", 10_000)
    bomb = archive({WIND: b"0" * 10_001})
    assert len(bomb) < 1000
    host.serve(chambers.IMPULSES[0], bomb)
    with pytest.raises(RealDataError, match="10001 bytes to unpack, expected at most 10000"):
        chambers.impulses()
    assert nothing_kept(cache)


def test_an_interrupted_download_leaves_no_dataset(host, cache, monkeypatch):
    host.serve(chambers.IMPULSES[0], archive({WIND: csv(wind_table())}))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chambers, "_unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            chambers.impulses()
    assert nothing_kept(cache)
    assert len(chambers.impulses()["hatch"]) == 4


def test_two_processes_at_once(host, cache, monkeypatch):
    """Whoever comes second takes what the first has put there."""
    host.serve(chambers.IMPULSES[0], archive({WIND: csv(wind_table())}))
    unpack = chambers._unpack

    def slowly(*args):
        unpack(*args)
        os.makedirs(cache / chambers.IMPULSES[0])
        (cache / WIND).write_bytes(csv(wind_table(2)))

    monkeypatch.setattr(chambers, "_unpack", slowly)
    assert len(chambers.impulses()["hatch"]) == 2
    assert [p.name for p in cache.iterdir()] == [chambers.IMPULSES[0]]


def changed(column: str, row: int, value: float) -> pd.DataFrame:
    table = wind_table()
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (wind_table().iloc[:-1], "199 rows are not a multiple of the 50 readings"),
        (wind_table().iloc[1:].iloc[:150], "the flag changes within 3 of 3 impulses, first in number 0"),
        (wind_table().assign(flag=0), "the flag is the same before and in 3 of 4 impulses, first in number 1"),
        (changed("hatch", 120, 46.0), "the hatch moves in 1 of 4 impulses, first in number 2"),
        (changed("timestamp", 60, 0.0), "the time runs backwards in 1 of 4 impulses, first in number 1"),
        (changed("load_in", 4, 1.0), "not 5 readings idle, 20 full and 25 idle in 1 of 4 impulses, first in number 0"),
        (changed("pressure_downwind", 3, np.nan), "200 rows, of which 1 have empty or infinite cells"),
        (changed("pressure_downwind", 3, np.inf), "200 rows, of which 1 have empty or infinite cells"),
        (wind_table().drop(columns="hatch"), "hatch"),
        (wind_table().iloc[:0], "0 rows"),
    ],
)
def test_tables_of_another_form_are_refused(cache, table, message):
    (cache / WIND).parent.mkdir(parents=True)
    (cache / WIND).write_bytes(csv(table))
    with pytest.raises(RealDataError, match=message):
        chambers.impulses()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"no image", "not a readable image"), ("larger", "expected 8 x 8 pixels, got 9 x 9")],
)
def test_images_of_another_form_are_refused(cache, content, message):
    for name, good in camera_members().items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(good)
    path = cache / LIGHT / f"images_{SIDE}" / "b.png"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(png(np.zeros((9, 9, 3), np.uint8)) if content == "larger" else content)
    with pytest.raises(RealDataError, match=message):
        chambers.camera_images(SIDE)


def camera_folder(cache, **changed: bytes) -> None:
    """The images on the disk, as after a download, some of them changed."""
    for name, good in camera_members().items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(good)
    for name, content in changed.items():
        (cache / LIGHT / f"images_{SIDE}" / f"{name}.png").write_bytes(content)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)), "not a readable image"),
        (chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b""), "got 9000 x 9000"),
        (chunk(b"IHDR", b"too short"), "Truncated IHDR"),
        (chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"iCCP", b"x"), "not a readable image"),
    ],
)
def test_images_that_pillow_refuses_in_its_own_ways(cache, content, message):
    """Not as an OSError; one that would be huge is refused by its size, before it is decoded."""
    camera_folder(cache, b=b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(RealDataError, match=rf"b\.png: .*{message}"):
        chambers.camera_images(SIDE)


@pytest.mark.parametrize("name", ["a\x00b.png", "..", "/", "../../secret.png", "9" * 5000])
def test_image_names_that_are_none(cache, name):
    camera_folder(cache)
    path = cache / LIGHT / f"{chambers.CAMERA[1]}.csv"
    path.write_bytes(path.read_bytes().replace(b"a.png", name.encode()))
    with pytest.raises(RealDataError, match="not a readable image") as caught:
        chambers.camera_images(SIDE)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_cannot_be_unpacked_is_one_line(tmp_path, compression):
    """zlib, bz2 and lzma each raise an error of their own."""
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/b.csv", b"1,2\n" * 500)
    content = bytearray(path.read_bytes())
    content[45:60] = b"\xff" * 15
    path.write_bytes(content)
    with pytest.raises(RealDataError, match=r"^the archive cannot be unpacked \(.*\)$"):
        chambers._unpack(path, tmp_path / "into", ["a/b.csv"])
