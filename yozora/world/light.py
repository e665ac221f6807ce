"""The light of a place: sun, sky, haze and ground, packed as the one row of numbers that every kernel reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from yozora.world.scene import GROUNDS, TIMES, WEATHERS, Scene

# The place's row.
SUN, SUNLIGHT, AMBIENT, BOUNCE = 0, 3, 6, 9  # direction to the sun, its light, light from above and from below
ZENITH, HORIZON, HAZE = 12, 15, 18  # colours
HAZE_RATE = 21  # 1 / metres
GROUND, TIME, WEATHER = 22, 23, 24  # indices into GROUNDS, TIMES, WEATHERS
SOFTNESS = 25  # tangent of the sun's angular radius: how soft shadows are
CLOUDS = 26  # 0 to 1
WET = 27  # 0 to 1
WHITENED = 28  # 0 to 1: fallen snow
SHIFT = 29  # 2 columns: where in the noise this scene's textures begin, texels
SPARKLE = 31  # strength of highlights
DIM = 32  # brightness of painted features of the ground and the sky, 1 by day
GRADIENT = 33  # how fast the sky turns from the horizon's colour to the zenith's
DISTANT = 34  # 0 to 1: how much of the skyline the air lets through
PLACE_COLUMNS = 35

STUDIO, GRASS, SAND, SNOW, WATER, CITY, SPACE = range(len(GROUNDS))
DAY, SUNSET, NIGHT = range(len(TIMES))
CLEAR, FOG, RAIN, SNOWFALL = range(len(WEATHERS))

NOISE_SIZE = 256  # texels a side; a power of two


@dataclass(frozen=True)
class _Hour:
    elevation: float  # of the sun, or the moon at night; radians
    sunlight: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    sparkle: float
    dim: float


_HOURS = (
    _Hour(0.92, (2.30, 2.08, 1.76), (0.36, 0.44, 0.58), (0.07, 0.20, 0.58), (0.50, 0.68, 0.88), 1.0, 1.0),
    _Hour(0.34, (2.60, 1.50, 0.80), (0.40, 0.35, 0.47), (0.07, 0.09, 0.30), (1.00, 0.44, 0.17), 0.9, 0.6),
    _Hour(0.80, (0.58, 0.68, 0.88), (0.15, 0.19, 0.32), (0.006, 0.014, 0.055), (0.050, 0.085, 0.19), 0.7, 0.22),
)
_ALBEDO = {  # mean ground reflectance, for the light that comes back up
    "studio": (0.55, 0.54, 0.53),
    "grass": (0.10, 0.20, 0.05),
    "sand": (0.58, 0.45, 0.28),
    "snow": (0.80, 0.83, 0.88),
    "water": (0.06, 0.16, 0.20),
    "city": (0.34, 0.34, 0.35),
    "space": (0.05, 0.05, 0.08),
}
_STUDIO_BACKDROP = ((0.58, 0.59, 0.62), (0.42, 0.28, 0.23), (0.040, 0.052, 0.090))


def pack_place(scene: Scene) -> np.ndarray:
    """The place's row: float64 [PLACE_COLUMNS]. The sun's azimuth turns from the right (0) away from the camera."""
    place, hour = scene.place, _HOURS[TIMES.index(scene.place.time)]
    row = np.zeros(PLACE_COLUMNS)
    level = math.cos(hour.elevation)
    row[SUN : SUN + 3] = level * math.cos(place.sun), level * math.sin(place.sun), math.sin(hour.elevation)
    row[SUNLIGHT : SUNLIGHT + 3] = hour.sunlight
    row[AMBIENT : AMBIENT + 3] = hour.ambient
    row[ZENITH : ZENITH + 3] = hour.zenith
    row[HORIZON : HORIZON + 3] = hour.horizon
    row[HAZE : HAZE + 3] = hour.horizon
    row[HAZE_RATE] = 1 / 70
    row[GROUND] = GROUNDS.index(place.ground)
    row[TIME] = TIMES.index(place.time)
    row[WEATHER] = WEATHERS.index(place.weather)
    row[SOFTNESS], row[CLOUDS], row[SPARKLE], row[DIM] = 0.11, 1.0, hour.sparkle, hour.dim
    row[GRADIENT], row[DISTANT] = (6.0 if place.time == "sunset" else 3.2), 1.0
    row[SHIFT : SHIFT + 2] = np.random.default_rng(scene.seed % 2**32).uniform(0, NOISE_SIZE, 2)
    _apply_ground(row, place.ground, place.time)
    _apply_weather(row, place.weather)
    returned = row[AMBIENT : AMBIENT + 3] + row[SUNLIGHT : SUNLIGHT + 3] * row[SUN + 2]
    row[BOUNCE : BOUNCE + 3] = 0.30 * np.array(_ALBEDO[place.ground]) * returned
    row[BOUNCE : BOUNCE + 3] += 0.25 * row[AMBIENT : AMBIENT + 3]  # never black from below
    return row


def _apply_ground(row: np.ndarray, ground: str, time: str) -> None:
    if ground == "studio":
        backdrop = np.array(_STUDIO_BACKDROP[TIMES.index(time)])
        row[ZENITH : ZENITH + 3] = backdrop * (0.28, 0.34, 0.46)
        row[HORIZON : HORIZON + 3] = row[HAZE : HAZE + 3] = backdrop
        row[HAZE_RATE], row[CLOUDS], row[SOFTNESS] = 1 / 16, 0.0, 0.2
    elif ground == "space":
        row[ZENITH : ZENITH + 3] = 0.006, 0.006, 0.018
        row[HORIZON : HORIZON + 3] = row[HAZE : HAZE + 3] = 0.028, 0.022, 0.060
        row[HAZE_RATE], row[CLOUDS] = 1 / 40, 0.0
        row[AMBIENT : AMBIENT + 3] *= 0.8


def _apply_weather(row: np.ndarray, weather: str) -> None:
    grey = 0.35 * row[ZENITH : ZENITH + 3] + 0.65 * row[HORIZON : HORIZON + 3]
    grey = 0.35 * grey + 0.65 * grey.mean()
    if weather == "clear":
        return
    sunlight, rate, softness = {"fog": (0.35, 1 / 11, 0.4), "rain": (0.45, 1 / 28, 0.3), "snow": (0.55, 1 / 26, 0.3)}[
        weather
    ]
    lost = row[SUNLIGHT : SUNLIGHT + 3] * (1 - sunlight)
    row[SUNLIGHT : SUNLIGHT + 3] *= sunlight
    row[AMBIENT : AMBIENT + 3] += lost * 0.28
    row[HAZE_RATE] = max(row[HAZE_RATE], rate)
    row[SOFTNESS] = softness
    row[ZENITH : ZENITH + 3] = 0.3 * row[ZENITH : ZENITH + 3] + 0.7 * grey * (0.7 if weather == "rain" else 0.95)
    row[HORIZON : HORIZON + 3] = grey * (0.85 if weather == "rain" else 1.05)
    row[HAZE : HAZE + 3] = row[HORIZON : HORIZON + 3]
    row[CLOUDS] *= 0.0 if weather == "fog" else 0.5
    row[DISTANT] = 0.22 if weather == "fog" else 0.55
    row[WET] = 1.0 if weather == "rain" else 0.0
    row[WHITENED] = 0.75 if weather == "snow" else 0.0
    row[SPARKLE] *= 0.6


@lru_cache(maxsize=1)
def noise_texture() -> np.ndarray:
    """Smooth periodic noise, float32 [NOISE_SIZE, NOISE_SIZE] in -1..1, with waves of 12 to 48 texels only.

    A band-limited texture needs no mip levels: what is too fine for a pixel is faded by amplitude instead."""
    size = NOISE_SIZE
    rng = np.random.default_rng(20)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    band = np.exp(-(((np.log(np.maximum(frequency, 1e-6)) - np.log(1 / 24)) / 0.45) ** 2))
    band[(frequency < 1 / 64) | (frequency > 1 / 9)] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * band, s=(size, size))
    return np.ascontiguousarray(np.tanh(noise / noise.std() * 0.75), dtype=np.float32)
