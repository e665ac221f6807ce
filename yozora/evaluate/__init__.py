"""How good a model is: what its clips show against what the prompts asked for, and what its autoencoder loses.

Measured by a small network that is trained on renders and ships with the package; `bench/` makes the tables.
"""

from yozora.evaluate.following import Prompt, Score, film, following_prompts, score, shuffled
from yozora.evaluate.inspector import Finding, inspect_clip, load_inspector
from yozora.evaluate.motion import Track, direction, track
from yozora.evaluate.reconstruction import psnr, reconstruct

__all__ = [
    "Finding",
    "Prompt",
    "Score",
    "Track",
    "direction",
    "film",
    "following_prompts",
    "inspect_clip",
    "load_inspector",
    "psnr",
    "reconstruct",
    "score",
    "shuffled",
    "track",
]
