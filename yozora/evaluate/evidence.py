"""What a clip shows, in numbers, for `yozora.models.weigher` to weigh: what the inspector and the reader say, and
geometry: where things are in the picture and, seen by the camera that explains the background best, on the ground.

A thing's size is told by how large it looks and how far below the horizon it stands; where it goes, by where it stands
on the ground while the camera moves, too. Every number is about 0, and of about unit size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from yozora.clip import Clip
from yozora.evaluate.background import hardly_changes, stands_still
from yozora.evaluate.camera import AMOUNTS, LED, PLAIN, Filmed, camera_of, filmed
from yozora.evaluate.hidden import moving_thing
from yozora.evaluate.inspector import Look, count_things, look_at_things
from yozora.evaluate.motion import LEAST_FRAMES
from yozora.evaluate.reading import follow_both, said_of, shown_to, surface_of
from yozora.models.inspector import Inspector
from yozora.models.reader import Reader
from yozora.world.cameras import film
from yozora.world.scene import CAMERA_DIRECTIONS, Camera, Scene

CANDIDATES = 4  # the largest thing; the first and the second of two; what moves before or behind a wall
MOMENTS = 13  # at which a thing is looked for, evenly spread
CHANNELS = 14  # numbers a moment
ROWS = 32  # of a picture, in which the horizon is looked for
PICTURES = 3  # of a clip, of which the rows are: the first, one in the middle and the last
COUNTS = 4  # things that are told apart by number
WAYS = tuple((kind, to) for kind in AMOUNTS for to in CAMERA_DIRECTIONS[kind])
MIRRORED = [WAYS.index((kind, {"left": "right", "right": "left"}.get(to, to))) for kind, to in WAYS]
FLIPPED = (0, 7, 10)  # channels of a track that are another sign in a mirror
FALLS = -0.03  # a ray that falls less is taken to meet the ground as far away as one that falls so
LIGHT = 1e-3  # over the short side: how far corners are off at least, for their ratio to count
LEAST = -10.0  # a log probability that is less counts as this
FARTHEST = 4.0  # of a track's numbers
NEVER = 0.02  # a share, or a side over the frame's height, that counts as none


class Evidence(NamedTuple):
    """Of clips [N]: `tracks` of each candidate, `looks` of each (its shapes' and its surface's log probabilities, its
    colours' shares, in how many frames it is seen and whether it is cut off), what the reader's heads say (`said`, log
    probabilities, all of them in order), and the `whole`: the camera, how many things there are, and the horizon."""

    tracks: Float[Tensor, "n c k t"]
    looks: Float[Tensor, "n c l"]
    said: Float[Tensor, "n s"]
    whole: Float[Tensor, "n w"]


@dataclass(frozen=True)
class Sight:
    """What was seen of a clip: the CANDIDATES, their surfaces' log probabilities [T, materials], what the reader was
    shown [T', 4, S, S] and said of it [classes], the camera, how many things, and what the background tells."""

    looks: Sequence[Look]
    surfaces: Sequence[Tensor]
    read: Tensor
    said: Mapping[str, Tensor]
    filmed: Filmed | None
    count: int
    still: tuple[bool, bool]

    @property
    def seen(self) -> np.ndarray:
        """Where any thing is, bool [T, h, w]."""
        return torch.stack([look.mask for look in self.looks[:3]]).any(0).numpy()


@torch.no_grad()
def look_around(clip: Clip, inspector: Inspector, reader: Reader) -> Sight:
    """All that is asked of a clip."""
    looks = [*look_at_things(clip, inspector, pair=True), moving_thing(clip, inspector)]
    shown = shown_to(reader, clip, inspector)
    surfaces = [surface_of(look, reader) for look in looks]
    seen = torch.stack([look.mask for look in looks[:3]]).any(0).numpy()
    still = stands_still(clip.frames, seen), hardly_changes(clip.frames, seen)
    camera, count = filmed(clip.frames, seen), count_things(clip, inspector)
    return Sight(looks, surfaces, shown.cpu(), said_of(shown, reader), camera, count, still)


def gather(sight: Sight) -> Evidence:
    """The evidence of one clip, as a batch of one."""
    length = len(sight.looks[0].mask)
    view = View.of(sight.filmed, length)
    tracks, looks = [], []
    for look, surface, frames in zip(*_candidates(sight), strict=True):
        tracks.append(_track(look, frames, length, view))
        looks.append(_look(look, surface, length))
    said = torch.cat(list(sight.said.values())).clamp_min(LEAST)
    parts = (np.stack(tracks).clip(-FARTHEST, FARTHEST), torch.stack(looks), said, _whole(sight))
    return Evidence(*(torch.as_tensor(part, dtype=torch.float32)[None] for part in parts))


def mirrored(evidence: Evidence) -> Evidence:
    """The same of clips in a mirror."""
    sign = torch.ones(CHANNELS)
    sign[list(FLIPPED)] = -1
    ways = len(WAYS)
    order = [start + n for start in (0, ways, 2 * ways) for n in MIRRORED]
    whole = torch.cat([evidence.whole[:, order], evidence.whole[:, 3 * ways :]], dim=1)
    return evidence._replace(tracks=evidence.tracks * sign[:, None], whole=whole)


class View(NamedTuple):
    """The camera at MOMENTS: centre [M, 3], axes [M, 3, 3], half of the vertical field of view's tangent [M]."""

    eye: np.ndarray
    look: np.ndarray
    half: np.ndarray

    @classmethod
    def of(cls, read: Filmed | None, frames: int) -> View:
        """The way that explains the background, where one does, of a camera as the world has them."""
        camera = PLAIN
        if read is not None:
            way, off = min(read.ways.items(), key=lambda each: each[1])
            if off < LED * read.still:
                camera = Camera(*way, read.amounts[way], PLAIN.distance, PLAIN.height, PLAIN.fov)
        scene = Scene(0, (), camera=camera)
        eye, look, fov = film(scene, np.linspace(0.0, scene.duration, MOMENTS))
        return cls(eye, look, np.tan(fov / 2))

    def ray(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Unit rays [M, 3] in the world through places [M] of the picture, from its middle, over half its height."""
        local = np.stack([x * self.half, -y * self.half, np.ones_like(x)], axis=1)
        rays = np.einsum("mi,mij->mj", local, self.look)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _candidates(sight: Sight) -> tuple[list[Look], list[Tensor], list[np.ndarray]]:
    """The looks, their surfaces and the numbers of their frames; the pair followed where both are seen."""
    largest, first, second, moving = sight.looks
    every = np.arange(len(largest.mask))
    looks, surfaces, frames = [largest, first, second, moving], list(sight.surfaces), [every] * CANDIDATES
    both = torch.stack([look.mask.flatten(1).any(1) for look in (first, second)]).all(0)
    marked = [look._replace(squares=surface) for look, surface in zip((first, second), surfaces[1:3], strict=True)]
    if int(both.sum()) >= LEAST_FRAMES and (followed := follow_both(marked)):  # what they are of goes with them
        looks[1:3], surfaces[1:3] = followed, [look.squares for look in followed]
        frames[1:3] = [every[both.numpy()]] * 2
    return looks, surfaces, frames


def _track(look: Look, frames: np.ndarray, length: int, view: View) -> np.ndarray:
    """[CHANNELS, MOMENTS]: where the thing is in the picture, how large, and where on the ground; all 0 for none."""
    mask = look.mask.numpy()
    height, width = mask.shape[1:]
    area = mask.sum((1, 2))
    seen = area > 0
    out = np.zeros((CHANNELS, MOMENTS))
    if not seen.any():
        return out
    some, at = mask[seen], np.linspace(0, length - 1, MOMENTS)
    columns, rows = np.asarray(some.any(1)), np.asarray(some.any(2))
    left, right = columns.argmax(1), width - columns[:, ::-1].argmax(1)
    top, foot = rows.argmax(1), height - rows[:, ::-1].argmax(1)
    middle = (some.sum(1) * (np.arange(width) + 0.5)).sum(1) / area[seen]
    level = (some.sum(2) * (np.arange(height) + 0.5)).sum(1) / area[seen]
    half = height / 2
    edge = (left == 0) | (right == width) | (top == 0) | (foot == height)
    measures = [(middle - width / 2) / half, level / half - 1, np.sqrt(area[seen]) / height, foot / half - 1]
    measures += [np.log((right - left) / (foot - top)), area[seen] / ((right - left) * (foot - top)), edge]
    x, y, side, low, shape, full, cut = (np.interp(at, frames[seen], each) for each in measures)
    to_foot, to_middle = view.ray(x, low), view.ray(x, y)
    reach = view.eye[:, 2] / np.maximum(-to_foot[:, 2], -FALLS)
    ground = view.eye[:, :2] + reach[:, None] * to_foot[:, :2]
    known = np.interp(at, np.arange(length), np.isin(np.arange(length), frames[seen]).astype(float))
    big = np.log(np.maximum(side * view.half * reach, NEVER)) + 0.5  # how many metres that is, there
    out[:] = [
        *(x, y, np.log(np.maximum(side, NEVER)) + 1.7, low, shape, full * 2 - 1, cut),
        *(2 * to_middle[:, 0], 4 * to_middle[:, 2], 4 * to_foot[:, 2]),
        *(ground[:, 0] / 1.5, ground[:, 1].clip(-6, 12) / 3, big, known),
    ]
    return out


def _look(look: Look, surface: Tensor, length: int) -> Tensor:
    """[L]: what a candidate looks like: its shapes', its materials' log probabilities, its colours' shares in all, in
    the first and in the last quarter of the frames, how probable each shape and material is on the mean, in how many
    frames it is seen, and in how many of these wholly."""
    judged = look.judged
    if not judged.any():
        return torch.zeros(2 * (look.shapes.shape[1] + surface.shape[1]) + 3 * look.votes.shape[1] + 2)
    shapes, made = (each[judged].mean(0).clamp_min(LEAST) for each in (look.shapes.float(), surface.float()))
    votes, quarter = look.votes[look.votes.any(1)].float(), -(-int(judged.sum()) // 4)
    shares = [each.sum(0) / each.sum() for each in (votes, votes[:quarter], votes[-quarter:])]
    often = [each[judged].exp().mean(0) for each in (look.shapes.float(), surface.float())]
    seen = look.mask.flatten(1).any(1).sum() / length
    return torch.cat([shapes / 2, made / 2, *shares, *often, torch.stack([seen, judged.float().mean()])])


def _whole(sight: Sight) -> Tensor:
    """[W]: how much better than a camera that stands still each way explains the background, by what amount, and which
    is surely the one; the camera's other numbers; how many things; and the rows of three pictures."""
    known = sight.filmed
    if known is None:
        camera = [0.0] * (3 * len(WAYS) + 8)
    else:
        ways = [np.log((known.ways[way] + LIGHT) / (known.still + LIGHT)) for way in WAYS]
        spans = [AMOUNTS[kind] for kind, _ in WAYS]
        amounts = [
            (known.amounts[way] - low) / (high - low) - 0.5 for way, (low, high) in zip(WAYS, spans, strict=True)
        ]
        shaken = np.log((known.shaken + LIGHT) / (known.still + LIGHT))
        sure = camera_of(known)
        rule = [float(sure == way) for way in (*WAYS, ("still", ""), ("handheld", ""), None)]
        camera = [*ways, *amounts, *rule, np.log(known.still + LIGHT) / 2 + 2.5, shaken, known.steady]
        camera += [min(ways) - shaken, 1.0]
    count = F.one_hot(torch.tensor(min(max(sight.count, 1), COUNTS) - 1), COUNTS).float()
    frames = len(sight.read)
    rows = [_rows(sight.read[at * (frames - 1) // (PICTURES - 1)]) for at in range(PICTURES)]
    return torch.cat([torch.tensor([*camera, *map(float, sight.still)]), count, *rows])


def _rows(picture: Tensor) -> Tensor:
    """[ROWS]: how much brighter or darker each row of a picture [4, S, S] is than the next, where no thing is."""
    free = (1 - picture[3].clamp(-1, 1)) / 2 + 1e-3
    tone = (picture[:3].mean(0) * free).sum(1) / free.sum(1)
    rows = F.adaptive_avg_pool1d(tone[None, None], ROWS)[0, 0]
    return F.pad((rows[1:] - rows[:-1]).abs() * 5, (0, 1)).clamp(max=2)
