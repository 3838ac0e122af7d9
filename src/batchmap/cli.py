"""The command line: one function a command, what may be typed, and what comes back."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from typing import Any, NoReturn

from batchmap.errors import BadFile, BadValue, BatchmapError
from batchmap.tables import columns
from batchmap.terminal import progress, show
from batchmap.version import __version__

REFUSED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

DESCRIPTION = """\
One vocabulary for recurrent networks, mapped exactly onto every framework.

commands:
{commands}

examples:
  batchmap explain batch_size --in deepspeed
  batchmap translate "LSTM(64, return_sequences=True)" --from keras --to torch --features 8
  batchmap batch train_batch_size=512 gradient_accumulation_steps=4 \\
      --from deepspeed --to transformers --replicas 8
  batchmap shapes "GRU(64, return_sequences=True)" --from keras --to torch --features 8 --cases 32
  batchmap port model.h5 --to torch --out ported/
  batchmap verify model.h5 ported/
"""
STATUS = "exit status: 0 done, 1 refused or not the same, 2 not understood"

# What callers from Python are told to type, and what to type here.
SPELLINGS: dict[str, str | Callable[[re.Match[str]], str]] = {
    r'bm\.explain\("([^"]*)", "([^"]*)"\)': r"batchmap explain \1 --in \2",
    r'bm\.explain\("([^"]*)"\)': r"batchmap explain \1",
    r"bm\.port\('([^']*)', framework, weights='([^']*)'\)": r"batchmap port \1 --weights \2 --to ... --out ported",
    r"bm\.(port|verify)\b(\([^)]*\))?": r"batchmap \1",
    r"allow=\(([^)]*)\)": lambda found: " ".join(f"--allow {word}" for word in re.findall(r"\w+", found[1])),
    r"\bweights=\.\.\.": "--weights FILE",
    r'\bpadding="(\w+)"( \(--padding \w+\))?': r"--padding \1",
    r"\boverwrite=True": "--overwrite",
}
COLOURS = {r"\bspelled out\b": "yellow", r"^Not the same\b": "red"}
ERROR_COLOURS = {r"^(?!Instead)\w+(?=: )": "red"}


class Usage(BatchmapError):
    """The command line itself cannot be understood."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 refused or not the same, 2 not understood.

    argv: the arguments after the name of the program; those of this process when left out.

    >>> main(["translate", "LSTM(64, return_sequences=True)", "--from=keras", "--to=torch", "--features=8"])
    nn.LSTM(8, 64, batch_first=True)
    0
    """
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # nobody reads on; the interpreter's last flush has to stay quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _run(argv: list[str]) -> int:
    """Runs one command and prints its result, or why there is none."""
    refused = USAGE
    try:
        try:
            given = _parsed(argv)
        except SystemExit as done:  # --help and --version have printed what they had to say
            return int(done.code or 0)
        refused = REFUSED
        with redirect_stdout(sys.stderr):  # what frameworks and models print is no part of the result
            result = given.run(given)
    except BatchmapError as error:
        if "--json" in argv:
            _print_json({"error": _described(error)})
        else:
            show(_spelled(f"{type(error).__name__}: {error}"), sys.stderr, ERROR_COLOURS)
        return USAGE if isinstance(error, Usage) else refused
    if given.json:
        _print_json(result.json())
    else:
        show(_spelled(str(result)), sys.stdout, COLOURS, wrap=given.run not in (translate, batch))
    return 0 if result else REFUSED  # a report is false where two models are not the same


# ---- the commands


def explain(given: argparse.Namespace) -> Any:
    """What a word means, in every tool or in one."""
    import batchmap as bm

    return bm.explain(given.word, given.framework or "")


def translate(given: argparse.Namespace) -> Any:
    """A layer or a batch, said in the words of another framework."""
    import batchmap as bm

    source, known = _source(given.text), _known(given)
    return bm.translate(source, given.origin, given.framework, version=given.since, **known)


def batch(given: argparse.Namespace) -> Any:
    """Batch words of one tool, said in those of another."""
    import batchmap as bm

    known = {word: value for word in _batch_words() if (value := getattr(given, word)) is not None}
    return bm.translate(_words(given.words), given.origin, given.framework, **known)


def shapes(given: argparse.Namespace) -> Any:
    """Shapes of input, output, states and weights of a layer."""
    import batchmap as bm
    from batchmap.spec.layers import Recurrent

    layer = bm.read(_source(given.text), given.origin, version=given.since, **_known(given))
    if not isinstance(layer, Recurrent):
        raise BadValue(
            f"{type(layer).__name__} has no shapes to show",
            "they are those of a recurrent layer",
            "give an LSTM, a GRU or an RNN",
            field="text",
            value=layer,
        )
    return bm.shapes(layer, bm.Batch(cases=given.cases, sequence_length=given.sequence_length), given.framework)


def port(given: argparse.Namespace) -> Any:
    """A saved model, written in another framework and checked."""
    import batchmap as bm

    _quieten()
    options = ("out", "weights", "native_only", "padding", "cases_first", "allow", "name", "overwrite")
    with progress(given.source) as tell:
        try:
            return bm.port(
                given.source,
                given.framework,
                progress=tell,
                **{name: getattr(given, name) for name in options},
            )
        except OSError as error:
            if error.filename is None:
                raise
            path = str(error.filename)
            raise BadFile(f"{path}: {error.strerror}", instead="give another --out", path=path) from error


def verify(given: argparse.Namespace) -> Any:
    """Whether two models compute the same; if not, where and why."""
    import batchmap as bm

    _quieten()
    with progress(f"{given.other}: comparing with {given.right}"):
        return bm.verify(given.right, given.other, padding=given.padding, tolerance=given.tolerance)


def support(given: argparse.Namespace) -> Any:
    """What batchmap can do with each framework and tool."""
    import batchmap as bm

    return bm.support()


def _quieten() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes about the machine


# ---- what may be typed


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are raised, to be shown like all others."""

    def error(self, message: str) -> NoReturn:
        form = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise Usage(message, instead=f"{form} ({self.prog} --help says more)")


def _parsed(argv: list[str]) -> argparse.Namespace:
    """The arguments, words among them wherever they stand between the options."""
    parser = _parser()
    given, rest = parser.parse_known_args(argv)
    if given.run is explain and given.word is None:
        if not rest:
            given.parser.error("the following arguments are required: WORD")
        given.word = rest.pop(0)
    if hasattr(given, "words") and not any(word.startswith("-") for word in rest):
        given.words, rest = [*given.words, *rest], []
    if rest:
        given.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if given.run is None:
        parser.parse_args(["--help"])
    return given


def _parser() -> Parser:

    runs = (explain, translate, batch, shapes, port, verify, support)
    listed = [(run.__name__, _about(run)[0].lower() + _about(run)[1:]) for run in runs]
    parser = Parser(
        prog="batchmap",
        usage="batchmap [-h] [--version] COMMAND ...",
        description=DESCRIPTION.format(commands="\n".join(columns(listed))),
        epilog=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=None, parser=parser)
    parser.add_argument("--version", action="version", version=f"batchmap {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", prog="batchmap", help=argparse.SUPPRESS)

    def add(run: Callable[[argparse.Namespace], Any], note: str = "") -> Parser:
        text = f"{_about(run)}. {note}".strip()
        command: Parser = commands.add_parser(run.__name__, description=text, epilog=STATUS, allow_abbrev=False)
        command.set_defaults(run=run, parser=command)
        command.add_argument("--json", action="store_true", help="print data instead of text, errors too")
        return command

    command = add(explain, "Flags of other tools are words too: batchmap explain --bptt.")
    command.add_argument("word", nargs="?", metavar="WORD", help="a word of any tool, or one of batchmap's own")
    _add_framework(command, "--in", "look into this framework or tool only, in full")

    command = add(translate, "Text is parsed and never executed.")
    _add_text(command)
    _add_framework(command, "--from", "framework of the text", required=True)
    _add_framework(command, "--to", "framework to say it in", required=True)

    command = add(batch)
    command.add_argument(
        *("words",),
        nargs="+",
        metavar="WORD=VALUE",
        help="words of the tool; - reads a JSON object, or a word a line, from standard input",
    )
    _add_framework(command, "--from", "tool whose words these are", required=True)
    _add_framework(command, "--to", "tool to say it in", required=True)
    group = command.add_argument_group("what the words leave out")
    for word, size in _batch_words().items():
        kind, metavar = (int, "N") if size else (_value, "VALUE")
        group.add_argument(f"--{word.replace('_', '-')}", type=kind, metavar=metavar)

    command = add(shapes)
    _add_text(command)
    _add_framework(command, "--from", "framework of the text", required=True)
    _add_framework(command, "--to", "framework whose axis order and names to use")
    command.add_argument("--cases", type=int, metavar="N", help="independent sequences")
    command.add_argument("--sequence-length", type=int, metavar="N", help="time steps of a case")

    command = add(port, "What is written has been run and compared, where the framework is installed.")
    command.add_argument("source", type=_path, metavar="SOURCE", help="a Keras .h5, .keras or .json file")
    _add_framework(command, "--to", "framework to write in", required=True)
    command.add_argument("--out", required=True, metavar="DIR", help="folder that appears, whole or not at all")
    command.add_argument("--weights", metavar="FILE", help="where SOURCE is an architecture only (.json)")
    command.add_argument("--native-only", action="store_true", help="refuse what would be spelled out")
    _add_padding(command, "where padding may stand; any is slower")
    command.add_argument(
        *("--time-first",),
        dest="cases_first",
        action="store_const",
        const=False,
        help="write for data that are [time, cases, ...]; Keras's are [cases, time, ...]",
    )
    command.add_argument("--name", default="", help="of the model; its own, or that of the file, when left out")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier port in DIR")
    command.add_argument(
        *("--allow",),
        action="append",
        default=[],
        metavar="FIELD",
        help="a loss to accept, such as carried_state; may be repeated",
    )

    command = add(verify, "Of a folder that batchmap port wrote, model.py is run; files are read as data.")
    command.add_argument("right", type=_path, metavar="RIGHT", help="a Keras file, taken to be right")
    command.add_argument("other", type=_path, metavar="OTHER", help="a folder that batchmap port wrote, or a file")
    _add_padding(command, "where padding stands in what both are given")
    command.add_argument(
        "--tolerance", type=_tolerance, metavar="X", help="how far off a number may be; by dtype when left out"
    )

    add(support)
    return parser


def _about(run: Callable[[argparse.Namespace], Any]) -> str:
    return (run.__doc__ or "").rstrip(".")


def _add_framework(command: Parser, flag: str, about: str, required: bool = False) -> None:
    dest = "origin" if flag == "--from" else "framework"
    command.add_argument(flag, dest=dest, type=_framework, required=required, metavar="FRAMEWORK", help=about)


def _add_text(command: Parser) -> None:
    about = "a layer as source text, or words as a JSON object; - reads standard input"
    command.add_argument("text", metavar="TEXT", help=about)
    about = "what the text leaves out, in batchmap's words"
    command.add_argument("words", nargs="*", metavar="WORD=VALUE", help=about)
    command.add_argument("--features", type=int, metavar="N", help="the same as features=N")
    command.add_argument("--version", dest="since", default="", metavar="V", help="of the framework of the text")


def _add_padding(command: Parser, about: str) -> None:
    command.add_argument("--padding", choices=("right", "any"), default="right", help=about)


def _batch_words() -> dict[str, bool]:
    """The words of a batch, and whether each is a whole number."""
    from batchmap.spec.batch import SIZES, Batch

    return {word: word in SIZES for word in Batch.__dataclass_fields__}


def _framework(name: str) -> str:
    from batchmap.frameworks import get

    return get(name).name


def _path(text: str) -> str:
    if text == "-":
        raise argparse.ArgumentTypeError("a model is read from a file, not from standard input")
    return text


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f'"{text}" is no distance; 1e-5 is one')
    return value


# ---- words and their values


def _value(text: str) -> Any:
    """A value as it is typed: a number, true, false, none, a list or text in JSON, or else plain text.

    >>> [_value(text) for text in ("32", "0.5", "True", "none", "[3, 5]", "drop", '"32"')]
    [32, 0.5, True, None, [3, 5], 'drop', '32']
    """
    plain = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return _json(text)
    except ValueError as error:
        if text.startswith(("[", "{", '"')):
            raise Usage(f"{text} is no JSON: {error}", instead='for example \'["mean", "sum"]\'') from None
        return text


def _words(texts: Iterable[str]) -> dict[str, Any]:
    """Words and their values; "-" stands for those on standard input."""
    pairs: list[tuple[str, Any]] = []
    for text in texts:
        if text != "-":
            pairs.append(_pair(text))
            continue
        read = _standard_input()
        if read.lstrip().startswith("{"):
            pairs += _object(read).items()
        else:
            lines = (line.strip() for line in read.splitlines())
            pairs += [_pair(line) for line in lines if line and not line.startswith("#")]
    return _unique(pairs)


def _known(given: argparse.Namespace) -> dict[str, Any]:
    """What was said beside the text, in the spec's own words."""
    features = [] if given.features is None else [("features", given.features)]
    return _unique([*map(_pair, given.words), *features])


def _pair(text: str) -> tuple[str, Any]:
    word, _, value = (part.strip() for part in text.partition("="))
    if not (word and value):
        raise Usage(f'"{text}" is no WORD=VALUE', instead="for example batch_size=32")
    return word, _value(value)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for word, value in pairs:
        if word in words:
            raise Usage(f"{word} is given twice", instead="leave one out")
        words[word] = value
    return words


def _source(text: str) -> str | dict[str, Any]:
    """A layer as text; words, or a configuration, as a dict."""
    text = _standard_input() if text == "-" else text
    return _object(text) if text.lstrip().startswith("{") else text


def _object(text: str) -> dict[str, Any]:
    try:
        words: dict[str, Any] = _json(text)
    except ValueError as error:
        raise Usage(f"the words are no JSON: {error}", instead='for example {"batch_size": 32}') from None
    return words


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _standard_input() -> str:
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        raise Usage("standard input is no text") from None
    if not text.strip():
        raise Usage("standard input is empty")
    return text


# ---- what comes back


def _spelled(text: str) -> str:
    """A text with what it tells to type in Python told for the command line."""
    for pattern, typed in SPELLINGS.items():
        text = re.sub(pattern, typed, text)
    return text


def _described(error: BatchmapError) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "what": error.what,
        "because": error.because,
        "instead": error.instead,
        "fields": error.fields,
    }


def _print_json(data: Any) -> None:
    print(json.dumps(_plain(data), indent=2))


def _plain(value: Any) -> Any:
    """Anything as data that JSON can hold; a number that is not finite becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "json"):
        return _plain(value.json())
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    return str(value)
