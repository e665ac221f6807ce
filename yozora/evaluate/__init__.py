"""How good a model is: what its clips show against what the prompts asked for, and what its autoencoder loses.

Measured by small networks that are trained on renders and ship with the package; `yozora evaluate` makes the report,
`bench/` makes tables.
"""

from yozora.evaluate.following import Prompt, Score, film, following_prompts, score, shuffled
from yozora.evaluate.inspector import Finding, inspect_clip, load_inspector
from yozora.evaluate.motion import Track, direction, track
from yozora.evaluate.pixels import flicker, smoothness, ssim
from yozora.evaluate.reconstruction import psnr, reconstruct
from yozora.evaluate.section import Section, Shown

__all__ = [
    "Finding",
    "Prompt",
    "Score",
    "Section",
    "Shown",
    "Track",
    "direction",
    "film",
    "flicker",
    "following_prompts",
    "inspect_clip",
    "load_inspector",
    "psnr",
    "reconstruct",
    "score",
    "shuffled",
    "smoothness",
    "ssim",
    "track",
]
