"""The command line: what is printed where, in which form, and the exit status."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import batchmap
from batchmap import cli, terminal
from batchmap.cli import main

ROOT = Path(__file__).parents[1]
SENTIMENT = str(ROOT / "examples/sentiment.h5")
LSTM = "LSTM(64, return_sequences=True)"
GRU = "GRU(6, reset_after=False)"
TO_TORCH = ("--from", "keras", "--to", "torch", "--features", "8")
DEEPSPEED = ("--from", "deepspeed", "--to", "transformers", "--replicas", "8")
TRANSLATED = "nn.LSTM(8, 64, batch_first=True)\n"
TRAINING = "per_device_train_batch_size=16, gradient_accumulation_steps=4"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Outcome:
    """What one command gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def data(self) -> Any:
        """Its output, read as JSON by the letter."""

        def refuse(constant: str) -> NoReturn:
            raise AssertionError(f"{constant} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process."""

    def run(*argv: str, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(list(argv))
        return Outcome(status, *capsys.readouterr())

    return run


def start(*argv: str, **options: Any) -> subprocess.Popen[Any]:
    """Starts a command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "batchmap", *argv],
        env=environment,
        **{"text": True, **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), **options},
    )


# ---- results


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["explain", "batch_size"], "batch_size means different things:\n"),
        (["explain", "batch_size", "--in", "deepspeed"], "train_batch_size (DeepSpeed config)\n"),
        (["explain", "--bptt"], "--bptt means window: "),
        (["explain", "-seq_length", "--in", "char_rnn"], "-seq_length (char-rnn"),
        (["translate", LSTM, *TO_TORCH], TRANSLATED),
        (["translate", LSTM, *TO_TORCH[:4], "features=8"], TRANSLATED),
        (["translate", *TO_TORCH[:4], LSTM, "features=8"], TRANSLATED),
        (["translate", "--from=keras", LSTM, "--to=torch", "features=8"], TRANSLATED),
        (["translate", '{"batch_size": 20}', "--from", "keras", "--to", "torch"], "DataLoader(batch_size=20)"),
        (["batch", "train_batch_size=512", "gradient_accumulation_steps=4", *DEEPSPEED], TRAINING),
        (["batch", "train_batch_size=512", *DEEPSPEED, "gradient_accumulation_steps=4"], TRAINING),
        (["batch", "train_batch_size=512", *DEEPSPEED, "--accumulation", "4"], TRAINING),
        (["shapes", LSTM, "--from", "keras", "--features", "8", "--cases", "4"], "-> 4 x ? x 64\n"),
        (["shapes", LSTM, *TO_TORCH, "--sequence-length", "20"], "\n  weight_ih_l0  "),
        (["support"], "PyTorch"),
        (["--version"], f"batchmap {batchmap.__version__}\n"),
        ([], "commands:\n  explain    what a word means, in every tool or in one\n"),
        (["port", "--help"], "usage: batchmap port "),
        (["verify", "--help"], "model.py is run; files are read as data."),
    ],
)
def test_prints(run: Any, argv: list[str], expected: str) -> None:
    outcome = run(*argv)
    assert expected in outcome.out
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("argv", "stdin", "expected"),
    [
        (["translate", "-", *TO_TORCH], LSTM + "\n", TRANSLATED),
        (["translate", "-", "--from", "keras", "--to", "torch"], '{"batch_size": 20}', "batch_size=20"),
        (["shapes", "-", *TO_TORCH], LSTM, "cases ?, time ?, features 8"),
        (
            ["batch", "-", *DEEPSPEED],
            '{"train_batch_size": 512, "gradient_accumulation_steps": 4}',
            TRAINING,
        ),
        (
            ["batch", "-", *DEEPSPEED],
            "# a plan\ntrain_batch_size = 512\n\ngradient_accumulation_steps=4",
            TRAINING,
        ),
        (["batch", "gradient_accumulation_steps=4", "-", *DEEPSPEED], "train_batch_size=512", TRAINING),
    ],
)
def test_reads_standard_input(run: Any, argv: list[str], stdin: str, expected: str) -> None:
    outcome = run(*argv, stdin=stdin)
    assert expected in outcome.out
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["explain", "batch_size", "--in", "deepspeed"], "framework", "deepspeed"),
        (["translate", LSTM, *TO_TORCH], "parts", {"layer": TRANSLATED.strip()}),
        (["batch", "train_batch_size=512", *DEEPSPEED, "--accumulation=4"], "left_out", {}),
        (["shapes", LSTM, *TO_TORCH], "x", [("cases", None), ("time", None), ("features", 8)]),
    ],
)
def test_prints_json(run: Any, argv: list[str], name: str, value: Any) -> None:
    outcome = run(*argv, "--json")
    found = outcome.data[name]
    if argv[0] == "shapes":
        found = [(axis["axis"], axis["size"]) for axis in found]
    assert found == value
    assert (outcome.status, outcome.err) == (0, "")


def test_support_as_json(run: Any) -> None:
    assert "torch" in [entry["name"] for entry in run("support", "--json").data]


def test_says_what_to_type_here(run: Any) -> None:
    """What callers from Python are told is told for the command line."""
    typed = run("explain", "hidden_size").out.splitlines()[-1].removeprefix("More: ")
    assert run(*typed.split()[1:]).status == 0
    assert "Instead: batchmap port spells the cell out; " in run("translate", GRU, *TO_TORCH).err


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ('More: bm.explain("size", "keras")', "More: batchmap explain size --in keras"),
        ('bm.explain("size") for what it means', "batchmap explain size for what it means"),
        ("bm.port(..., native_only=False) spells it out", "batchmap port spells it out"),
        ("bm.port('a.json', framework, weights='w.h5')", "batchmap port a.json --weights w.h5 --to ... --out ported"),
        ("bm.verify(file, folder) compares the two", "batchmap verify compares the two"),
        ('allow=("carried_state",) if', "--allow carried_state if"),
        ('allow=("dropout", "recurrent_dropout") if', "--allow dropout --allow recurrent_dropout if"),
        ("give it together with the weights: weights=...", "give it together with the weights: --weights FILE"),
        ('padding="any" (--padding any) writes', "--padding any writes"),
        ("give another out, or overwrite=True", "give another out, or --overwrite"),
        ("bm.write(model, framework)", "bm.write(model, framework)"),
    ],
)
def test_spellings(text: str, typed: str) -> None:
    assert cli._spelled(text) == typed


# ---- errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prot"], "Usage: argument COMMAND: invalid choice: 'prot'"),
        (["--nonsense"], "Usage: unrecognized arguments: --nonsense.\n  Instead: batchmap [-h]"),
        (["explain"], "Usage: the following arguments are required: WORD.\n  Instead: batchmap explain [-h]"),
        (["explain", "a", "b"], "Usage: unrecognized arguments: b."),
        (["explain", "units", "--in"], "Usage: argument --in: expected one argument."),
        (["explain", "units", "--in", "kers"], '"kers" is no framework or tool that batchmap knows. Did you '),
        (["translate", LSTM, "--from", "keras"], "Usage: the following arguments are required: --to."),
        (["translate", LSTM, *TO_TORCH, "--nonsense", "a=1"], "unrecognized arguments: --nonsense a=1."),
        (["translate", LSTM, *TO_TORCH, "dtype"], 'Usage: "dtype" is no WORD=VALUE.\n  Instead: for example '),
        (["translate", LSTM, *TO_TORCH, "=8"], 'Usage: "=8" is no WORD=VALUE.'),
        (["translate", LSTM, *TO_TORCH, "features=9"], "Usage: features is given twice.\n  Instead: leave one"),
        (["translate", "-", *TO_TORCH], "Usage: standard input is empty."),
        (["translate", '{"a": }', *TO_TORCH], "Usage: the words are no JSON: Expecting value"),
        (["translate", '{"a":' * 9999, *TO_TORCH], "Usage: the words are no JSON: "),
        (["translate", '{"a": 1, "a": 2}', *TO_TORCH], "Usage: a is given twice."),
        (["translate", LSTM, "--from", "keras", "--to", "PyTorch"], "Did you mean torch?"),
        (["batch", "a=[mean, sum]", *DEEPSPEED], "Usage: [mean, sum] is no JSON: Expecting value"),
        (["batch", "a=1", "a=2", *DEEPSPEED], "Usage: a is given twice."),
        (["batch", "a=1", *DEEPSPEED, "--steps", "x"], "Usage: argument --steps: invalid int value: 'x'."),
        (["port", "-", "--to", "torch", "--out", "x"], "a model is read from a file, not from standard input."),
        (["port", SENTIMENT, "--to", "torch"], "Usage: the following arguments are required: --out."),
        (["port", "a", "--to=torch", "--out=x", "--padding=left"], "argument --padding: invalid choice: 'left'"),
        (["verify", "a", "b", "--tolerance", "far"], 'argument --tolerance: "far" is no distance; 1e-5 is one.'),
        (["verify", "a", "b", "--tolerance", "-1"], 'argument --tolerance: "-1" is no distance; 1e-5 is one.'),
        (["verify", "a", "b", "--tolerance", "nan"], 'argument --tolerance: "nan" is no distance; 1e-5 is one.'),
    ],
)
def test_usage(run: Any, argv: list[str], message: str) -> None:
    outcome = run(*argv)
    assert message in outcome.err
    assert (outcome.status, outcome.out) == (2, "")
    assert {"class", "what", "because", "instead", "fields"} == set(run(*argv, "--json").data["error"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["explain", "batch_sise"], 'UnknownWord: "batch_sise" is no word of any tool that batchmap knows.'),
        (
            ["translate", GRU, *TO_TORCH],
            'Unsupported: torch.nn.GRU cannot hold reset="before": its reset gate acts after the recurrent '
            "product.\n  Instead: ",
        ),
        (["translate", "LSTM(64)", *TO_TORCH[:4]], "Ambiguous: LSTM(units=64, output='last') does not say feat"),
        (["translate", "LSTM(", *TO_TORCH], "BadValue: the text is no Python"),
        (
            ["batch", "train_batch_size=512", *DEEPSPEED, "--accumulation", "3"],
            "Contradiction: cases=512 is no whole multiple of accumulation=3 x replicas=8 (24)",
        ),
        (
            ["shapes", "Dense(3)", "--from", "keras", "--features", "2"],
            "BadValue: Dense has no shapes to show: they are those of a recurrent layer.\n"
            "  Instead: give an LSTM, a GRU or an RNN.\n",
        ),
        (["port", "absent.h5", "--to", "torch", "--out", "x"], "BadFile: absent.h5: there is no such file"),
        (["port", SENTIMENT, "--to", "deepspeed", "--out", "x"], "Unsupported: DeepSpeed has batch words only"),
        (["verify", SENTIMENT, str(ROOT / "tests")], "there is no model.py, so this is no port.\n  Instead: "),
    ],
)
def test_refuses(run: Any, argv: list[str], message: str) -> None:
    outcome = run(*argv)
    assert message in outcome.err
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(message.partition(":")[0]) or argv[0] == "verify"


def test_an_error_as_json(run: Any) -> None:
    outcome = run("translate", GRU, *TO_TORCH, "--json")
    error = outcome.data["error"]
    assert (error["class"], error["what"]) == ("Unsupported", 'torch.nn.GRU cannot hold reset="before"')
    assert error["because"] == "its reset gate acts after the recurrent product"
    assert error["instead"]
    assert {"framework": "torch", "field": "reset", "value": "before"}.items() <= error["fields"].items()
    assert (outcome.status, outcome.err) == (1, "")


def test_a_defect_keeps_its_traceback(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(batchmap, "support", broken, raising=False)
    with pytest.raises(ZeroDivisionError):
        run("support")


def test_an_interrupt_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def read(self, *_: Any) -> NoReturn:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert main(["translate", "-", *TO_TORCH]) == 130
    assert capsys.readouterr() == ("", "")


def test_bytes_that_are_no_text() -> None:
    process = start("translate", "-", *TO_TORCH, env={"PYTHONIOENCODING": "utf-8:strict"}, text=False)
    _, err = process.communicate(b"\x89HDF\xff")
    assert (process.returncode, err) == (2, b"Usage: standard input is no text.\n")


def test_escape_sequences_are_not_obeyed(run: Any) -> None:
    assert r'"\x1b[31mred" is no word' in run("explain", "\x1b[31mred").err


# ---- ports and comparisons


@pytest.fixture(scope="module")
def ported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, ported to PyTorch."""
    out = tmp_path_factory.mktemp("port") / "ported"
    assert main(["port", SENTIMENT, "--to", "torch", "--out", str(out)]) == 0
    return out


@pytest.fixture
def tampered(ported: Path, tmp_path: Path) -> Path:
    """The same with one array changed."""
    out = Path(shutil.copytree(ported, tmp_path / "tampered"))
    arrays = load_file(out / "model.safetensors")
    arrays["head.bias"] = arrays["head.bias"] + 1
    save_file(arrays, out / "model.safetensors")
    return out


@pytest.mark.needs("torch")
def test_port(run: Any, ported: Path, tmp_path: Path) -> None:
    outcome = run("port", SENTIMENT, "--to", "torch", "--out", str(tmp_path / "out"), "--name", "taste")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("sentiment.h5: Keras 3.")
    assert "  --padding any writes" in outcome.out.replace("elsewhere: ", " ")
    assert outcome.out.endswith(f"Wrote {tmp_path / 'out'}/: model.py, model.safetensors, report.json, README.md\n")
    assert "class Taste(nn.Module):" in (tmp_path / "out/model.py").read_text()


@pytest.mark.needs("torch")
def test_port_as_json(run: Any, tmp_path: Path) -> None:
    outcome = run("port", SENTIMENT, "--to", "torch", "--out", str(tmp_path / "out"), "--json")
    assert outcome.data == json.loads((tmp_path / "out/report.json").read_text())


@pytest.mark.needs("torch")
def test_port_leaves_a_folder_alone(run: Any, ported: Path) -> None:
    outcome = run("port", SENTIMENT, "--to", "torch", "--out", str(ported))
    assert (outcome.status, outcome.out) == (1, "")
    assert f"BadValue: {ported} cannot be written: it exists and holds " in outcome.err
    assert "--overwrite" in outcome.err
    assert run("port", SENTIMENT, "--to", "torch", "--out", str(ported), "--overwrite").status == 0


@pytest.mark.needs("torch")
def test_port_where_nothing_can_be_written(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = run("port", SENTIMENT, "--to", "torch", "--out", str(tmp_path / "file/out"))
    assert (outcome.status, outcome.out) == (1, "")
    assert re.match(r"Bad(File|Value): .*file.*: ", outcome.err)


@pytest.mark.needs("torch")
def test_port_of_natives_only(run: Any, tmp_path: Path) -> None:
    options = ("--to", "torch", "--out", str(tmp_path / "out"), "--native-only", "--padding", "any")
    outcome = run("port", SENTIMENT, *options)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith('Unsupported: layer "encoder": PyTorch cannot skip padding in the middle')
    assert not (tmp_path / "out").exists()


@pytest.mark.needs("torch")
def test_verify(run: Any, ported: Path) -> None:
    outcome = run("verify", SENTIMENT, str(ported))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("Same outputs as sentiment.h5 at 3 x 7 and 2 x 11, furthest off ")
    assert run("verify", SENTIMENT, str(ported), "--json").data["same"] is True


@pytest.mark.needs("torch")
def test_verify_finds_a_difference(run: Any, tampered: Path) -> None:
    outcome = run("verify", SENTIMENT, str(tampered))
    assert (outcome.status, outcome.err) == (1, "")
    assert outcome.out.startswith("Not the same: ")
    assert run("verify", SENTIMENT, str(tampered), "--tolerance", "2").status == 0


@pytest.mark.needs("torch")
def test_json_holds_what_is_not_finite(run: Any, tampered: Path) -> None:
    arrays = load_file(tampered / "model.safetensors")
    arrays["head.bias"] = arrays["head.bias"] * np.float32("nan")
    save_file(arrays, tampered / "model.safetensors")
    outcome = run("verify", SENTIMENT, str(tampered), "--json")
    assert (outcome.status, outcome.data["same"]) == (1, False)
    assert cli._plain({"off": float("inf"), 3: (np.float32(1), {1})}) == {"off": "inf", "3": ["1.0", [1]]}


@pytest.mark.needs("torch")
def test_what_a_model_prints_is_no_result(run: Any, ported: Path, tmp_path: Path) -> None:
    loud = Path(shutil.copytree(ported, tmp_path / "loud"))
    source = (loud / "model.py").read_text()
    (loud / "model.py").write_text(source + '\nprint("hello")\n')
    outcome = run("verify", SENTIMENT, str(loud), "--json")
    assert outcome.data["same"] is True
    assert outcome.err == "hello\n"


# ---- processes and terminals

LIGHT = {
    "help": ["--help"],
    "explain": ["explain", "batch_size"],
    "translate": ["translate", LSTM, *TO_TORCH],
    "batch": ["batch", "train_batch_size=512", *DEEPSPEED, "--accumulation=4"],
    "support": ["support"],
}


@pytest.mark.parametrize("command", LIGHT)
def test_commands_are_light(command: str) -> None:
    """Talk of words needs no arrays, and a pipe needs no rich."""
    heavy = {"einops", "h5py", "keras", "numpy", "rich", "safetensors", "tensorflow", "torch"}
    code = f"""
import sys
from batchmap.cli import main
status = main({LIGHT[command]!r})
print(sorted({heavy!r} & set(sys.modules)), status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("[] 0\n"), done.stderr


def test_a_process() -> None:
    process = start("translate", "-", *TO_TORCH)
    assert process.communicate(LSTM) == (TRANSLATED, "")
    assert process.returncode == 0


def test_a_process_that_refuses() -> None:
    process = start("translate", GRU, *TO_TORCH)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.startswith("Unsupported: ")
    assert "Traceback" not in err


def test_a_pipe_that_closes_early() -> None:
    process = start("explain", "batch_size")
    process.stdout.close()
    with process.stdin, process.stderr:
        assert (process.stderr.read(), process.wait()) == ("", 141)


def test_a_stream_without_these_letters() -> None:
    process = start("support", env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert r"\xb7" in out


def on_terminal(*argv: str, columns: int, **env: str) -> tuple[int, str]:
    """Exit status and everything shown on a terminal of this width."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        environment = {"TERM": "xterm-256color", **env}
        process = start(*argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)

    def chunks() -> Iterator[bytes]:
        try:
            while chunk := os.read(ours, 4096):
                yield chunk
        except OSError:  # Linux says so when the other side has closed
            return

    shown = b"".join(chunks()).decode()
    os.close(ours)
    return process.wait(), shown.replace("\r\n", "\n")


def test_terminal_wraps_cells_within_columns() -> None:
    status, shown = on_terminal("explain", "batch_size", columns=80)
    assert status == 0
    assert max(map(len, shown.splitlines())) <= 80
    heading, _, first, second, *_ = (line.rstrip() for line in shown.splitlines())
    assert heading == "batch_size means different things:"
    assert re.fullmatch(r"  Keras fit +cases per pass, of +default 32  trainer.py", first)
    assert second.strip() == "all replicas"
    assert "\x1b" not in shown


def test_terminal_wide_enough_is_as_a_pipe() -> None:
    out, _ = start("support").communicate()
    assert on_terminal("support", columns=200) == (0, out)


def test_terminal_leaves_what_is_copied_in_one_line() -> None:
    assert on_terminal("translate", LSTM, *TO_TORCH, columns=20) == (0, TRANSLATED)


@pytest.mark.parametrize(
    ("env", "shown"),
    [({}, "\x1b[31mUsage\x1b[0m: a is"), ({"NO_COLOR": "1"}, "Usage: a is"), ({"TERM": "dumb"}, "Usage: a is")],
)
def test_terminal_colours_an_error(env: dict[str, str], shown: str) -> None:
    status, text = on_terminal("translate", '{"a": 1, "a": 2}', *TO_TORCH, columns=80, **env)
    assert status == 2
    assert text.startswith(shown)


def test_terminal_shows_a_port(tmp_path: Path) -> None:
    """Without torch, which takes seconds to load; the port says that it was not run."""
    (tmp_path / "torch.py").write_text("raise ImportError")
    path = os.pathsep.join((str(tmp_path), str(ROOT / "src")))
    argv = ("port", SENTIMENT, "--to", "torch", "--out", str(tmp_path / "out"), "--padding", "any")
    status, shown = on_terminal(*argv, columns=80, PYTHONPATH=path)
    assert status == 0
    assert "Writing " in shown
    assert "\x1b[33mspelled out\x1b[0m" in shown
    plain = ESCAPES.sub("", shown.rpartition("\r")[2])
    assert re.search(r"^  encoder  LSTM\(13, +MaskedLSTM\(9, 13\) +spelled out *$", plain, re.MULTILINE)
    assert "PyTorch is not installed here, so nothing was run" in plain
    assert max(map(len, plain.splitlines())) <= 80


def test_cells_of_one_column() -> None:
    assert terminal._cells(["one line of words", "and another"]) == [["one line of words"], ["and another"]]
    assert terminal._cells(["         W  B", "Keras    x  x"]) == [["", "W", "B"], ["Keras", "x", "x"]]
