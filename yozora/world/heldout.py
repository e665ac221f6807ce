"""What the model is not trained on, so that results on new combinations can be told apart from memory.

Each part of a held-out combination is seen in training with other partners. A scene is held out if it shows any of:

- a colour on a shape in `COLOUR_SHAPES` (one for six of the ten colours, one for every shape), also as the colour that
  a body changes to;
- a motion under a moving camera in `MOTION_CAMERAS`;
- exactly as many bodies of a shape as `SHAPE_COUNTS` says.
"""

from __future__ import annotations

from yozora.world.scene import Scene

COLOUR_SHAPES = frozenset(
    {
        ("cyan", "sphere"),
        ("purple", "box"),
        ("yellow", "cylinder"),
        ("orange", "cone"),
        ("green", "capsule"),
        ("pink", "torus"),
    }
)
MOTION_CAMERAS = frozenset({("fall", "orbit"), ("left", "dolly"), ("spin", "pan"), ("roll", "zoom")})
SHAPE_COUNTS = frozenset({("torus", 2)})


def is_held_out(scene: Scene) -> bool:
    """Whether the scene shows a combination that training leaves out."""
    shapes = [body.shape for body in scene.bodies]
    return (
        any((body.colour, body.shape) in COLOUR_SHAPES for body in scene.bodies)
        or any((body.motion.colour_to, body.shape) in COLOUR_SHAPES for body in scene.bodies)
        or any((body.motion.kind, scene.camera.kind) in MOTION_CAMERAS for body in scene.bodies)
        or any((shape, shapes.count(shape)) in SHAPE_COUNTS for shape in shapes)
    )
