"""Records whose fields are given by name, and what is said to a caller who does not."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, Self

from batchmap.errors import BadValue, near, unknown


class Record:
    """A base of frozen dataclasses: a field that there is none of, or one without a name, is refused in our words.

    >>> from batchmap.spec.layers import LSTM
    >>> LSTM(hidden_size=64)
    Traceback (most recent call last):
        ...
    batchmap.errors.UnknownWord: "hidden_size" is no field of LSTM.
      Instead: bm.explain("hidden_size") says what it is called here.
    """

    def __new__(cls, *values: Any, **words: Any) -> Self:
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        if values:
            first = next((name for name, field in known.items() if field.default is MISSING), next(iter(known)))
            raise BadValue(
                f"{cls.__name__}({values[0]!r}) does not say which field that is",
                instead=f"{cls.__name__}({first}={values[0]!r}), if it is {first}",
                field=first,
                value=values[0],
            )
        for word in words:
            if word not in known:
                hint = "" if near(word, known) else f'bm.explain("{word}") says what it is called here'
                raise unknown(word, f"field of {cls.__name__}", known, hint)
        return super().__new__(cls)
