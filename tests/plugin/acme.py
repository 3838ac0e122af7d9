"""A framework from outside: words, batch, one layer, in one file."""

from dataclasses import fields

from batchmap.mapping.framework import Counterpart, Framework
from batchmap.mapping.packs import Pack
from batchmap.mapping.rows import Arg, Inferred, Only
from batchmap.spec.layers import RNN
from batchmap.spec.terms import Term

OTHERS = [field for field in fields(RNN) if field.name not in ("units", "features", "bias")]

FRAMEWORK = Framework(
    name="acme",
    title="Acme",
    needs="acme",
    layers=(
        Counterpart(
            RNN,
            "acme.Loop",
            (
                Arg("units", "width"),
                Arg("bias", "shift", True),
                Inferred("features"),
                *(Only(field.name, field.default, "it has no word for it") for field in OTHERS),
            ),
            packs=(
                Pack("kernel", "in", "unit input"),
                Pack("recurrent", "loop", "unit input"),
                Pack("bias", "b", "unit"),
            ),
            positional=1,
        ),
    ),
    batch=(Arg("cases", "bunch", None, of="train"),),
    terms=(Term("bunch", "cases", "cases per update", "train", "8", "1.0", "acme/train.py"),),
    imports={"acme.": ("import acme", "acme.")},
)
