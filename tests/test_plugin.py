"""A framework from outside, found by its entry point, is one like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where the plug-in is installed."""
    path = os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", "import batchmap as bm\n" + code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("print(bm.frameworks()['acme'].title)", "Acme"),
        ("print(bm.explain('bunch', 'acme').senses[0].canonical)", "cases"),
        (
            "print(bm.translate('SimpleRNN(5, return_sequences=True)', 'keras', 'acme', features=3).text)",
            "acme.Loop(5)",
        ),
        ("print(bm.translate('acme.Loop(5, shift=False)', 'acme', 'torch', features=3).text)", None),
        ("print(bm.translate({'bunch': 16}, 'acme', 'keras').text)", "fit(batch_size=16)"),
        ("print([s.name for s in bm.support() if s.name == 'acme'])", "['acme']"),
    ],
)
def test_a_plug_in_is_one_like_any_other(code: str, printed: str | None) -> None:
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert printed is None or done.stdout.strip() == printed


def test_a_broken_plug_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("FRAMEWORK = 'nothing'\n")
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[batchmap.frameworks]\nbroken = broken:FRAMEWORK\n")
    done = subprocess.run(
        [sys.executable, "-c", "import batchmap as bm; bm.explain('x', 'broken')"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the plug-in 'broken' gives 'nothing', which is no Framework" in done.stderr
