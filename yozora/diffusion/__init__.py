"""Flow matching: the path from picture to noise, noise levels of every token, solvers, guidance, and the one sampler.

What a canvas is stays outside: the sampler needs a velocity function, noise, and what is held how firmly.
"""

from yozora.diffusion.guidance import (
    Text,
    Velocity,
    cue_text,
    flow_map,
    guided,
    in_whole_levels,
    join,
    of_some,
    row_by_row,
)
from yozora.diffusion.levels import SCHEDULES, UNROUNDED, begin_at, sample_levels, schedule, shift_levels, whole_levels
from yozora.diffusion.path import add_noise, flow_count, flow_error, flow_loss, spread_levels, velocity_target
from yozora.diffusion.sampler import Step, sample
from yozora.diffusion.solvers import FLOW_MAP, SOLVERS

__all__ = [
    "FLOW_MAP",
    "SCHEDULES",
    "SOLVERS",
    "UNROUNDED",
    "Step",
    "Text",
    "Velocity",
    "add_noise",
    "begin_at",
    "cue_text",
    "flow_count",
    "flow_error",
    "flow_loss",
    "flow_map",
    "guided",
    "in_whole_levels",
    "join",
    "of_some",
    "row_by_row",
    "sample",
    "sample_levels",
    "schedule",
    "shift_levels",
    "spread_levels",
    "velocity_target",
    "whole_levels",
]
