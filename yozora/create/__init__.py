"""Creating: a canvas says what is wanted and what is held, a way draws a canvas, a Generator fills it."""

from yozora.create.canvas import Anchor, Canvas, Cue, HoldMap, fit
from yozora.create.generator import Generator, Progress, Settings, YozoraWarning, load
from yozora.create.sizes import Grid, Native, choose_size, frames_for
from yozora.create.ways import image_to_video, text_to_image, text_to_video

__all__ = [
    "Anchor",
    "Canvas",
    "Cue",
    "Generator",
    "Grid",
    "HoldMap",
    "Native",
    "Progress",
    "Settings",
    "YozoraWarning",
    "choose_size",
    "fit",
    "frames_for",
    "image_to_video",
    "load",
    "text_to_image",
    "text_to_video",
]
