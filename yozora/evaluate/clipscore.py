"""The CLIP score: how well frames go with a text, by a network that was trained on pictures and captions of the web.

Its weights are not part of this package: it is given as a folder, and read from there alone, by transformers.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yozora.clip import Clip
from yozora.errors import ConfigError, ModelError

FRAMES = 8  # of a clip, evenly spaced


class ClipScore:
    """A CLIP model out of a folder as transformers saves it. Raises ConfigError where transformers is missing,
    ModelError for a folder that holds none."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        try:
            library: Any = importlib.import_module("transformers")
        except ImportError:
            raise ConfigError("the CLIP score needs transformers: pip install transformers") from None
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is no CLIP model: it has no config.json")
        library.utils.logging.disable_progress_bar()
        try:
            self.model = library.CLIPModel.from_pretrained(folder, local_files_only=True).eval().to(device)
            self.processor = library.CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers and what it calls raise all sorts for files that are damaged
            reason = str(error).strip().split("\n")[0][:200]
            raise ModelError(f"{folder} is no CLIP model that can be read: {reason}") from None

    @torch.inference_mode()
    def __call__(self, clip: Clip, prompt: str) -> float:
        """100 max(0, cos) of the prompt and a frame, the mean over FRAMES (Hessel et al., 2021, without their 2.5)."""
        chosen = np.unique(np.linspace(0, len(clip.frames) - 1, FRAMES).round().astype(int))
        given = self.processor(
            text=[prompt],
            images=list(clip.frames[chosen]),
            return_tensors="pt",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,  # what is longer is not read
        ).to(self.model.device)
        found = self.model(**given)
        cosines = torch.cosine_similarity(found.image_embeds, found.text_embeds)
        return float(100 * cosines.clamp(min=0).mean())
