"""A `Call` is neutral data between a spec and any form that a framework gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """A name that stands bare in source text, for example `tf.float32`.

    >>> Name("tf.float32")
    Name(text='tf.float32')
    """

    text: str


@dataclass(frozen=True)
class Call:
    """A constructor call as data: a dotted target and its arguments, which may hold calls again.

    >>> Call("torch.nn.LSTM", {"input_size": 8, "hidden_size": 64})["hidden_size"]
    64
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    def without(self, *names: str) -> Call:
        """The same call, some arguments left out."""
        return Call(self.target, {name: value for name, value in self.arguments.items() if name not in names})

    @property
    def last_name(self) -> str:
        return self.target.rpartition(".")[2]


@dataclass(frozen=True)
class Lowered:
    """What a spec became: a call, sentences on what changed meaning, and the words the target leaves to its caller.

    left_out: canonical word to the value it has in the spec. The native form does not say these; giving them
    back when reading it restores the spec.
    """

    call: Call
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, Any] = field(default_factory=dict)
