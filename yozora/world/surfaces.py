"""What surfaces are made of: the grounds' colours and ripples, and the checks and stripes of bodies."""

from __future__ import annotations

import math

from yozora.world.compiled import scalar
from yozora.world.light import CITY, GRASS, GROUND, SAND, SHIFT, SNOW, STUDIO, WATER, WET, WHITENED
from yozora.world.pack import CENTRE, CHECKERED, COLOUR, HALF, MATERIAL, SHAPE, STRIPED, TONE, TORUS
from yozora.world.rays import to_body
from yozora.world.sky import noise, smooth


@scalar
def wave(texture, place, x, y, length, footprint):
    """Noise over the ground with features about `length` metres wide, faded out as a pixel outgrows them."""
    fade = min(max(1.6 - 3.0 * footprint / length, 0.0), 1.0)
    if fade <= 0.0:
        return 0.0
    scale = 20.0 / length
    return fade * noise(texture, x * scale + place[SHIFT], y * scale + place[SHIFT + 1])


@scalar
def line(x, period, width, footprint):
    """How much of a pixel is a line: lines of `width` metres every `period` metres along x, box-filtered."""
    off = abs(x / period - math.floor(x / period + 0.5)) * period
    half = 0.5 * width
    blur = max(footprint, 0.3 * width)
    cover = min(max((half + 0.5 * blur - off) / blur, 0.0), 1.0)
    return cover * min(width / blur, 1.0) * min(max(2.0 - 5.0 * footprint / period, 0.0), 1.0)


@scalar
def ground_colour(place, texture, x, y, footprint):
    """Reflectance (r, g, b) of the ground at (x, y), and the light it gives off itself."""
    kind = int(place[GROUND])
    shine = 0.0
    if kind == STUDIO:
        d = math.sqrt(x * x + y * y)
        ring = smooth(0.06 + footprint, 0.02, abs(d - 3.2)) * 0.035 + smooth(3.3, 3.1, d) * 0.045
        ring -= 0.03 * line(d, 1.6, 0.05, footprint) * (1.0 if d < 2.5 else 0.0)
        tone = 0.37 + 0.014 * wave(texture, place, x, y, 1.6, footprint) + ring
        r, g, b = tone, tone * 0.985, tone * 0.97
    elif kind == GRASS:
        big = wave(texture, place, x, y, 2.2, footprint)
        mid = wave(texture, place, 1.3 * y + 7.0, x, 0.6, footprint)
        tone = 1.0 + 0.16 * big + 0.09 * mid
        r, g, b = tone * (0.070 + 0.022 * big), tone * 0.150, tone * 0.030
    elif kind == SAND:
        big = wave(texture, place, x, y, 2.6, footprint)
        phase = (0.35 * x + y) * 2.4 + 0.9 * big
        ripple = abs(phase - math.floor(phase) - 0.5) * 4.0 - 1.0
        ripple *= min(max(1.5 - 6.0 * footprint, 0.0), 1.0)
        tone = 1.0 + 0.09 * big + 0.07 * ripple
        r, g, b = 0.46 * tone, 0.335 * tone, 0.19 * tone
    elif kind == SNOW:
        tone = 0.60 + 0.07 * wave(texture, place, x, y, 2.4, footprint)
        tone += 0.04 * wave(texture, place, y + 3.0, x, 0.8, footprint)
        r, g, b = tone * 0.96, tone * 0.985, tone * 1.03
    elif kind == WATER:
        tone = 1.0 + 0.25 * wave(texture, place, x, y, 3.0, footprint)
        r, g, b = 0.018 * tone, 0.105 * tone, 0.135 * tone
    elif kind == CITY:
        tone = 0.23 + 0.025 * wave(texture, place, x, y, 1.4, footprint)
        i, j = math.floor(x / 1.2 + 0.5), math.floor(y / 1.2 + 0.5)
        odd = (int(i) + int(j)) & 1
        tone += (0.028 if odd == 1 else -0.028) * min(max(1.5 - 1.5 * footprint, 0.0), 1.0)
        seam = min(line(x + 0.6, 1.2, 0.06, footprint) + line(y + 0.6, 1.2, 0.06, footprint), 1.0)
        tone *= 1.0 - 0.45 * seam
        r, g, b = tone, tone, tone * 1.02
    else:
        tone = 0.045 + 0.015 * wave(texture, place, x, y, 2.0, footprint)
        r, g, b = tone, tone, tone * 1.6
        shine = min(line(x, 1.5, 0.05, footprint) + line(y, 1.5, 0.05, footprint), 1.0) * 0.16
    dry = 1.0 - 0.32 * place[WET] * (0.0 if kind == WATER else 1.0)
    white = place[WHITENED]
    if white > 0.0 and kind != WATER and kind != SNOW:
        white *= smooth(-1.3, 0.5, wave(texture, place, x + 5.0, y, 1.8, footprint))
        r, g, b = r + (0.78 - r) * white, g + (0.80 - g) * white, b + (0.85 - b) * white
    return r * dry, g * dry, b * dry, shine


@scalar
def ripples(place, texture, x, y, seconds, footprint):
    """Slope (x, y) of the water at a point: two trains of waves that cross."""
    a = wave(texture, place, x + 0.30 * seconds, 1.7 * y + 0.25 * seconds, 1.0, 2.0 * footprint)
    b = wave(texture, place, 0.5 * x - 0.20 * seconds, 1.5 * y - 0.30 * seconds, 0.8, 2.0 * footprint)
    return 0.018 * a, 0.035 * (a + b)


@scalar
def body_colour(bodies, n, x, y, z, footprint):
    """Reflectance (r, g, b) of body n at a world point."""
    r, g, b = bodies[n, COLOUR], bodies[n, COLOUR + 1], bodies[n, COLOUR + 2]
    material = int(bodies[n, MATERIAL])
    if material != CHECKERED and material != STRIPED:
        return r, g, b
    x, y, z = to_body(bodies, n, x - bodies[n, CENTRE], y - bodies[n, CENTRE + 1], z - bodies[n, CENTRE + 2])
    size = bodies[n, HALF] * (1.35 if int(bodies[n, SHAPE]) == TORUS else 1.0)
    blur = max(1.2 * footprint / size, 0.02)
    if material == STRIPED:
        along = z / bodies[n, HALF + 2]
        if int(bodies[n, SHAPE]) == TORUS:
            along = 1.9 * x / size
        reach = 0.36 * max(blur, 0.02)
        band = triangle(along * 1.25 + 0.5)
        other = smooth(-reach * 2.0, reach * 2.0, band - 0.30)
    else:
        k = 1.05 / size
        value = triangle(x * k + 0.25) * triangle(y * k + 0.25) * triangle(z * k + 0.25)
        other = smooth(-0.5 * blur, 0.5 * blur, value)
    other *= 1.0 if material == CHECKERED else 0.9
    return (
        r + (bodies[n, TONE] - r) * other,
        g + (bodies[n, TONE + 1] - g) * other,
        b + (bodies[n, TONE + 2] - b) * other,
    )


@scalar
def triangle(x):
    """A triangle wave of period 1 in -1..1, like sin(2 pi x) at its zeros."""
    t = x - 0.25 - math.floor(x - 0.25)
    return abs(t - 0.5) * 4.0 - 1.0
