"""How files are changed: bytes at random, and in the format's own terms, so that a reader's first check is passed."""

from __future__ import annotations

import copy
import functools
import io
import json
import random
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

__all__ = ["ODD", "bomb", "damage", "damage_json", "damage_png", "damage_zip", "rezip"]

TOKENS = (b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\n", b"\r", b"\xc2\x85", b"1e999", b"-1", b"NaN", b"Infinity",
          b"9" * 5000, b"[" * 5000, b'{"a":' * 3000, b"{", b"}", b",", b'"', b"null", b"true", b"../", b"\\u0000",
          b"\\ud800", b"\x1b[31m", b"[/b]", b"=1+1")  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 10**30, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), "", "x", "[/b]",
    "\x00", "\ud800", "é\u2028", "../../x", "9" * 400, [], {}, [1, 2], ["a"], {"a": 1}, [[]], [[0.1, 1]],
    {"steps": 1e300}, "\x1b[2J", "nan", "erm:steps=2", "sam:rho=0.1",
)  # fmt: skip
NAMES = ("../evil", "/evil", "C:\\evil", "a/../../evil", "x\x00y", "n" * 300, "d/" * 150 + "f", "é", ".", "..", "/", "")


def damage(data: bytes, chance: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four changes at random places."""
    for _ in range(chance.randint(1, 4)):
        at, kind = chance.randrange(len(data) + 1), chance.randrange(8)
        end = min(len(data), at + chance.choice((1, 2, 8, 64, 1024)))
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[end:]
        elif kind == 3:
            data = data[:at] + data[at:end] * chance.choice((2, 3, 50)) + data[end:]
        elif kind == 4:
            data = data[:at] + chance.choice(TOKENS) + data[at if chance.random() < 0.5 else end :]
        elif kind == 5:
            data = data[:at] + chance.randbytes(end - at) + data[end:]
        elif kind == 6 and others:
            other = chance.choice(others)
            data = data[:at] + other[chance.randrange(len(other) + 1) :]
        elif kind == 7:
            cut = chance.randrange(len(data) + 1)
            data = data[cut:] + data[:cut] if chance.random() < 0.2 else data + chance.choice(TOKENS)
    return data


def damage_json(value: Any, chance: random.Random) -> str:
    """JSON of a value of which one to three nodes are replaced, removed, doubled or renamed."""
    value, double = copy.deepcopy(value), ""
    for _ in range(chance.randint(1, 3)):
        at = value
        while isinstance(at, (dict, list)) and at:
            keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = chance.choice(keys)
            below = at[key]
            if isinstance(below, (dict, list)) and below and chance.random() < 0.7:
                at = below
                continue
            kind = chance.randrange(6)
            if kind == 0:
                del at[key]
            elif kind == 1 and isinstance(at, dict):
                at[chance.choice(("x", "", "é", "\ud800", str(key) * 2))] = at.pop(key)
            elif kind == 2:
                double = json.dumps(str(key)) + ": 1"
            else:
                at[key] = copy.deepcopy(chance.choice(ODD))
            break
        else:
            value = copy.deepcopy(chance.choice(ODD))
    text = json.dumps(value, ensure_ascii=chance.random() < 0.9)
    if double and text.endswith("}") and len(text) > 2:
        text = f"{text[:-1]}, {double}}}"
    if chance.random() < 0.05:
        text = text.replace('": ', '": ' + chance.choice(("[" * 3000, "9" * 5000, "-", "1e999", "NaN")), 1)
    return text


def rezip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members, with right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, content in members.items():
            made.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return buffer.getvalue()


@functools.cache
def bomb(name: str, size: int) -> bytes:
    """A small archive with one member of `size` zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made, made.open(name, "w") as file:
        for _ in range(size >> 20):
            file.write(bytes(2**20))
    return buffer.getvalue()


def damage_zip(members: dict[str, bytes], chance: random.Random) -> bytes:
    """An archive in which a member is changed, doubled, renamed, linked, packed otherwise, or lies about its size."""
    members, kind = dict(members), chance.randrange(9)
    name = chance.choice(list(members))
    way = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    if kind == 0:
        members[name] = damage(members[name], chance, list(members.values()))
    elif kind == 1:
        members[chance.choice(NAMES) or "z"] = members.pop(name)
    elif kind == 2:
        del members[name]
    elif kind == 3:
        members[name + "/x"] = b"below a file"
    made = bytearray(rezip(members, way))
    if kind in (4, 5):
        buffer = io.BytesIO(bytes(made))
        info = zipfile.ZipInfo(chance.choice((name, *NAMES)) if kind == 4 else name)
        info.external_attr = (chance.choice((stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFREG)) | 0o777) << 16
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as more:
            warnings.simplefilter("ignore")  # of a name that is there twice
            more.writestr(info, chance.choice((b"/etc/passwd", b"../../evil", members[name])))
        made = bytearray(buffer.getvalue())
    elif kind in (6, 7):  # a field of a member's entry in the directory at the end
        at = made.find(b"PK\x01\x02")
        for _ in range(chance.randrange(len(members))):
            at = max(made.find(b"PK\x01\x02", at + 4), at)
        where, form = chance.choice(((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (42, "<I")))
        if at >= 0:
            struct.pack_into(form, made, at + where, chance.choice((0, 1, 2, 8, 9, 12, 99, 2048, 65535)))
            if form == "<I" and chance.random() < 0.5:
                struct.pack_into(form, made, at + where, chance.choice((2**31, 2**32 - 1, 2**30, len(made))))
    elif kind == 8:
        return damage(bytes(made), chance)
    return bytes(made)


def damage_png(data: bytes, chance: random.Random) -> bytes:
    """A PNG file in which one chunk is changed, with right checksums."""
    chunks, at = [], 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    k = chance.randrange(len(chunks))
    name, content = chunks[k]
    if name == b"IHDR" and chance.random() < 0.7:
        wide, high = (chance.choice((0, 1, 8, 9, 60_000, 2**31 - 1, 2**32 - 1)) for _ in range(2))
        content = struct.pack(">II", wide, high) + content[8:]
    else:
        content = damage(content, chance)
    chunks[k] = chance.choice((name, name, b"tEXt", b"iCCP", b"PLTE", b"acTL")), content
    if chance.random() < 0.1:
        chunks[k] = b"zTXt", b"k\x00\x00" + zlib.compress(bytes(2**20))
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return data[:8] + b"".join(parts)
