"""The weigher: all evidence of a clip weighed against each other, by name: what the thing that is told of is, how
large, of what, how it moves and where to, how it is filmed, and what else there is.

The inspector, the reader and geometry each say something, and none of them knows when it is wrong. A few hundred
thousand numbers, trained on what they said of renders whose facts are known, tell whom to believe when; what comes out
are probabilities, so that a caption may leave unsaid what is not sure. Which of the things that were found is the one
to tell of is weighed, too: what it looks like is then the mixture of what all of them look like. What follows from few
numbers (a size, a motion, a way, the camera) is told by those alone: given all, a network learned its lessons by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LEAST = 0.01  # share of a colour that is nowhere to be seen
MAIN, SECOND = "main", "second"  # heads that say which candidate it is
SIZE, MOTION, DIRECTION, FILMED = "size", "motion", "direction", "filmed"  # heads that may be told alone
RELATION = "relation"  # the head that says where the second thing is from the main one


@dataclass(frozen=True)
class WeigherConfig:
    """`heads` names the classes of each head, in order; `shapes`, `colours` and `materials` those of the candidates'
    looks. The numbers of the evidence (see `yozora.evaluate.evidence`): `candidates`, of each `channels` at `moments`
    and `looks`; `said` by the reader, whose own heads are `reader`; `whole` of all of the clip, of which the last
    `rows` say where the picture gets lighter or darker from top to bottom. Heads in `alone` are told by what they
    depend on alone, through `own` hidden numbers."""

    heads: dict[str, tuple[str, ...]]
    reader: dict[str, tuple[str, ...]]
    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    materials: tuple[str, ...]
    candidates: int
    channels: int
    moments: int
    whole: int
    members: int = 4
    track: int = 24
    thing: int = 32
    width: int = 96
    dropout: float = 0.25
    alone: tuple[str, ...] = (SIZE, MOTION, DIRECTION, FILMED)
    own: int = 64
    rows: int = 96

    def __post_init__(self) -> None:
        object.__setattr__(self, "alone", tuple(head for head in self.alone if head in self.heads))
        for name in ("shapes", "colours", "materials"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON gives lists
        for name in ("heads", "reader"):
            object.__setattr__(self, name, {head: tuple(values) for head, values in getattr(self, name).items()})

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """All that is named, by head: `heads`, and what the main and the second thing look like."""
        main = {"shape": self.shapes, "colour": self.colours, "material": self.materials}
        return self.heads | main | {f"second_{name}": main[name] for name in ("shape", "colour")}

    @property
    def looks(self) -> int:
        """How many numbers say what a candidate looks like."""
        return 2 * (len(self.shapes) + len(self.materials)) + 3 * len(self.colours) + 2

    @property
    def apart(self) -> int:
        """How many relations there are."""
        return len(self.heads.get(RELATION, ()))

    @property
    def said(self) -> int:
        """How many names the reader has."""
        return sum(map(len, self.reader.values()))


class Weigher(nn.Module):
    """Evidence [N] → log probabilities `[N, classes]` of each head, of the `shape`, `colour` and `material` of the
    main thing, and of the `second_shape` and `second_colour`; `main` and `second` [N, candidates]: which they are.

    Several members weigh, each by itself; they are asked together, and learn apart: what is returned is the logarithm
    of their mean, and in training the mean of their logarithms, so that the loss of it is the mean of theirs."""

    def __init__(self, config: WeigherConfig):
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(Member(config) for _ in range(config.members))

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The classes of each head."""
        return self.config.names

    def forward(
        self,
        tracks: Float[Tensor, "n c k t"],
        looks: Float[Tensor, "n c l"],
        said: Float[Tensor, "n s"],
        whole: Float[Tensor, "n w"],
    ) -> dict[str, Float[Tensor, "n classes"]]:
        each = [member(tracks, looks, said, whole) for member in self.members]
        told = {head: torch.stack([one[head] for one in each]) for head in each[0]}
        if self.training:
            return {head: logs.mean(0) for head, logs in told.items()}
        return {head: logs.exp().mean(0).log() for head, logs in told.items()}


class Member(nn.Module):
    """See `Weigher`."""

    def __init__(self, config: WeigherConfig):
        super().__init__()
        self.config = c = config
        self.first = nn.Conv1d(c.channels, c.track, 3, padding=1)
        self.then = nn.Conv1d(c.track, c.track, 3, stride=2, padding=1)
        self.last = nn.Conv1d(c.track, c.track, 3, stride=2, padding=1)
        steps = (c.moments + 3) // 4  # two strides of two
        self.thing = nn.Linear(c.track * steps + 4 * c.channels + c.looks, c.thing)
        self.mix = nn.Linear(c.candidates * c.thing + c.said + c.whole, c.width)
        self.more = nn.Linear(c.width, c.width)
        self.drop = nn.Dropout(c.dropout)
        self.pair = nn.Linear(c.width, c.candidates**2)  # which two, the main thing first
        self.apart = nn.Sequential(nn.Linear(8 * c.channels, c.thing), nn.ReLU(), nn.Linear(c.thing, c.apart))
        self.alone = nn.ModuleDict({head: Alone(self._given(head), len(c.names[head]), c) for head in c.alone})
        others = {head: values for head, values in c.names.items() if head not in c.alone}
        self.name = nn.ModuleDict({head: nn.Linear(c.width, len(values)) for head, values in others.items()})
        self.trust = nn.ParameterDict({head: nn.Parameter(torch.tensor(0.5)) for head in others})
        for head in self.name.values():
            nn.init.zeros_(head.weight)  # pyright: ignore[reportArgumentType]

    def forward(self, tracks: Tensor, looks: Tensor, said: Tensor, whole: Tensor) -> dict[str, Tensor]:
        count, candidates = looks.shape[:2]
        x = F.relu(self.first(tracks.flatten(0, 1)))
        x = F.relu(self.last(F.relu(self.then(x)))).flatten(1)
        about = torch.cat([in_short(tracks.flatten(0, 1)), looks.flatten(0, 1)], dim=1)
        things = F.relu(self.thing(torch.cat([self.drop(x), about], dim=1)))
        x = torch.cat([things.reshape(count, candidates * self.config.thing), said / 3, whole], dim=1)
        x = self.drop(F.relu(self.mix(self.drop(x))))
        x = self.drop(x + F.relu(self.more(x)))
        pair = self.pair(x).log_softmax(1).unflatten(1, (candidates, candidates))
        which = {MAIN: pair.logsumexp(2), SECOND: pair.logsumexp(1)}
        known = self._known(looks, said, which)
        if RELATION in self.name:
            known[RELATION] = (pair[..., None] + self._apart(tracks)).logsumexp((1, 2))
        apart = self._alone(tracks, looks, said, whole, which[MAIN])
        names = {
            head: (name(x) + (self.trust[head] * known[head] if head in known else 0)).log_softmax(1)
            for head, name in self.name.items()
        }
        return which | names | apart

    def _given(self, head: str) -> int:
        """How many numbers `_alone` gives to a head of these."""
        c = self.config
        short, look = 4 * c.channels, len(c.shapes) + len(c.materials)
        read = [len(c.reader.get(name, ())) for name in ("motion", "camera")]
        return {
            SIZE: short + look,
            MOTION: 2 * short + look + 3 * len(c.colours) + read[0],
            DIRECTION: 2 * short + read[0] + c.whole - c.rows,
            FILMED: short + read[1] + c.whole - c.rows,
        }[head]

    def _alone(self, tracks: Tensor, looks: Tensor, said: Tensor, whole: Tensor, main: Tensor) -> dict[str, Tensor]:
        """What is told by what it depends on alone: of the size, the motion and the direction of each candidate,
        weighed by how probably it is the main thing; and of the camera."""
        c = self.config
        short = in_short(tracks.flatten(0, 1)).unflatten(0, tracks.shape[:2])
        moving = short[:, -1:].expand(-1, c.candidates, -1)
        look, colours = looks.split([a := len(c.shapes) + len(c.materials), looks.shape[2] - a], 2)
        read = dict(zip(c.reader, said.split([len(values) for values in c.reader.values()], 1), strict=True))
        motion = (read[MOTION] / 3)[:, None].expand(-1, c.candidates, -1) if MOTION in read else short[..., :0]
        camera = whole[:, : c.whole - c.rows]
        around = camera[:, None].expand(-1, c.candidates, -1)
        given = {
            SIZE: [short, look],
            MOTION: [short, moving, look, colours[..., : 3 * len(c.colours)], motion],
            DIRECTION: [short, moving, motion, around],
        }
        told = {
            head: (main[..., None] + self.alone[head](torch.cat(given[head], dim=2))).logsumexp(1)
            for head in c.alone
            if head in given
        }
        if FILMED in c.alone:
            kinds = [read["camera"] / 3] if "camera" in read else []
            told[FILMED] = self.alone[FILMED](torch.cat([short[:, 0], *kinds, camera], dim=1))
        return told

    def _apart(self, tracks: Tensor) -> Tensor:
        """`[N, candidates, candidates, relations]`: where the second of two is from the first, as log probabilities."""
        short = in_short(tracks.flatten(0, 1)).unflatten(0, tracks.shape[:2])
        first, second = short[:, :, None], short[:, None]
        both = torch.cat([second - first, second + first], dim=-1)
        return self.apart(both).log_softmax(-1)

    def _known(self, looks: Tensor, said: Tensor, which: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is said already, as log probabilities: by the reader, and by how the weighed candidates look."""
        c = self.config
        known = dict(zip(c.reader, said.split([len(values) for values in c.reader.values()], 1), strict=True))
        sizes = (len(c.shapes), len(c.materials), *(3 * (len(c.colours),)))
        shapes, made, colours = looks[..., : sum(sizes)].split(sizes, 2)[:3]
        for prefix, pick in (("", which[MAIN]), ("second_", which[SECOND])):
            known[f"{prefix}shape"] = (pick[..., None] + 2 * shapes).logsumexp(1)
            known[f"{prefix}colour"] = (pick[..., None] + (colours.clamp_min(0) + LEAST).log()).logsumexp(1)
        known["material"] = (which[MAIN][..., None] + 2 * made).logsumexp(1)
        return known


class Alone(nn.Module):
    """Some numbers `[..., given]` → log probabilities `[..., classes]`, by one hidden layer."""

    def __init__(self, given: int, classes: int, config: WeigherConfig):
        super().__init__()
        self.few = nn.Dropout(config.dropout / 3)
        self.first = nn.Linear(given, config.own)
        self.drop = nn.Dropout(config.dropout)
        self.last = nn.Linear(config.own, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(F.relu(self.first(self.few(x))))).log_softmax(-1)


def in_short(tracks: Float[Tensor, "n k t"]) -> Float[Tensor, "n k4"]:
    """Of each number its mean over the moments, how far it gets, how much it goes to and fro
    besides, and its first."""
    ends = max(1, tracks.shape[-1] // 4)
    gone = tracks[..., -ends:].mean(-1) - tracks[..., :ends].mean(-1)
    steps = tracks.diff(dim=-1).abs().mean(-1) - gone.abs() / tracks.shape[-1]
    return torch.cat([tracks.mean(-1), 2 * gone, 4 * steps, tracks[..., 0]], dim=-1)
