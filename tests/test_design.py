"""Rules of the design that a test can keep."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "ray", "vllm", "transformers", "pydicom", "nibabel", "matplotlib", "s3fs")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from raypipe.cli import app;"
        "result = CliRunner().invoke(app, ['--help']);"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules));"
        "print(result.exit_code, loaded)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "0 []"


def test_jobs_are_thin() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        assert len(job.read_text().splitlines()) <= 40, job.name


def test_every_module_says_what_comes_in_and_what_goes_out() -> None:
    for module in (ROOT / "raypipe").rglob("*.py"):
        text = module.read_text()
        assert text.lstrip().startswith('"""'), module
        if len(text.splitlines()) > 80:
            assert "Does not know" in text, f"{module}: the docstring names what it does not know"
