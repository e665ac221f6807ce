"""The sky in every direction: gradient, clouds, sun, moon, stars a city's skyline; and the noise of it all."""

from __future__ import annotations

import math

from yozora.world.compiled import scalar
from yozora.world.light import (
    CITY,
    CLOUDS,
    DAY,
    DIM,
    DISTANT,
    GRADIENT,
    GROUND,
    HORIZON,
    NIGHT,
    NOISE_SIZE,
    SHIFT,
    SPACE,
    STUDIO,
    SUN,
    SUNLIGHT,
    SUNSET,
    TIME,
    ZENITH,
)

MASK = NOISE_SIZE - 1
FINEST = 0.03  # radians: blurrier views show no stars, and much blurrier ones no clouds
TURN = NOISE_SIZE / (2.0 * math.pi)  # texels a radian: the noise closes after one turn


@scalar
def noise(texture, u, v):
    """Smooth noise in -1..1 at (u, v) texels; features are about 24 texels wide."""
    fu, fv = math.floor(u), math.floor(v)
    i, j = int(fu) & MASK, int(fv) & MASK
    a, b = u - fu, v - fv
    k, m = (i + 1) & MASK, (j + 1) & MASK
    low = texture[j, i] + (texture[j, k] - texture[j, i]) * a
    high = texture[m, i] + (texture[m, k] - texture[m, i]) * a
    return low + (high - low) * b


@scalar
def chance(i, j, salt):
    """A number in [0, 1) that depends on the integers alone."""
    n = (i * 374761393 + j * 668265263 + salt * 1442695041) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFFFF) / 16777216.0


@scalar
def smooth(low, high, x):
    """Hermite step from 0 at `low` to 1 at `high`."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@scalar
def sky(place, texture, dx, dy, dz, pixel):
    """Radiance (r, g, b) from the unit direction; `pixel` radians is the footprint that details must not go below."""
    up = max(dz, 0.0)
    mix = 1.0 / (1.0 + place[GRADIENT] * up)  # most of the gradient lies near the horizon
    mix = mix * mix
    r = place[ZENITH] + (place[HORIZON] - place[ZENITH]) * mix
    g = place[ZENITH + 1] + (place[HORIZON + 1] - place[ZENITH + 1]) * mix
    b = place[ZENITH + 2] + (place[HORIZON + 2] - place[ZENITH + 2]) * mix
    ground, time = int(place[GROUND]), int(place[TIME])
    if ground == STUDIO:
        return r, g, b
    clouds = place[CLOUDS]
    glow = max(dx * place[SUN] + dy * place[SUN + 1] + dz * place[SUN + 2], 0.0)
    azimuth = math.atan2(dx, dy)
    if time == NIGHT or ground == SPACE:
        if pixel < FINEST and (clouds > 0.9 or ground == SPACE):
            light = stars(azimuth, dz, pixel)
            r, g, b = r + light, g + light, b + light * 1.1
        if ground == SPACE:
            haze = max(noise(texture, azimuth * TURN * 2.0 + place[SHIFT], dz * 90.0 + place[SHIFT + 1]), 0.0) * mix
            r, g, b = r + 0.050 * haze, g + 0.016 * haze, b + 0.075 * haze
    else:
        halo = glow * glow
        halo = halo * halo * halo
        if time == SUNSET:
            r, g, b = r + 0.9 * halo * mix, g + 0.36 * halo * mix, b + 0.08 * halo * mix
    clouds *= smooth(4.0 * FINEST, FINEST, pixel)
    if clouds > 0.0:
        u, v = azimuth * TURN * 2.0 + place[SHIFT], dz * 170.0 + place[SHIFT + 1]
        cover = noise(texture, u, v) + 0.45 * noise(texture, 2.0 * u + 31.0, 2.0 * v)
        cover = clouds * smooth(0.05, 0.85, cover) * smooth(0.0, 0.12, dz) * 0.8
        shade = 0.32 if time == DAY else 0.26
        lit = 0.75 + 0.5 * glow
        r += cover * (lit * shade * place[SUNLIGHT] + 0.2 * place[HORIZON] - r * 0.75)
        g += cover * (lit * shade * place[SUNLIGHT + 1] + 0.2 * place[HORIZON + 1] - g * 0.75)
        b += cover * (lit * shade * place[SUNLIGHT + 2] + 0.25 * place[HORIZON + 2] - b * 0.75)
    if glow > 0.9 and place[CLOUDS] > 0.9:
        disc = smooth(0.9975, 0.9990, glow) if time == NIGHT else smooth(0.9960, 0.9990, glow)
        spread = smooth(0.9, 1.0, glow)
        spread = spread * spread
        r += disc * 1.1 + spread * 0.12 * place[SUNLIGHT]
        g += disc * 1.05 + spread * 0.12 * place[SUNLIGHT + 1]
        b += disc * 0.95 + spread * 0.12 * place[SUNLIGHT + 2]
    if ground == CITY and dz < 0.20:
        r, g, b = skyline(place, r, g, b, azimuth, dz, pixel)
    return r, g, b


@scalar
def stars(azimuth, dz, pixel):
    """Light of the stars: at most one in each cell of a grid of directions, never smaller than a pixel."""
    u, v = azimuth * 16.0, dz * 16.0
    i, j = math.floor(u), math.floor(v)
    if chance(int(i), int(j), 1) > 0.42:
        return 0.0
    x = u - i - 0.25 - 0.5 * chance(int(i), int(j), 2)
    y = v - j - 0.25 - 0.5 * chance(int(i), int(j), 3)
    size = max(0.055, 16.0 * pixel)
    near = max(1.0 - (x * x + y * y) / (size * size), 0.0)
    return near * near * (0.15 + 0.6 * chance(int(i), int(j), 4)) * smooth(0.0, 0.08, dz)


@scalar
def skyline(place, r, g, b, azimuth, dz, pixel):
    """Two rows of towers against the sky, the farther one paler; windows shine when it is dark."""
    for layer in range(2):
        cells = 22.0 if layer == 0 else 15.0
        u = azimuth * cells / (2.0 * math.pi) * 5.0
        i = math.floor(u)
        a = u - i
        top = (0.11 if layer == 0 else 0.06) * (0.35 + chance(int(i), layer, 5))
        gap = 0.5 * chance(int(i), layer, 6) * 0.3
        blur = 2.0 * pixel * cells * 0.8
        inside = smooth(gap - blur, gap + blur, a) * smooth(gap - blur, gap + blur, 1.0 - a)
        inside *= smooth(-1.2 * pixel, 1.2 * pixel, top - dz)
        inside *= place[DISTANT]
        if inside > 0.0:
            tone = 0.62 if layer == 0 else 0.42
            lift = 0.05 * place[DIM] * chance(int(i), layer, 7)
            wr, wg = tone * place[HORIZON] + lift, tone * place[HORIZON + 1] + lift
            wb = tone * place[HORIZON + 2] + lift
            if layer == 1 and place[DIM] < 0.9 and dz > 0.006:
                row, column = math.floor(dz * 70.0), math.floor(a * 4.0)
                lamp = 0.30 if chance(int(i) * 4 + int(column), int(row), 8) > 0.6 else 0.0
                x, y = abs(a * 4.0 - column - 0.5), abs(dz * 70.0 - row - 0.5)
                lamp *= smooth(0.5, 0.2, x) * smooth(0.5, 0.2, y)
                wr, wg, wb = wr + lamp, wg + lamp * 0.72, wb + lamp * 0.35
            r, g, b = r + (wr - r) * inside, g + (wg - g) * inside, b + (wb - b) * inside
    return r, g, b
