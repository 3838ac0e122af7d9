"""Ordinary PyTorch modules, written as people write them: imports on top, layers made once, `forward` straight down."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from keras_networks import TOKENS, features, tokens


def settle(module: Any, seed: int = 0) -> Any:
    """Gives a module weights that make every mistake show."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.as_tensor(0.5 * rng.normal(size=tuple(parameter.shape))))
    return module.eval()


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4, padding_idx=0)
        self.encoder = nn.LSTM(4, 5, num_layers=2, batch_first=True, bidirectional=True, dropout=0.2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(10, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1)
        x = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.encoder(x)
        x = torch.cat((h[-2], h[-1]), -1)
        return self.head(self.drop(x))


class Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.gru(x)
        return self.head(out[:, -1])


class Scorer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, 4)
        self.rnn = nn.GRU(4, 5, batch_first=True)
        self.out = nn.Linear(5, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(dim=1).cpu()
        x = self.words(tokens)
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, h = self.rnn(x)
        return torch.sigmoid(self.out(h[-1]))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.top = nn.GRU(6, 4, batch_first=True)
        self.tags = nn.Linear(4, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1)
        x = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        x, _ = self.lstm(x)
        x, _ = self.top(x)
        x, _ = pad_packed_sequence(x, batch_first=True, total_length=tokens.shape[1])
        return F.softmax(self.tags(x), dim=2)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.below = nn.RNN(3, 5, nonlinearity="relu", batch_first=True, bias=False)
        self.above = nn.LSTM(5, 4, batch_first=True, bidirectional=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.below(x)
        x, _ = self.above(torch.tanh(x))
        return self.head(x)


class Twofold(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.LSTM(3, 4, batch_first=True)
        self.right = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.left(x)
        _, g = self.right(x)
        return torch.relu(self.head(torch.cat([h[-1], g[-1]], dim=1)))


class Topics(nn.Module):
    """Unpacks between its layers, without total_length, and packs again."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4)
        self.below = nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.above = nn.GRU(6, 5, batch_first=True)
        self.topics = nn.Linear(5, 3)
        self.choice = nn.Softmax(dim=1)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1, dtype=torch.int64)
        x = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        x, lengths = pad_packed_sequence(self.below(x)[0], batch_first=True)
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x = F.dropout(self.above(x)[1][-1], 0.4, training=self.training)
        return self.choice(self.topics(x))


class Window(nn.Module):
    """Returns all its steps; those with a token above 0 count."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4)
        self.rnn = nn.RNN(4, 5, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens > 0).sum(dim=-1)
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=tokens.size(1))
        return x


class Plain(nn.Module):
    """A layer that says nothing of its axes: the packed sequence does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4)
        self.below = nn.LSTM(4, 3)
        self.above = nn.GRU(3, 5, bidirectional=True)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = torch.count_nonzero(tokens, dim=1)
        x = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, h = self.above(self.below(x)[0])
        return torch.cat((h[0], h[1]), 1)


class Tutorial(nn.Module):
    """Starts from zeros of its own making, as most tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.layers = 5, 2
        self.lstm = nn.LSTM(3, self.hidden, self.layers, batch_first=True)
        self.gru = nn.GRU(5, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h0 = torch.zeros(self.layers, x.size(0), self.hidden).to(x.device)
        c0 = torch.zeros(self.layers, x.size(0), self.hidden, device=x.device).requires_grad_()
        out, _ = self.lstm(x, (h0.detach(), c0.detach()))
        out, hn = self.gru(out, x.new_zeros(1, x.shape[0], 4))
        return self.fc(hn[-1, :, :])


class Rear(nn.Module):
    """Runs backward by turning its data round, and what comes out round again."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.GRU(3, 4, batch_first=True)
        self.back = nn.GRU(3, 4, batch_first=True)
        self.end = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        back, _ = self.back(torch.flip(x, [1]))
        x = torch.cat((self.there(x)[0], back.flip(1)), -1)
        _, (h, _) = self.end(x.flip(dims=(1,)))
        return h[-1]


NETWORKS = {  # name to the module, and what makes its input
    "classifier": (Classifier, tokens),
    "regressor": (Regressor, features),
    "scorer": (Scorer, tokens),
    "tagger": (Tagger, tokens),
    "sequence": (Sequence, features),
    "twofold": (Twofold, features),
    "topics": (Topics, tokens),
    "window": (Window, tokens),
    "plain": (Plain, tokens),
    "tutorial": (Tutorial, features),
    "rear": (Rear, features),
}


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.gru(x)
        if out.sum() > 0:
            return out
        return -out


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.twice(x)
        x, _ = self.twice(x)
        return x


class Normalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.norm = nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(x)
        return self.norm(x)


class CellState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        _, (_, c) = self.lstm(x)
        return c[-1]


class Started(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.below = nn.GRU(3, 5, batch_first=True)
        self.above = nn.GRU(5, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, h = self.below(x)
        x, _ = self.above(x, h)
        return x


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(x)
        x.relu_()
        return self.head(x)


class Middle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.gru(x)
        return h[0]


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(x)
        return x * self.scale


class Unlabelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        _, h = self.gru(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return h[-1]


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(x)
        return F.dropout(x, 0.5)


class Steep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(x)
        return F.softplus(x, beta=3)


class Cut(nn.Module):
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4)
        self.gru = nn.GRU(4, 5, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1)
        x = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.gru(x)[0], batch_first=True, **self.options)
        return x


class Marked(Cut):
    options: ClassVar[dict[str, Any]] = {"padding_value": -1.0}


class Longer(Cut):
    options: ClassVar[dict[str, Any]] = {"total_length": 20}


class FirstCase(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.gru(x)
        return h[-1, :2]


class Steeper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.rise = nn.Softplus(beta=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rise(self.gru(x)[0])


class Lengthened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.GRU(3, 5, batch_first=True), nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.relu(self.one(x)[0]), torch.relu(self.two(x)[0])), dim=1)


class Feature(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[1][-1])[:, 0]


class BothOrders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.back = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.back(x.flip(1))
        return torch.cat((x.flip(1), x), -1)


class Odd(Cut):
    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1, keepdim=True)
        return self.gru(pack_padded_sequence(self.embed(tokens), lengths, True, False))[1][-1]


class Sideways(Cut):
    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(0)
        return self.gru(pack_padded_sequence(self.embed(tokens), lengths, True, False))[1][-1]


class Unpacked(Cut):
    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1)
        x = pack_padded_sequence(self.embed(tokens), lengths, True, False)
        return pad_packed_sequence(self.gru(x)[0], total_length=tokens.shape[1])[0]


class Across(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru(x)
        return F.softmax(x, dim=1)


def right_padded_lengths(mask: Tensor) -> Tensor:
    """Has the name of a function that batchmap writes, and does something else."""
    return mask.sum(1) + 1 if mask.any() else mask.sum(1)


class Alike(Cut):
    def forward(self, tokens: Tensor) -> Tensor:
        lengths = right_padded_lengths(tokens != 0)
        x = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        return self.gru(x)[1][-1]


REFUSED = {  # name to the module, and what the refusal has to say
    "Branching": (Branching, "its course depends on its data"),
    "Repeated": (Repeated, 'its layer "twice" is called twice'),
    "Normalized": (Normalized, 'its layer "norm" is a LayerNorm'),
    "CellState": (CellState, "cell state c"),
    "Started": (Started, "initial states"),
    "InPlace": (InPlace, "relu_ changes a tensor in its place"),
    "Middle": (Middle, "not of its top layer"),
    "Own": (Own, "self.scale"),
    "Dropping": (Dropping, "drops in evaluation too"),
    "Steep": (Steep, "softplus is given beta"),
    "Cut": (Cut, 'cuts the output of "gru" to the longest case of the batch'),
    "Marked": (Marked, "it pads with -1"),
    "Longer": (Longer, "its total_length is not the number of time steps"),
    "BothOrders": (BothOrders, "in both orders of time"),
    "Odd": (Odd, "sum is called in a way that has no canonical reading"),
    "Steeper": (Steeper, "softplus is given beta"),
    "Lengthened": (Lengthened, "along another axis than features"),
    "Feature": (Feature, "a part of a tensor that is not one time step"),
    "FirstCase": (FirstCase, "a part of a state that is not all of its layer"),
    "Sideways": (Sideways, "counted along the axis of cases"),
    "Unpacked": (Unpacked, "another order of axes than was packed"),
    "Across": (Across, "softmax is not over the last axis"),
    "Alike": (Alike, "its course depends on its data"),
    "Unlabelled": (Unlabelled, "its lengths come from outside"),
}
