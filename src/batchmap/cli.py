"""The command line: one function a command, and how a result or an error is shown."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from batchmap.errors import BadFile, BadValue, BatchmapError

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch

REFUSED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

EXAMPLES = """\
examples:
  batchmap explain batch_size --in deepspeed
  batchmap translate "LSTM(64, return_sequences=True)" --from keras --to torch --features 8
  batchmap batch train_batch_size=512 gradient_accumulation_steps=4 --from deepspeed --to transformers --replicas 8
  batchmap shapes "GRU(64, return_sequences=True)" --from keras --to torch --features 8 --cases 32
  batchmap port model.h5 --to torch --out ported/
  batchmap verify model.h5 ported/
  batchmap support

exit status: 0 done, 1 refused or not the same, 2 not understood
"""

# What Python callers are told to type, and what to type here.
COMMANDS = (
    (r'bm\.explain\("([^"]*)", "([^"]*)"\)', r"batchmap explain \1 --in \2"),
    (r'bm\.explain\("([^"]*)"\)', r"batchmap explain \1"),
    (r"bm\.port\('([^']*)', framework, weights='([^']*)'\)", r"batchmap port \1 --weights \2 ..."),
    (r"bm\.(port|verify)\b(\([^)]*\))?", r"batchmap \1"),
    (r'allow=\("(\w+)",\)', r"--allow \1"),
    (r"\bweights=\.\.\.", "--weights FILE"),
    (r"\b(overwrite|replace)=True", "--overwrite"),
)

COLOURS = ((r"\bspelled out\b", "yellow"), (r"^Not the same\b", "red"))
ERROR_COLOURS = ((r"^\w+(?=: )", "red"),)

# A name in a file may hold escape sequences; they are printed, not obeyed.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in b"\n\t"}


class Usage(BatchmapError):
    """The command line itself cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are raised, to be shown like all others."""

    def error(self, message: str) -> NoReturn:
        form = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise Usage(message, instead=f"{form} ({self.prog} --help says more)")


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 refused or not the same, 2 not understood.

    argv: the arguments after the name of the program; those of this process when left out.

    >>> main(["translate", "LSTM(64, return_sequences=True)", "--from=keras", "--to=torch", "--features=8"])
    nn.LSTM(8, 64, batch_first=True)
    0
    """
    given = sys.argv[1:] if argv is None else argv
    try:
        status = _run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # nobody reads on; the interpreter's last flush has to stay quiet
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def explain(arguments: argparse.Namespace) -> Any:
    """What a word means, in every tool or in one."""
    import batchmap as bm

    return bm.explain(arguments.word, arguments.framework)


def translate(arguments: argparse.Namespace) -> Any:
    """A layer or a batch, said in another framework's words."""
    import batchmap as bm

    return bm.translate(
        _source(arguments.text),
        arguments.origin,
        arguments.framework,
        version=arguments.since,
        **_known(arguments),
    )


def batch(arguments: argparse.Namespace) -> Any:
    """Batch words of one tool, said in another's."""
    import batchmap as bm

    words = _words(arguments.words)
    return bm.translate(words, arguments.origin, arguments.framework, **_batch_words(arguments))


def shapes(arguments: argparse.Namespace) -> Any:
    """The shape of input, output, states and weights of a recurrent layer."""
    import batchmap as bm
    from batchmap.spec.layers import Recurrent

    layer = bm.read(_source(arguments.text), arguments.origin, version=arguments.since, **_known(arguments))
    layer = layer.layer if isinstance(layer, bm.Spec) else layer
    if not isinstance(layer, Recurrent):
        raise BadValue(
            f"{type(layer).__name__} has no shapes to show",
            "they are those of a recurrent layer",
            "give an LSTM, a GRU or an RNN",
            field="text",
            value=layer,
        )
    plan: Batch = bm.Batch(cases=arguments.cases, sequence_length=arguments.sequence_length)
    return bm.shapes(layer, plan, arguments.framework or None)


def port(arguments: argparse.Namespace) -> Any:
    """A saved model, written in another framework: source, weights and report."""
    import batchmap as bm

    with _progress(f"reading {arguments.source}") as progress:
        try:
            return bm.port(
                arguments.source,
                arguments.framework,
                out=arguments.out,
                weights=arguments.weights,
                native_only=arguments.native_only,
                padding=arguments.padding,
                allow=tuple(arguments.allow),
                name=arguments.name,
                overwrite=arguments.overwrite,
                progress=progress,
            )
        except OSError as error:
            if isinstance(error, BatchmapError) or error.filename is None:
                raise
            path = str(error.filename)
            raise BadFile(f"{path}: {error.strerror}", instead="give another --out", path=path) from error


def verify(arguments: argparse.Namespace) -> Any:
    """Whether two models compute the same; if not, where, how far off, and the likely mistake."""
    import batchmap as bm

    with _progress(f"comparing {arguments.other} with {arguments.right}"):
        return bm.verify(
            arguments.right, arguments.other, padding=arguments.padding, tolerance=arguments.tolerance
        )


def support(arguments: argparse.Namespace) -> Any:
    """What batchmap can do with each framework and tool."""
    import batchmap as bm

    return bm.support()


# ---- what is typed


def _parser() -> Parser:
    from batchmap import __version__

    parser = Parser(
        prog="batchmap",
        description="One vocabulary for recurrent networks, mapped exactly onto every framework.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"batchmap {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", title="commands")

    def command(run: Callable[[argparse.Namespace], Any], note: str = "") -> Parser:
        about = (run.__doc__ or "").rstrip(".")
        made: Parser = commands.add_parser(
            run.__name__,
            help=about[0].lower() + about[1:],
            description=f"{about}. {note}".strip(),
            allow_abbrev=False,
        )
        made.set_defaults(run=run, parser=made)
        made.add_argument("--json", action="store_true", help="print data instead of text, errors too")
        return made

    made = command(explain, "Flags of other tools are words too: batchmap explain --bptt.")
    made.add_argument("word", nargs="?", metavar="WORD", help="a word of any tool, or one of batchmap's own")
    _add_framework(made, "--in", "framework", "look into this framework or tool only, in full", default="")

    made = command(translate, "The text is parsed and never executed.")
    _add_text(made)
    _add_framework(made, "--from", "origin", "framework of the text", required=True)
    _add_framework(made, "--to", "framework", "framework to say it in", required=True)

    made = command(batch)
    made.add_argument(
        "words",
        nargs="+",
        metavar="WORD=VALUE",
        help="words of the tool; - reads a JSON object, or one a line",
    )
    _add_framework(made, "--from", "origin", "tool that these words belong to", required=True)
    _add_framework(made, "--to", "framework", "tool to say it in", required=True)
    _add_batch_words(made)

    made = command(shapes)
    _add_text(made)
    _add_framework(made, "--from", "origin", "framework of the text", required=True)
    _add_framework(made, "--to", "framework", "in the axis order of this framework", default="")
    made.add_argument("--cases", type=int, metavar="N", help="independent sequences")
    made.add_argument("--sequence-length", type=int, metavar="N", help="time steps of a case")

    made = command(
        port, "Everything that is written has been run and compared where the framework is installed."
    )
    made.add_argument(
        "source",
        type=_path,
        metavar="SOURCE",
        help="a Keras .h5 or .keras file, or its architecture as .json",
    )
    _add_framework(made, "--to", "framework", "framework to write in", required=True)
    made.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; it appears whole or not at all"
    )
    made.add_argument("--weights", metavar="FILE", help="weights, where SOURCE is an architecture only")
    made.add_argument(
        "--native-only", action="store_true", help="refuse what only a spelled-out cell can hold"
    )
    _add_padding(made, "where padding may stand; any is slower")
    made.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FIELD",
        help="a loss to accept, such as carried_state; may be repeated",
    )
    made.add_argument(
        "--name", default="", help="name of the model; its own, or that of the file, when left out"
    )
    made.add_argument("--overwrite", action="store_true", help="replace an earlier port in DIR")

    made = command(verify, "Of a folder that batchmap port wrote, model.py is run; files are read as data.")
    made.add_argument("right", type=_path, metavar="RIGHT", help="the model taken to be right: a Keras file")
    made.add_argument(
        "other", type=_path, metavar="OTHER", help="a folder that batchmap port wrote, or a Keras file"
    )
    _add_padding(made, "where padding stands in the cases that both are given")
    made.add_argument(
        "--tolerance",
        type=_tolerance,
        metavar="X",
        help="how far a number may be off; by dtype when left out",
    )

    command(support)
    return parser


def _add_framework(parser: Parser, flag: str, dest: str, about: str, **options: Any) -> None:
    parser.add_argument(flag, dest=dest, type=_framework, metavar="FRAMEWORK", help=about, **options)


def _add_text(parser: Parser) -> None:
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="a layer as source text, or words as a JSON object; - reads standard input",
    )
    parser.add_argument(
        "words", nargs="*", metavar="WORD=VALUE", help="what the text leaves out, in batchmap's words"
    )
    parser.add_argument("--features", type=int, metavar="N", help="size of one time step of the input")
    parser.add_argument(
        "--version", dest="since", default="", metavar="V", help="version of the framework of the text"
    )


def _add_batch_words(parser: Parser) -> None:
    from batchmap.spec.batch import SIZES, Batch

    group = parser.add_argument_group("what the words leave out")
    for word in Batch.__dataclass_fields__:
        size = word in SIZES
        group.add_argument(
            f"--{word.replace('_', '-')}", type=int if size else _value, metavar="N" if size else "VALUE"
        )


def _add_padding(parser: Parser, about: str) -> None:
    parser.add_argument("--padding", choices=("right", "any"), default="right", help=about)


def _parsed(argv: list[str]) -> argparse.Namespace:
    """The arguments, with words taken wherever they stand among the options."""
    arguments, rest = _parser().parse_known_args(argv)
    if arguments.command == "explain" and arguments.word is None:
        if not rest:
            arguments.parser.error("the following arguments are required: WORD")
        arguments.word = rest.pop(0)
    if hasattr(arguments, "words") and not any(word.startswith("-") for word in rest):
        arguments.words += rest
        rest = []
    if rest:
        (arguments.parser if arguments.command else _parser()).error(
            f"unrecognized arguments: {' '.join(rest)}"
        )
    return arguments


def _framework(name: str) -> str:
    from batchmap.frameworks import get

    return get(name).name


def _path(text: str) -> str:
    if text == "-":
        raise argparse.ArgumentTypeError("a model is read from a file, not from standard input")
    return text


def _tolerance(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no distance")
    return value


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
    except ValueError:
        if text.startswith(("[", "{", '"')):
            raise Usage(
                f"{text} is no JSON",
                instead='quote it for your shell, and text in it too: \'["mean", "sum"]\'',
            ) from None
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


def _known(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said beside the text, in the spec's own words."""
    features = [] if arguments.features is None else [("features", arguments.features)]
    return _unique([*map(_pair, arguments.words), *features])


def _batch_words(arguments: argparse.Namespace) -> dict[str, Any]:
    from batchmap.spec.batch import Batch

    given = {word: getattr(arguments, word) for word in Batch.__dataclass_fields__}
    return {word: value for word, value in given.items() if value is not None}


def _pair(text: str) -> tuple[str, Any]:
    word, sign, value = (part.strip() for part in text.partition("="))
    if not (word and sign and value):
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
    """A layer as text, or words and configurations as a dict."""
    text = _standard_input() if text == "-" else text
    return _object(text) if text.lstrip().startswith("{") else text


def _object(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _json(text)
    except ValueError as error:
        raise Usage(
            f"the words are no JSON object: {error}", instead='for example {"batch_size": 32}'
        ) from None
    return found


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


# ---- what is shown


def _run(argv: list[str]) -> int:
    """Runs one command and shows its result, or why there is none."""
    refused = USAGE
    try:
        try:
            arguments = _parsed(argv)
        except SystemExit as done:  # --help and --version have printed what they had to say
            return int(done.code or 0)
        if arguments.command is None:
            _parser().print_help()
            return 0
        refused = REFUSED
        with redirect_stdout(sys.stderr):  # what frameworks and models print is no part of the result
            result = arguments.run(arguments)
    except BatchmapError as error:
        if "--json" in argv:
            _print_json({"error": _described(error)})
        else:
            _print(f"{type(error).__name__}: {error}", sys.stderr, ERROR_COLOURS)
        return USAGE if isinstance(error, Usage) else refused
    if arguments.json:
        _print_json(result.json())
    else:
        _print(str(result), sys.stdout, COLOURS, wrap=arguments.run not in (translate, batch))
    return 0 if result else REFUSED  # a report is false where two models are not the same


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


def _print(text: str, stream: TextIO, colours: tuple[tuple[str, str], ...], wrap: bool = True) -> None:
    """Prints a text as it is to a pipe, fitted and coloured on a terminal; wrap: whether lines may be broken."""
    for pattern, typed in COMMANDS:
        text = re.sub(pattern, typed, text)
    text = text.translate(CONTROLS)
    encoding = stream.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if _is_terminal(stream):
        fits = not wrap or max(map(len, text.splitlines())) <= shutil.get_terminal_size().columns
        if not fits or any(re.search(pattern, text, re.MULTILINE) for pattern, _ in colours):
            return _draw(text, stream, colours, wrap)
    print(text, file=stream)


def _draw(text: str, stream: TextIO, colours: tuple[tuple[str, str], ...], wrap: bool) -> None:
    """Prints a text on a terminal; of a table wider than that, each cell is wrapped within its column."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    def coloured(line: str) -> Text:
        made = Text(line)
        for pattern, colour in colours:
            made.highlight_regex(pattern, colour)
        return made

    console = Console(file=stream, highlight=False)
    for block in re.split(r"(\n{2,})", text):
        lines = block.splitlines()
        rows = _cells(lines)
        if not wrap or max(map(len, lines)) <= console.width or not block.strip():
            console.print(coloured(block.strip("\n")) if block.strip() else "", soft_wrap=True)
        elif len(lines) > 1 and len(rows[0]) > 1:
            table = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
            for row in rows:
                table.add_row(*map(coloured, row))
            console.print(table)
        else:
            for line in lines:
                plain = line.lstrip()
                console.print(Padding(coloured(plain), (0, 0, 0, len(line) - len(plain))))


def _cells(lines: list[str]) -> list[list[str]]:
    """Cuts aligned lines where all of them have two blanks; a line without a first cell goes on from the last.

    >>> _cells(["  encoder  an LSTM of", "           two layers", "  head     Dense"])
    [['encoder', 'an LSTM of two layers'], ['head', 'Dense']]
    """
    width = max(map(len, lines))
    padded = [line.ljust(width) for line in lines]
    shadow = "".join(" " if all(line[at] == " " for line in padded) else "x" for at in range(width))
    columns = [match.span() for match in re.finditer("x+(?: x+)*", shadow)]
    rows: list[list[str]] = []
    for line in padded:
        row = [line[start:end].strip() for start, end in columns]
        if rows and not row[0]:
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], row, strict=True)]
        else:
            rows.append(row)
    return rows


@contextmanager
def _progress(opening: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being done; gives the function that says what comes next."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes about the machine
    if not _is_terminal(sys.stderr):
        yield lambda step: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(opening)) as status:
        yield lambda step: status.update(Text(step))


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
