"""The whole sampling of Wan against diffusers' pipelines: grids of levels, UniPC, guidance, held frames, decoding."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from wan_models import tiny_autoencoder, tiny_transformer

from yozora.diffusion import SCHEDULES, UNROUNDED, guided, in_whole_levels, sample, whole_levels
from yozora.models.wan import load_wan_autoencoder, load_wan_transformer

SIZE = (16, 32, 5)  # height, width, frames


def scheduler(grid: str, shift: float) -> Any:
    """diffusers' UniPC as Wan's folders ask for it; the older grid by the levels that the newer code is given."""
    library: Any = importlib.import_module("diffusers")

    class Scheduler(library.UniPCMultistepScheduler):
        def set_timesteps(self, count: int | None = None, device: Any = None, **kwargs: Any) -> None:
            if grid == "wan":
                assert count is not None
                kwargs["sigmas"] = np.flip(1.0 - np.linspace(1, 1 / 1000, count + 1))[:-1].copy()  # as in 0.36
            super().set_timesteps(count, device, **kwargs)

    return Scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=2)


@pytest.mark.parametrize("grid", ["wan", "wan-0.37"])
@pytest.mark.parametrize(
    ("steps", "shift"), [(1, 3.0), (2, 5.0), (3, 1.0), (7, 3.0), (9, 1.0), (15, 1.0), (30, 5.0), (37, 1.0), (50, 8.0)]
)
def test_grids_of_levels(grid: str, steps: int, shift: float) -> None:
    theirs = scheduler(grid, shift)
    theirs.set_timesteps(steps)
    levels = SCHEDULES[grid](steps, shift)
    assert torch.equal(levels.float(), theirs.sigmas)
    whole = whole_levels(levels[:-1].float(), 1000, UNROUNDED[grid](steps, shift))
    assert torch.equal((whole * 1000).round().long(), theirs.timesteps)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize(("grid", "steps", "shift", "guidance"), [
    ("wan", 1, 3.0, 5.0), ("wan", 3, 1.0, 5.0), ("wan", 6, 3.0, 5.0),
    ("wan-0.37", 6, 5.0, 1.0), ("wan-0.37", 12, 3.0, 4.0),
])  # fmt: skip
def test_a_whole_run(grid: str, steps: int, shift: float, guidance: float, per_token: bool, tmp_path: Path) -> None:
    library: Any = importlib.import_module("diffusers")
    transformer, autoencoder = tiny_transformer(), tiny_autoencoder("2.1")
    pipeline = library.WanPipeline(
        None, None, autoencoder, scheduler(grid, shift), transformer, expand_timesteps=per_token
    )
    pipeline.set_progress_bar_config(disable=True)
    noise, text, null = torch.randn(1, 4, 2, 2, 4), torch.randn(1, 6, 24), torch.randn(1, 6, 24)
    arguments = {"prompt_embeds": text, "negative_prompt_embeds": null, "latents": noise, "guidance_scale": guidance}
    height, width, frames = SIZE
    expected, video = (
        pipeline(height=height, width=width, num_frames=frames, num_inference_steps=steps, output_type=kind,
                 **arguments).frames
        for kind in ("latent", "pt")
    )  # fmt: skip

    transformer.save_pretrained(tmp_path / "transformer")
    autoencoder.save_pretrained(tmp_path / "vae")
    ours, decoder = load_wan_transformer(tmp_path / "transformer"), load_wan_autoencoder(tmp_path / "vae")
    velocity = in_whole_levels(guided(ours, (text, None), (null, None), guidance), 1000, UNROUNDED[grid](steps, shift))
    *_, step = sample(velocity, noise, SCHEDULES[grid](steps, shift), solver="unipc")
    assert expected.std() > 0.3
    assert (step.latents - expected).abs().max() <= 1e-4
    shown = decoder.decode(step.latents)[0].transpose(0, 1).clamp(-1, 1) / 2 + 0.5
    assert (shown - torch.as_tensor(video[0])).abs().max() <= 1e-4


def test_a_video_from_its_first_frame(tmp_path: Path) -> None:
    """Wan 2.2 TI2V: the picture's latents are held, with level 0 for their tokens."""
    library: Any = importlib.import_module("diffusers")
    transformer, autoencoder = tiny_transformer(channels=6), tiny_autoencoder("2.2")
    pipeline = library.WanImageToVideoPipeline(
        None, None, autoencoder, scheduler("wan", 5.0), transformer=transformer, expand_timesteps=True
    )
    pipeline.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 32, 64)
    noise, text, null = torch.randn(1, 6, 3, 2, 4), torch.randn(1, 6, 24), torch.randn(1, 6, 24)
    expected = pipeline(
        image=picture, height=32, width=64, num_frames=9, num_inference_steps=5, guidance_scale=3.0, latents=noise,
        prompt_embeds=text, negative_prompt_embeds=null, output_type="latent",
    ).frames  # fmt: skip

    transformer.save_pretrained(tmp_path / "transformer")
    autoencoder.save_pretrained(tmp_path / "vae")
    ours, encoder = load_wan_transformer(tmp_path / "transformer"), load_wan_autoencoder(tmp_path / "vae")
    known = torch.zeros_like(noise)
    known[:, :, :1] = encoder.encode(picture[:, :, None] * 2 - 1)
    hold: Tensor = torch.tensor([[1.0, 0.0, 0.0]])
    velocity = in_whole_levels(guided(ours, (text, None), (null, None), 3.0), 1000)
    *_, step = sample(velocity, noise, SCHEDULES["wan"](5, 5.0), known=known, hold=hold, solver="unipc")
    assert (step.latents - expected).abs().max() <= 1e-4
