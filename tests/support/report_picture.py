"""Rewrites docs/pictures/report.png and the example in README.md from a fresh demonstration.

Run it after the model, the report or the analyze command changed: `PYTHONPATH=tests
python -m support.report_picture`. Needs chromium and pdftoppm (Debian: chromium, poppler-utils).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import data_store
from PIL import Image, ImageOps

from support.repository import ROOT

_RESOLUTION = 120  # dots per inch
_MARGIN = 40  # pixels kept under the last line
_CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",
]
_EXAMPLE = re.compile(r"(```console\n\$ \S+ (analyze [^\n]*)\n).*?\n```", re.DOTALL)


def main() -> None:
    """Run the demonstration, print its report, keep page one; run the example."""
    chromium, pdftoppm = _program("chromium"), _program("pdftoppm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = [sys.executable, "-m", "bedside_edge.demo", "--out", str(folder)]
        subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
        pdf, page = folder / "report.pdf", folder / "page"
        where = [f"--user-data-dir={folder / 'browser'}", f"--print-to-pdf={pdf}"]
        printing = [chromium, *_CHROMIUM, *where, (folder / "report.html").as_uri()]
        subprocess.run(printing, check=True, stderr=subprocess.DEVNULL)
        subprocess.run([pdftoppm, "-r", str(_RESOLUTION), "-png", str(pdf), str(page)], check=True)
        pages = sorted(folder.glob("page-*.png"))
        if len(pages) != 1:
            sys.exit(f"the report needs {len(pages)} pages, not one")
        _picture(pages[0]).save(ROOT / "docs" / "pictures" / "report.png", optimize=True)
        _example(folder)


def _picture(page: Path) -> Image.Image:
    """Return the page without its empty end, in 256 colours."""
    with Image.open(page) as opened:
        image = opened.convert("RGB")
    content = ImageOps.invert(image.convert("L")).getbbox()
    if content is None:
        sys.exit("the report is blank")
    image = image.crop((0, 0, image.width, min(image.height, content[3] + _MARGIN)))
    framed = ImageOps.expand(image, 1, (200, 206, 212))
    palette = framed.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    return framed.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _example(folder: Path) -> None:
    """Run README's analyze example on the sample radiographs and write down what it printed."""
    samples = Path(data_store.__file__).parent / "data"
    shutil.copy(samples / "RG1_J2KR.dcm", folder / "chest.dcm")
    shutil.copy(samples / "RG3_UNCR.dcm", folder / "extremity.dcm")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    found = _EXAMPLE.search(text)
    if found is None:
        sys.exit("README.md has no example to rewrite")
    command = [str(Path(sys.executable).with_name("bedside-edge")), *found[2].split()]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"COLUMNS": "96"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 3:
        sys.exit(f"the example ended with {done.returncode}, README says 3\n{done.stderr}")
    lines = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    example = f"{found[1]}{lines}\n```"
    readme.write_text(text[: found.start()] + example + text[found.end() :], encoding="utf-8")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"needs {name}")
    return found


if __name__ == "__main__":
    main()
