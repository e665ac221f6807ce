"""From light to pixels: tone curve, the five styles, and rain and snow falling in front of the lens."""

from __future__ import annotations

import math

import numpy as np

from yozora.world.compiled import scalar
from yozora.world.light import AMBIENT, DIM, RAIN, SUNLIGHT, WEATHER
from yozora.world.pack import CLOCK, HEADING
from yozora.world.scene import STYLES
from yozora.world.sky import chance, smooth

REALISTIC, CARTOON, SKETCH, PIXEL_ART, FILM_NOIR = range(len(STYLES))
CURVE_SIZE = 4096


@scalar
def tone(x):
    """A filmic curve (Narkowicz's fit of ACES): light 0.. to display-linear 0..1."""
    x *= 0.72
    return min(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 1.0)


def srgb_curve() -> np.ndarray:
    """Display-linear 0..1 in CURVE_SIZE steps to sRGB 0..255, float32."""
    x = np.linspace(0, 1, CURVE_SIZE)
    return (255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.float32)


@scalar
def finish(style, camera, place, curve, colour, key, out, row, column, block):
    """Writes the uint8 pixel (row, column) of `out` [H, W, 3] from display-linear `colour` and the keys of bodies."""
    height, width = out.shape[0], out.shape[1]
    i, j = row // block, column // block
    r, g, b = float(colour[i, j, 0]), float(colour[i, j, 1]), float(colour[i, j, 2])
    weather = int(place[WEATHER])
    if weather >= RAIN:
        x, y = (j + 0.5) * block / height, (i + 0.5) * block / height
        x += camera[HEADING] * 1.2
        if weather == RAIN:
            fall, white = rain(x, y, camera[CLOCK]), 0.30 + 0.35 * place[DIM]
        else:
            fall, white = snow(x, y, camera[CLOCK], 1.0 / height), 0.50 + 0.40 * place[DIM]
        r, g, b = r + (white - r) * fall, g + (white - g) * fall, b + (white - b) * fall
    if style == CARTOON:
        r, g, b = cartoon(r, g, b)
    if style == CARTOON or style == SKETCH:
        edge = outline(key, i, j, max(int(height / 160.0 + 0.5), 1))
        if style == SKETCH:
            r, g, b = sketch(r, g, b, row * 128.0 / height, column * 128.0 / height, edge)
        else:
            ink = 1.0 - 0.94 * edge
            r, g, b = r * ink, g * ink, b * ink
    elif style == PIXEL_ART:
        r, g, b = palette(r, g, b)
    elif style == FILM_NOIR:
        gain = min(max(1.3 / (0.7 * place[SUNLIGHT + 1] + place[AMBIENT + 1]), 1.0), 2.5)  # nights are exposed longer
        r = film_noir(gain * r, gain * g, gain * b, (row + 0.5) / height - 0.5, (column + 0.5) / width - 0.5)
        g = b = r
    out[row, column, 0] = encode(curve, r)
    out[row, column, 1] = encode(curve, g)
    out[row, column, 2] = encode(curve, b)


@scalar
def encode(curve, x):
    """Display-linear to an sRGB byte."""
    return np.uint8(curve[int(min(max(x, 0.0), 1.0) * (CURVE_SIZE - 1) + 0.5)] + 0.5)


@scalar
def outline(key, i, j, thickness):
    """How much of a pixel is a drawn line 0..1: by how many neighbours belong to another body or face."""
    height, width = key.shape
    here = key[i, j]
    count = 0
    for step in range(1, thickness + 1):
        count += 1 if i >= step and key[i - step, j] != here else 0
        count += 1 if i + step < height and key[i + step, j] != here else 0
        count += 1 if j >= step and key[i, j - step] != here else 0
        count += 1 if j + step < width and key[i, j + step] != here else 0
    return min(count * 0.6 / thickness, 1.0)


@scalar
def cartoon(r, g, b):
    """Flat bands of light, stronger colours."""
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    top = max(r, g, b) + 1e-4  # by the strongest channel, so that every colour has as many bands
    level = math.sqrt(top) * 4.5
    step = math.floor(level)
    level = (step + 0.15 + smooth(0.4, 0.6, level - step)) / 4.5
    gain = min(level * level / top, 2.5)
    return (
        max(luma + (r - luma) * 1.25, 0.0) * gain,
        max(luma + (g - luma) * 1.25, 0.0) * gain,
        max(luma + (b - luma) * 1.25, 0.0) * gain,
    )


@scalar
def sketch(r, g, b, y, x, edge):
    """Coloured pencil on paper: hatching where it is dark, a thin tint, grey outlines. x, y in 1/128 of the height."""
    light = math.sqrt(0.2126 * r + 0.7152 * g + 0.0722 * b)
    top = max(r, g, b) + 0.02
    dark = min(max(1.05 - light, 0.0), 1.0)
    first = abs((x + y) / 6.0 - math.floor((x + y) / 6.0) - 0.5) * 2.0
    second = abs((x - y) / 6.0 - math.floor((x - y) / 6.0) - 0.5) * 2.0
    pencil = 0.62 * dark * (0.6 + 0.4 * first) + 0.40 * max(dark - 0.5, 0.0) * second
    paper = (0.93 - 0.90 * pencil) * (1.0 - 0.80 * edge)
    tint = min(0.9 * dark + 0.35, 0.95)
    return (
        paper * (1.0 - tint + tint * (0.03 + 0.97 * r / top)),
        paper * (1.0 - tint + tint * (0.03 + 0.97 * g / top)) * 0.985,
        paper * (1.0 - tint + tint * (0.03 + 0.97 * b / top)) * 0.95,
    )


@scalar
def palette(r, g, b):
    """One of eight brightnesses of one of few tints, each step about even to the eye."""
    top = max(r, g, b) + 1e-6
    level = math.floor(math.sqrt(top) * 7.0 + 0.5) / 7.0
    level *= level
    r = math.floor(math.sqrt(r / top) * 5.0 + 0.5) / 5.0
    g = math.floor(math.sqrt(g / top) * 5.0 + 0.5) / 5.0
    b = math.floor(math.sqrt(b / top) * 5.0 + 0.5) / 5.0
    return level * r * r, level * g * g, level * b * b


@scalar
def film_noir(r, g, b, y, x):
    """Black and white with hard contrast and dark corners."""
    light = 0.88 * math.sqrt(min(0.35 * r + 0.50 * g + 0.15 * b, 1.0))
    light = 0.25 * light + 0.75 * smooth(0.12, 0.88, light)
    light *= 1.0 - 0.9 * smooth(0.25, 1.1, 2.0 * (x * x + y * y))
    return light * light


@scalar
def rain(x, y, seconds):
    """Cover 0..1 of a pixel by streaks of rain; x and y are in picture heights."""
    cover = 0.0
    for layer in range(2):
        size = 0.055 if layer == 0 else 0.10
        u = (x + 0.10 * y) / size
        i = math.floor(u)
        pace = 1.5 + 0.7 * chance(int(i), layer, 11)
        v = y * 0.9 - seconds * pace + 7.0 * chance(int(i), layer, 12)
        j = math.floor(v)
        off = abs(u - i - 0.25 - 0.5 * chance(int(i), int(j), 13))
        length = 0.16 + 0.14 * chance(int(i), int(j), 14)
        streak = smooth(0.10, 0.03, off) * smooth(0.0, 0.03, v - j) * smooth(length, length * 0.4, v - j)
        cover += streak * (0.22 if layer == 0 else 0.17)
    return min(cover, 0.6)


@scalar
def snow(x, y, seconds, pixel):
    """Cover 0..1 of a pixel by falling flakes, two layers deep; x, y and `pixel` are in picture heights."""
    cover = 0.0
    for layer in range(2):
        size = 0.085 + 0.065 * layer
        u = (x + 0.02 * math.sin(seconds * 1.3 + layer * 2.0)) / size
        v = (y - seconds * (0.16 + 0.09 * layer)) / size
        i, j = math.floor(u), math.floor(v)
        if chance(int(i), int(j), 51 + layer) > 0.6:
            continue
        a = u - i - 0.3 - 0.4 * chance(int(i), int(j), 21 + layer)
        b = v - j - 0.3 - 0.4 * chance(int(i), int(j), 31 + layer)
        radius = max(0.09 + 0.08 * chance(int(i), int(j), 41 + layer), 1.0 * pixel / size)
        cover = max(cover, 0.75 * smooth(radius, 0.35 * radius, math.sqrt(a * a + b * b)))
    return cover
