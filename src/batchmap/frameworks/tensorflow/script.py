"""How a lone recurrent layer of TensorFlow 1 is written: cells, then the driver that runs them over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchmap.errors import Unsupported
from batchmap.frameworks.tensorflow import FRAMEWORK
from batchmap.frameworks.tensorflow.cells import Cell, dressed
from batchmap.frameworks.tensorflow.spelling import driver, merged, module
from batchmap.mapping.calls import Call, Name
from batchmap.source.lines import indent, wrapped
from batchmap.source.write import WIDTH, expression, quoted
from batchmap.spec.layers import LSTM, Recurrent

if TYPE_CHECKING:
    from batchmap.spec.batch import Batch


class Script:
    """A lone layer on its way to text: from `inputs` to `outputs`, and the final state.

    single: what one call of a driver runs, which is the first layer of a stack that is run layer by layer.
    native: the call that runs it with TensorFlow's own cells, if they hold it. batch: sizes of the data; without
    them the layer becomes a function.
    """

    def __init__(self, layer: Recurrent, single: Recurrent, native: Call | None, batch: Batch | None) -> None:
        self.layer = layer
        self.both = layer.direction == "both"
        self.ways = ("_fw", "_bw") if self.both else ("",)
        self.sizes = (batch.cases, batch.sequence_length) if batch else (None, None)
        self.sized = None not in self.sizes
        self.single = single
        self.size = "size" if self.sized else str(layer.units)
        self.native = None
        if native is not None:
            cell = native["cell_fw" if self.both else "cell"]
            self.native = dressed(cell, layer, units=Name(self.size) if self.sized else layer.units)
        self.cell = Cell(single, masked=False) if native is None else None
        self.looped = single.layers < layer.layers
        if self.looped and layer.carried_state:
            raise Unsupported(
                f"a stack of {layer.layers} layers with carried_state=True cannot be written as one script",
                "each layer of it is run by a call of its own, with a state of its own",
                "the layers one by one",
                framework="tensorflow",
                field="carried_state",
                value=True,
            )

    def text(self) -> str:
        blocks = ["\n".join(self.cell.lines())] if self.cell else []
        blocks.append("\n".join(self._sized() if self.sized else self._function()))
        return module("", blocks, legacy=self.cell is None)

    def _sized(self) -> list[str]:
        """A script for data of known sizes."""
        layer = self.layer
        names = ("batch_size", "num_steps") if layer.cases_first else ("num_steps", "batch_size")
        axes = "cases, time, features" if layer.cases_first else "time, cases, features"
        dtype = "" if layer.dtype == "float32" else f", tf.{layer.dtype}"
        inputs = f"inputs = tf.zeros([{names[0]}, {names[1]}, {layer.features}]{dtype})  # {axes}"
        sizes = [f"batch_size = {self.sizes[0]}", f"num_steps = {self.sizes[1]}", f"size = {layer.units}"]
        if self.looped:
            head = f"for layer in range({layer.layers}):"
            return [*sizes, "", inputs, *self._loop(head, self._cells(4), 4)]
        return [
            *sizes,
            "",
            *self._cells(0),
            *self._initial("batch_size"),
            inputs,
            *self._run("inputs", 0),
            *self._last(),
        ]

    def _function(self) -> list[str]:
        """A function for data of any size."""
        layer = self.layer
        axes = "cases, time" if layer.cases_first else "time, cases"
        cells = self._cells(0)
        body = [*self._run("inputs", 4), *self._last()]
        if self.looped:
            cells, head = self._lists(), ", ".join(f"cell{way}" for way in self.ways)
            zipped = f"zip({', '.join(f'cells{way}' for way in self.ways)}, strict=True)" if self.both else "cells"
            head = f"for layer, {f'({head})' if self.both else head} in enumerate({zipped}):"
            body = self._loop(head, [], 8)
        state = "states" if self.looped else f"({self._states()})" if self.both else "state"
        output = "tuple[tf.Tensor, tf.Tensor]" if layer.merge == "separate" else "tf.Tensor"
        result = "output" if layer.output == "last" else "outputs"
        stated = layer.returned_state or layer.carried_state
        returns = f"tuple[{output}, tuple]" if stated else output
        given = ["inputs: tf.Tensor", *(f"state{way}: tuple" for way in self.ways if layer.carried_state)]
        about = f"inputs: [{axes}, {layer.features}]."
        if layer.carried_state:
            about += f"\n\nstate: that of the window before, at first cell.zero_state(cases, tf.{layer.dtype})."
        return [
            *cells,
            "",
            "",
            f"def {layer.kind.lower()}({', '.join(given)}) -> {returns}:",
            *indent(quoted(about).split("\n")),
            *indent(body),
            f"    return {result}, {state}" if stated else f"    return {result}",
        ]

    def _states(self) -> str:
        return ", ".join(f"state{way}" for way in self.ways)

    def _made(self, way: str, depth: int, used: int = 0) -> str:
        """The text that makes the cell of one direction."""
        if self.cell is None:
            return expression(self.native, FRAMEWORK, indent=depth, used=used)
        name, features = f'"{self.layer.kind.lower()}', str(self.layer.features)
        if self.looped:
            name, features = 'f"layer_{layer}', f"{self.layer.input_size(1)} if layer else {self.layer.features}"
        sizes = ", ".join([self.size, *(str(size) for size in self.cell.sizes(self.layer)[1:])])
        return f'{self.cell.name}({name}{way.replace("_", "/")}", {features}, {sizes})'

    def _cells(self, depth: int) -> list[str]:
        """One cell for each direction."""
        return [
            f"cell{way} = {self._made(way, depth, len(f'cell{way} = '))}".replace("\n" + " " * depth, "\n")
            for way in self.ways
        ]

    def _lists(self) -> list[str]:
        """A list of cells for each direction, one a layer."""
        lines = []
        for way in self.ways:
            each = f"for layer in range({self.layer.layers})"
            whole = f"{self._made(way, 4)} {each}"
            parts = [whole] if len(whole) <= WIDTH - 4 else [self._made(way, 4), each]
            flat = f"cells{way} = [{whole}]"
            lines += [flat] if len(flat) <= WIDTH else [f"cells{way} = [", *("    " + part for part in parts), "]"]
        return lines

    def _initial(self, cases: str) -> list[str]:
        """The states that the cells start from, where those are carried."""
        if not self.layer.carried_state:
            return []
        comment = "  # of the first window"
        return [f"state{way} = cell{way}.zero_state({cases}, tf.{self.layer.dtype}){comment}" for way in self.ways]

    def _run(self, inputs: str, depth: int) -> list[str]:
        """From inputs to outputs over all time steps."""
        layer, lines = self.layer, []
        time = 1 if layer.cases_first else 0
        if layer.direction == "backward":
            lines.append(f"{inputs} = tf.reverse({inputs}, [{time}])")
        arguments = [*(f"cell{way}" for way in self.ways), inputs]
        if layer.carried_state:
            arguments += [f"initial_state{way}=state{way}" for way in self.ways]
        arguments.append(f"dtype=tf.{layer.dtype}")
        if not layer.cases_first:
            arguments.append("time_major=True")
        if self.looped and self.cell is None:
            arguments.append('scope=f"layer_{layer}"')
        outputs = "(forward, backward)" if self.both else "outputs"
        states = f"({self._states()})" if self.both else "state"
        lines += wrapped(f"{outputs}, {states} = {driver(layer)}(", arguments, ")", depth)
        if layer.output == "sequence" and not self.looped:
            if self.both:
                lines.append(f"outputs = {merged(layer, 'forward', 'backward')}")
            elif layer.direction == "backward" and layer.order == "time":
                lines.append(f"outputs = tf.reverse(outputs, [{time}])")
        return lines

    def _last(self) -> list[str]:
        """The last output, where that is what the layer returns."""
        layer = self.layer
        if layer.output == "sequence":
            return []
        h = "" if not isinstance(layer, LSTM) else ".h" if self.cell is None else "[-1]"
        top = "[-1]" if self.single.layers > 1 else ""
        last = [f"state{way}{top}{h}" for way in self.ways]
        return [f"output = {merged(layer, *last) if self.both else last[0]}  # cases, units"]

    def _loop(self, head: str, cells: list[str], depth: int) -> list[str]:
        """One layer after the other, each reading what the one below gives."""
        layer = self.layer
        body = [*cells, *self._run("outputs", depth)]
        if self.both:
            body.append(f"outputs = {merged(layer, 'forward', 'backward')}")
        elif layer.direction == "backward":
            body.append(f"outputs = tf.reverse(outputs, [{1 if layer.cases_first else 0}])")
        collected = layer.returned_state and not self.sized
        if collected:
            body.append(f"states.append(({self._states()}))" if self.both else "states.append(state)")
        lines = ["outputs = inputs", *(["states = []"] if collected else [])]
        lines += [head, *indent(body), *self._last()]
        if layer.order == "processing":
            lines.append(f"outputs = tf.reverse(outputs, [{1 if layer.cases_first else 0}])")
        return lines
