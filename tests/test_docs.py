"""The README says what happens: its commands print what it shows, its examples run, its emitted file is real."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
from pathlib import Path

import pytest

from batchmap import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    """The fenced blocks of one kind."""
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [
    block.partition("\n") for block in blocks("console") if block.startswith("$ batchmap ") and block.count("\n") > 1
]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples in it, as a clone has them, to run in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.needs("torch")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_print_what_the_readme_shows(
    command: tuple[str, str, str], clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, _, shown = command
    assert cli.main(shlex.split(line.removeprefix("$ batchmap "))) == 0
    printed = capsys.readouterr().out
    digits = re.compile(r"\d\.\de-\d\d")  # how far off depends on the processor
    assert digits.sub("~", printed.rstrip()).startswith(digits.sub("~", shown.rstrip()))


@pytest.mark.needs("torch")
def test_the_emitted_file_is_the_one_shown(clone: Path) -> None:
    assert cli.main(["port", "examples/sentiment.h5", "--to", "torch", "--out", "ported"]) == 0
    shown = next(block for block in blocks("python") if block.startswith('"""'))
    assert (clone / "ported/model.py").read_text() == shown


def test_the_readme_has_all_of_these() -> None:
    assert len(COMMANDS) == 2
    assert len(blocks("pycon")) == 2


@pytest.mark.needs("torch")
def test_examples_of_the_readme_run(clone: Path) -> None:
    # Inside a block every blank line belongs to what is printed.
    source = "\n".join(block.replace("\n\n", "\n<BLANKLINE>\n") for block in blocks("pycon"))
    test = doctest.DocTestParser().get_doctest(source, {"__name__": "readme"}, "README", "README.md", 0)
    for example in test.examples:  # how far off the right answer is depends on the processor
        example.want = re.sub(r"computed that way: \S+\)", "computed that way: ...)", example.want)
        if example.exc_msg:
            example.exc_msg = re.sub(r"computed that way: \S+\)", "computed that way: ...)", example.exc_msg)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.attempted >= 10
    assert result.failed == 0
