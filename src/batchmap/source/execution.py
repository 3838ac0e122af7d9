"""Source that batchmap wrote itself, run as a module. Nothing from a file or a user is ever run this way."""

from __future__ import annotations

import linecache
import sys
from itertools import count
from types import ModuleType

_numbers = count(1)


def execute(text: str, filename: str = "") -> ModuleType:
    """Runs a module that batchmap wrote, so that `inspect.getsource` and pickling find it.

    filename: where the text stands, if it is a file.

    >>> execute("def twice(x):\\n    return 2 * x\\n").twice(4)
    8
    """
    name = f"batchmap_port_{next(_numbers)}"
    filename = filename or f"<{name}>"
    module = ModuleType(name)
    module.__file__ = filename
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    sys.modules[name] = module
    try:
        exec(compile(text, filename, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name], linecache.cache[filename]
        raise
    return module
