"""The built page: what the package carries, without a browser."""

import hashlib
import json
import re
from pathlib import Path

import raypipe

VIEWER = Path(raypipe.__file__).parent / "serve" / "viewer"
STATIC = VIEWER / "static"


def test_the_page_is_built_from_the_sources_beside_it() -> None:
    sources = [f"src/{path.name}" for path in (VIEWER / "src").iterdir()]
    content = hashlib.sha256()
    for name in sorted([*sources, "build.mjs", "package.json", "package-lock.json"]):
        held = (VIEWER / name).read_bytes()
        content.update(f"{name}\0{len(held)}\0".encode() + held)
    assert (STATIC / "SOURCE").read_text().strip() == content.hexdigest(), "run `make viewer`"


def test_the_page_names_no_other_host() -> None:
    for path in STATIC.iterdir():
        links = set(re.findall(r"(?:https?|wss?)://[^\s\"'`<>)]+", path.read_text()))
        assert links <= {"http://www.w3.org/2000/svg"}, f"{path.name}: {links}"


def test_markup_is_free_of_scripts_and_styles() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=", page) == []
    assert "not a medical device" in page
    for source in (VIEWER / "src").glob("*.ts"):
        text = source.read_text()
        unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write"
        assert not re.search(unsafe, text), source


def test_every_bundled_package_has_its_licence() -> None:
    told = (STATIC / "LICENSES.txt").read_text()
    lock = json.loads((VIEWER / "package-lock.json").read_text())["packages"]
    wanted = lock["node_modules/@niivue/niivue"]["dependencies"].keys() | {"@niivue/niivue"}
    for name in wanted - {"zarrita"}:  # replaced by src/no_zarr.ts
        version = lock[f"node_modules/{name}"]["version"]
        assert re.search(rf"^{re.escape(name)} {re.escape(version)} \(", told, re.M), name
    assert told.count("WITHOUT WARRANTY OF ANY KIND") + told.count('"AS IS"') >= len(wanted) - 1


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 3_000_000
