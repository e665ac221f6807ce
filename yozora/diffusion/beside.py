"""Guidance by clips that the model is shown beside the text: a scale of its own for what they change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from yozora.diffusion.guidance import DETAIL, Text, Velocity, across, join, repeat
from yozora.models.retrieval import Beside, RetrievalAdapter
from yozora.models.transformer import Transformer


@dataclass(frozen=True, eq=False)
class ShownClips:
    """Clean latents `[K, C, T, h, w]` that every row is shown, and the `adapter` that makes tokens of them. `scale`:
    how much what they change counts; 1 is as it was trained."""

    adapter: RetrievalAdapter
    latents: Tensor
    scale: float = 1.0


@torch.no_grad()
def guided_beside(
    model: Transformer,
    text: Text,
    null: Text | None,
    guidance: float,
    clips: ShownClips,
    projected: bool = False,
) -> Velocity:
    """With v of text and clips, of the text alone and of the null text without clips:

        v(clips) + (guidance - 1) · (v(clips) - v(null)) + (scale - 1) · (v(clips) - v(text))

    So at scale 1 a step takes no more passes than without clips, and one more at any other. Arguments are those of
    `guided`. Raises ModelError where the adapter is another transformer's.
    """
    if null is None and guidance != 1.0:
        raise ValueError(f"guidance {guidance:g} needs the states of a null text")
    batch, alone = text[0].shape[0], clips.scale != 1.0
    null = None if guidance == 1.0 else null
    kinds = ["clips", *(["text"] if alone else []), *(["null"] if null is not None else [])]
    states, mask = text if null is None else join(text, repeat(null, batch))
    rows = torch.cat([torch.arange(batch) + batch * (kind == "null") for kind in kinds]).to(states.device)
    states, mask = states[rows], None if mask is None else mask[rows]
    latents = clips.latents[None].expand(len(states), *clips.latents.shape)
    shown = torch.zeros(len(states), latents.shape[1], dtype=torch.bool, device=states.device)
    shown[:batch] = True
    prompts, looked = model.prepare_text(states), clips.adapter.look(model, latents, shown)
    asked = Beside(model)

    def ask(noisy: Tensor, levels: Tensor, count: int) -> list[Tensor]:
        """What the model says to the first `count` of `kinds`, in one pass."""
        rows = slice(count * batch)
        texts = [(k[rows], v[rows]) for k, v in prompts]
        given = torch.cat([noisy] * count), torch.cat([levels] * count), texts, None if mask is None else mask[rows]
        return list(asked(*given, looked.rows(rows)).split(batch))

    def velocity(noisy: Tensor, levels: Tensor, _: Tensor) -> Tensor:
        late = projected and float(levels.max()) < DETAIL
        said = dict(zip(kinds, ask(noisy, levels, len(kinds) - (null is not None and late)), strict=False))
        with_clips = answer = said["clips"]
        if alone:
            answer = answer + (clips.scale - 1) * (with_clips - said["text"])
        if "null" in said:
            push = with_clips - said["null"]
            if projected:
                early = levels.flatten(1).amax(1).view(-1, 1, 1, 1, 1) >= DETAIL
                push = torch.where(early, across(push, noisy, with_clips, levels), 0.0)
            answer = answer + (guidance - 1) * push
        return answer

    return velocity
