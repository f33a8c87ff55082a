"""What is in the installed package besides its code: the notices of others, the names it exports, what it asks for."""

import importlib.metadata
import json
import platform
import re
import struct
import sys
import tomllib
from pathlib import Path

import pytest

import _cmrcz
from _cmrcz import chunk

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTION = importlib.metadata.distribution("mrcz")
EDITABLE = json.loads(DISTRIBUTION.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable", False)
BUNDLED = chunk.versions()["blosclz_encoder"]  # the system's C-Blosc2 exports none

#: notice -> what must be in it: whose it is, and the terms that bind whoever passes the binary on
NOTICES = {
    "zstd.txt": ("Meta Platforms", "Redistributions in binary form must reproduce"),
    "lz4.txt": ("Yann Collet", "Redistributions in binary form must reproduce"),
    "xxhash.txt": ("Yann Collet", "Redistributions in binary form must reproduce"),
    "zlib-ng.txt": ("Jean-loup Gailly", "source versions must be plainly marked as such"),
    "bitshuffle.txt": ("Kiyoshi Masui", "shall be included in"),
    "LICENSE": ("mrcz", "Redistributions in binary form must reproduce"),
}


def installed(name: str) -> list[Path]:
    """Files of that name in the licence folders of the installed package."""
    return [Path(f.locate()) for f in DISTRIBUTION.files or () if f.name == name and "licenses" in f.parts]


@pytest.mark.parametrize("name", NOTICES)
def test_notices_are_whole(name):
    source = ROOT / name if name == "LICENSE" else ROOT / "licenses" / name
    (file,) = installed(name)
    text = file.read_text(encoding="utf-8")
    assert text == source.read_text(encoding="utf-8")
    words = re.sub(r"\s+", " ", text)
    assert all(part in words for part in NOTICES[name])


def test_every_notice_of_the_source_is_installed():
    assert {path.name for path in (ROOT / "licenses").iterdir()} == set(NOTICES) - {"LICENSE"}


@pytest.mark.skipif(EDITABLE or not BUNDLED, reason="comes with the static library, and not into an editable install")
def test_the_notice_of_c_blosc2_comes_from_its_own_package():
    (file,) = installed("LICENSE.txt")
    words = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
    assert "Blosc" in words and "Redistributions in binary form must reproduce" in words


def extensions() -> list[Path]:
    """The compiled modules; in an editable install they are where the first one was found."""
    files = sorted(Path(chunk.__file__).parent.glob("*.so"))
    assert len(files) >= 9, "not all modules of the core were found"
    return files


def elf(path: Path) -> tuple[set[str], set[str]]:
    """Names that an ELF library of 64 bits, little-endian, gives to others, and libraries that it asks for."""
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01"
    start, size, count = *struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + k * size) for k in range(count)]

    def name(table: int, at: int) -> str:
        begin = sections[table][4] + at
        return data[begin : data.index(b"\0", begin)].decode()

    given, asked = set(), set()
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind == 11:  # SHT_DYNSYM: name, info, other, section, value, size
            for k in range(0, length, 24):
                at, _, _, section = struct.unpack_from("<IBBH", data, offset + k)
                if section:  # defined here
                    given.add(name(link, at))
        elif kind == 6:  # SHT_DYNAMIC
            for k in range(0, length, 16):
                tag, value = struct.unpack_from("<qQ", data, offset + k)
                if tag == 1:  # DT_NEEDED
                    asked.add(name(link, value))
    return given, asked


@pytest.mark.skipif(
    sys.platform != "linux" or sys.byteorder != "little" or platform.architecture()[0] != "64bit",
    reason="reads ELF of 64 bits",
)
def test_modules_export_their_entry_alone_and_ask_for_the_c_library_alone():
    """Not one name of blosc, zstd, lz4 or zlib: another copy of them in the process is neither seen nor disturbed."""
    for path in extensions():
        given, asked = elf(path)
        assert given - {"_init", "_fini"} == {f"PyInit_{path.name.split('.')[0]}"}, path.name
        theirs = {re.split(r"[.-]", library)[0] for library in asked}
        allowed = {"libc", "libm", "libpthread", "ld", "libgcc_s"}
        if not BUNDLED and path.name.startswith("chunk"):
            allowed |= {"libzstd", "liblz4", "libz", "libblosc2"}
        if not {"libasan", "libubsan"} & theirs:  # a sanitized build asks for more
            assert theirs <= allowed, path.name


@pytest.mark.skipif(EDITABLE, reason="an editable install is of one Python")
def test_the_tags_of_the_wheel_say_which_pythons_its_modules_are_for():
    tags = re.findall(r"^Tag: (\S+)$", DISTRIBUTION.read_text("WHEEL"), re.M)
    limited = {
        path.name.endswith((".abi3.so", ".pyd")) and ".cp" not in path.name
        for path in Path(_cmrcz.__file__).parent.glob("*.*")
        if path.suffix in (".so", ".pyd")
    }
    assert len(limited) == 1, "modules of one Python beside modules of all"
    python, abi, _ = tags[0].split("-")
    if limited == {True}:
        assert (python, abi) == ("cp311", "abi3")
    else:
        assert abi.startswith(python) and python == f"cp{sys.version_info[0]}{sys.version_info[1]}"


def test_the_recipe_for_conda_asks_for_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    recipe = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    assert f"\n  version: {project['project']['version']}\n" in recipe
    asked = {*project["project"]["dependencies"], *project["build-system"]["requires"]}
    # blosc2 is pinned for its static library, which such a build does not take
    for requirement in (r for r in asked if not r.startswith("blosc2==")):
        name, least = re.fullmatch(r"([\w-]+)(>=.*)", requirement).groups()
        assert re.search(rf"^ +- {name}(-python)? {re.escape(least)}$", recipe, re.M), requirement
