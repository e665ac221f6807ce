"""How things look: light and shadow on bodies and ground, reflections of one bounce, haze."""

from __future__ import annotations

import math

from yozora.world.compiled import scalar
from yozora.world.light import (
    AMBIENT,
    BOUNCE,
    GROUND,
    HAZE,
    HAZE_RATE,
    SOFTNESS,
    SPACE,
    SPARKLE,
    STUDIO,
    SUN,
    SUNLIGHT,
    WATER,
    WET,
)
from yozora.world.pack import (
    CENTRE,
    CLOCK,
    COLOUR,
    EYE,
    GLOWING,
    GLOWS,
    MATERIAL,
    MATTE,
    METAL,
    REACH,
    RUBBER,
    SHAPE,
    SPHERE,
    TORUS,
)
from yozora.world.rays import FAR, distance, nearest, nearest_seen, normal, to_body
from yozora.world.sky import FINEST, sky, smooth
from yozora.world.surfaces import body_colour, ground_colour, ripples


@scalar
def look(bodies, camera, place, texture, column, row, dx, dy, dz, pixel):
    """What the camera sees along a unit direction: (r, g, b, key, distance).

    `pixel` is a pixel's width in radians; `key` is 0 for ground and sky, 4 (body + 1) + face for bodies."""
    ox, oy, oz = camera[EYE], camera[EYE + 1], camera[EYE + 2]
    t, n, face = nearest_seen(bodies, column, row, ox, oy, oz, dx, dy, dz)
    if dz < 0.0 and -oz / dz < t:
        t, n = -oz / dz, -1
    if t >= FAR:
        r, g, b = sky(place, texture, dx, dy, dz, pixel)
        key = 0
    else:
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        if n < 0:
            r, g, b = ground_seen(bodies, camera, place, texture, x, y, dx, dy, dz, t, pixel)
            key = 0
        else:
            r, g, b = body_seen(bodies, camera, place, texture, n, face, x, y, z, dx, dy, dz, t, pixel)
            key = 4 * (n + 1) + face
        r, g, b = hazed(place, r, g, b, t)
    if camera[GLOWS] > 0.0:
        r, g, b = halo(bodies, r, g, b, ox, oy, oz, dx, dy, dz, t)
    return r, g, b, key, t


@scalar
def ground_seen(bodies, camera, place, texture, x, y, dx, dy, dz, t, pixel):
    """Light from the ground point (x, y) with what it mirrors, before haze."""
    r, g, b = ground_lit(bodies, camera, place, texture, x, y, t, dz, pixel)
    kind = int(place[GROUND])
    mirror, bend = 0.25 * place[WET], 0.0
    if kind == WATER:
        mirror, bend = 1.0, 1.0
    elif kind == SPACE:
        mirror = max(mirror, 0.55)
    elif kind == STUDIO:
        mirror = max(mirror, 0.16)
    if mirror <= 0.0:
        return r, g, b
    grazing = 1.0 + dz
    squared = grazing * grazing
    share = mirror * (0.06 + 0.94 * squared * squared * grazing)
    nx, ny = 0.0, 0.0
    if bend > 0.0:
        nx, ny = ripples(place, texture, x, y, camera[CLOCK], t * pixel / max(-dz, 0.05))
        calm = min(-4.0 * dz, 1.0)  # at grazing angles ripples hide one another
        nx, ny = nx * calm, ny * calm
    facing = dx * nx + dy * ny + dz
    rx, ry, rz = dx - 2.0 * facing * nx, dy - 2.0 * facing * ny, dz - 2.0 * facing
    rz = max(rz, 0.01)
    scale = 1.0 / math.sqrt(rx * rx + ry * ry + rz * rz)
    p, q, s = mirrored(bodies, camera, place, texture, -1, x, y, 0.0, rx * scale, ry * scale, rz * scale, t, pixel)
    return r + (p - r) * share, g + (q - g) * share, b + (s - b) * share


@scalar
def ground_lit(bodies, camera, place, texture, x, y, t, dz, pixel):
    """Light that the ground point (x, y), seen from t metres, scatters; mirrors nothing."""
    r, g, b, shine = ground_colour(place, texture, x, y, t * pixel / max(math.sqrt(-dz), 0.2))
    sun = place[SUN + 2] * sun_visible(bodies, place, -1, x, y, 0.0)
    open_sky = sky_visible(bodies, -1, x, y, 0.0, 0.0, 0.0, 1.0)
    p = place[SUNLIGHT] * sun + place[AMBIENT] * open_sky
    q = place[SUNLIGHT + 1] * sun + place[AMBIENT + 1] * open_sky
    s = place[SUNLIGHT + 2] * sun + place[AMBIENT + 2] * open_sky
    if camera[GLOWS] > 0.0:
        p, q, s = lamps(bodies, p, q, s, -1, x, y, 0.0, 0.0, 0.0, 1.0)
    return r * p + 0.45 * shine, g * q + 0.7 * shine, b * s + shine


@scalar
def body_seen(bodies, camera, place, texture, n, face, x, y, z, dx, dy, dz, t, pixel):
    """Light from a point of body n with its highlight and reflections, before haze."""
    nx, ny, nz = normal(bodies, n, face, x, y, z)
    material = int(bodies[n, MATERIAL])
    facing = min(dx * nx + dy * ny + dz * nz, 0.0)
    if material == GLOWING:
        core = 0.45 + 0.80 * facing * facing
        return bodies[n, COLOUR] * core, bodies[n, COLOUR + 1] * core, bodies[n, COLOUR + 2] * core
    cr, cg, cb = body_colour(bodies, n, x, y, z, t * pixel / max(math.sqrt(-facing), 0.3))
    visible = sun_lit(bodies, place, n, x, y, z, nx, ny, nz)
    p, q, s = light_on(bodies, camera, place, n, x, y, z, nx, ny, nz, visible)
    r, g, b = cr * p, cg * q, cb * s
    rim = 1.0 + facing
    rim = rim * rim * rim
    rx, ry, rz = dx - 2.0 * facing * nx, dy - 2.0 * facing * ny, dz - 2.0 * facing * nz
    shine = max(rx * place[SUN] + ry * place[SUN + 1] + rz * place[SUN + 2], 0.0)
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine  # 8
    if material == METAL:
        mr, mg, mb = mirrored(bodies, camera, place, texture, n, x, y, z, rx, ry, rz, t, pixel)
        shine = shine * shine * shine * shine
        shine = 1.6 * shine * shine * visible * place[SPARKLE]
        tint = 0.12 + 0.5 * rim
        tr, tg, tb = cr + (1.0 - cr) * tint, cg + (1.0 - cg) * tint, cb + (1.0 - cb) * tint
        r = 0.42 * r + tr * (0.85 * mr + shine * place[SUNLIGHT])
        g = 0.42 * g + tg * (0.85 * mg + shine * place[SUNLIGHT + 1])
        b = 0.42 * b + tb * (0.85 * mb + shine * place[SUNLIGHT + 2])
        return r, g, b
    gloss, edge = 0.0, 0.10
    if material == RUBBER:
        gloss, edge = 0.045 * shine, 0.16
        r, g, b = 0.86 * r, 0.86 * g, 0.86 * b
    elif material != MATTE:
        gloss, edge = 0.22 * shine * shine * shine * shine, 0.25
    gloss *= visible * place[SPARKLE]
    edge *= rim * (0.5 + 0.5 * rz) if rz > -1.0 else 0.0
    return (
        r + gloss * place[SUNLIGHT] + edge * place[AMBIENT],
        g + gloss * place[SUNLIGHT + 1] + edge * place[AMBIENT + 1],
        b + gloss * place[SUNLIGHT + 2] + edge * place[AMBIENT + 2],
    )


@scalar
def mirrored(bodies, camera, place, texture, skip, x, y, z, dx, dy, dz, travelled, pixel):
    """Light that arrives at a point from the unit direction: bodies and ground without reflections of their own."""
    t, n, face = nearest(bodies, skip, x, y, z, dx, dy, dz)
    if dz < 0.0 and -z / dz < t:
        t, n = -z / dz, -1
    if t >= FAR:
        blur = FINEST  # a still floor shows the clouds; ripples and curved bodies smear them
        if skip >= 0:
            blur = 4.0 * FINEST
        elif int(place[GROUND]) == WATER:
            blur = 3.0 * FINEST
        return sky(place, texture, dx, dy, dz, blur)
    hx, hy, hz = x + t * dx, y + t * dy, z + t * dz
    far = travelled + t
    if skip >= 0:  # a curved mirror spreads the view
        far += 2.0 * t * travelled / bodies[skip, REACH]
    if n < 0:
        r, g, b = ground_lit(bodies, camera, place, texture, hx, hy, far, dz, pixel)
    else:
        cr, cg, cb = body_colour(bodies, n, hx, hy, hz, far * pixel)
        if int(bodies[n, MATERIAL]) == GLOWING:
            return cr, cg, cb
        nx, ny, nz = normal(bodies, n, face, hx, hy, hz)
        visible = smooth(0.0, 0.12, nx * place[SUN] + ny * place[SUN + 1] + nz * place[SUN + 2])
        p, q, s = light_on(bodies, camera, place, n, hx, hy, hz, nx, ny, nz, visible)
        r, g, b = cr * p, cg * q, cb * s
    return hazed(place, r, g, b, t)


@scalar
def light_on(bodies, camera, place, n, x, y, z, nx, ny, nz, visible):
    """Light (r, g, b) that falls on a point of body n, of which `visible` is the share of the sun's."""
    sun = max(nx * place[SUN] + ny * place[SUN + 1] + nz * place[SUN + 2], 0.0) * visible
    open_sky = sky_visible(bodies, n, x, y, z, nx, ny, nz)
    up = (0.5 + 0.5 * nz) * open_sky
    down = (0.5 - 0.5 * nz) * open_sky * smooth(-0.5, 0.5, z)  # the body's own shadow darkens the ground below it
    p = place[SUNLIGHT] * sun + place[AMBIENT] * up + place[BOUNCE] * down
    q = place[SUNLIGHT + 1] * sun + place[AMBIENT + 1] * up + place[BOUNCE + 1] * down
    s = place[SUNLIGHT + 2] * sun + place[AMBIENT + 2] * up + place[BOUNCE + 2] * down
    if camera[GLOWS] > 0.0:
        p, q, s = lamps(bodies, p, q, s, n, x, y, z, nx, ny, nz)
    return p, q, s


@scalar
def sun_lit(bodies, place, n, x, y, z, nx, ny, nz):
    """Share of the sun that reaches a point of body n: nothing behind it, softly cut off at its own edge of night."""
    facing = nx * place[SUN] + ny * place[SUN + 1] + nz * place[SUN + 2]
    if facing <= 0.0:
        return 0.0
    return smooth(0.0, 0.12, facing) * sun_visible(bodies, place, n, x, y, z)


@scalar
def sun_visible(bodies, place, skip, x, y, z):
    """Share 0..1 of the sun seen from a point: by how closely the ray to it passes each body (after Quilez)."""
    sx, sy, sz = place[SUN], place[SUN + 1], place[SUN + 2]
    soft = place[SOFTNESS]
    lit = 1.0
    for n in range(bodies.shape[0]):
        ox, oy, oz = bodies[n, CENTRE] - x, bodies[n, CENTRE + 1] - y, bodies[n, CENTRE + 2] - z
        along = ox * sx + oy * sy + oz * sz
        reach = bodies[n, REACH]
        if along < -reach:
            continue
        off = ox * ox + oy * oy + oz * oz - along * along
        wide = reach + soft * max(along, 0.0)
        if off >= wide * wide or int(bodies[n, MATERIAL]) == GLOWING:
            continue
        shape = int(bodies[n, SHAPE])
        if n == skip and shape != TORUS:
            continue
        if shape == SPHERE:
            if along > 0.0:
                gap = math.sqrt(max(off, 0.0)) - reach
                lit *= smooth(-1.0, 1.0, gap / (soft * along + 1e-6))
        else:
            chord = math.sqrt(wide * wide - off)
            first = max(along - chord, 0.02)
            if n == skip:
                first = 0.25 * reach
            lit *= march_shadow(bodies, n, -ox, -oy, -oz, sx, sy, sz, first, along + chord, soft)
        if lit < 0.004:
            return 0.0
    return lit


@scalar
def march_shadow(bodies, n, ox, oy, oz, sx, sy, sz, t, end, soft):
    """Share of the sun that passes body n, by marching its distance from t to `end` metres along the ray."""
    ox, oy, oz = to_body(bodies, n, ox, oy, oz)
    sx, sy, sz = to_body(bodies, n, sx, sy, sz)
    closest = 1.0
    stride = (end - t) * 0.07
    for _ in range(16):
        gap = distance(bodies, n, ox + t * sx, oy + t * sy, oz + t * sz)
        closest = min(closest, gap / (soft * t + 1e-6))
        if closest <= -1.0:
            return 0.0
        t += max(gap * 0.8, stride)
        if t > end:
            break
    return smooth(-1.0, 1.0, closest)


@scalar
def sky_visible(bodies, skip, x, y, z, nx, ny, nz):
    """Share 0..1 of the sky above a surface that bodies nearby leave open: contact shadows.

    Each body is asked how far it is from a point lifted off the surface; what is nearer than the lift is in the way."""
    shut = 0.0
    for n in range(bodies.shape[0]):
        if n == skip:
            continue
        lift = 0.55 * bodies[n, REACH]
        ox, oy, oz = x - bodies[n, CENTRE], y - bodies[n, CENTRE + 1], z - bodies[n, CENTRE + 2]
        limit = bodies[n, REACH] + 2.0 * lift
        if ox * ox + oy * oy + oz * oz >= limit * limit or int(bodies[n, MATERIAL]) == GLOWING:
            continue
        ox, oy, oz = to_body(bodies, n, ox + lift * nx, oy + lift * ny, oz + lift * nz)
        near = 1.0 - distance(bodies, n, ox, oy, oz) / lift
        if near > 0.0:
            near = min(near, 1.6)
            shut += near * near
    return 1.0 / (1.0 + 0.75 * shut)


@scalar
def lamps(bodies, p, q, s, skip, x, y, z, nx, ny, nz):
    """Adds the light of glowing bodies that falls on a surface."""
    for n in range(bodies.shape[0]):
        if n == skip or int(bodies[n, MATERIAL]) != GLOWING:
            continue
        ox, oy, oz = bodies[n, CENTRE] - x, bodies[n, CENTRE + 1] - y, bodies[n, CENTRE + 2] - z
        apart = ox * ox + oy * oy + oz * oz + 1e-6
        facing = (ox * nx + oy * ny + oz * nz) / math.sqrt(apart)
        reach = bodies[n, REACH]
        near = 1.1 * max(0.3 + 0.7 * facing, 0.0) * reach * reach / (apart + 0.15 * reach * reach)
        p += near * bodies[n, COLOUR]
        q += near * bodies[n, COLOUR + 1]
        s += near * bodies[n, COLOUR + 2]
    return p, q, s


@scalar
def halo(bodies, r, g, b, ox, oy, oz, dx, dy, dz, t):
    """Adds the shimmer of the air around glowing bodies, by how closely the ray passes them."""
    for n in range(bodies.shape[0]):
        if int(bodies[n, MATERIAL]) != GLOWING:
            continue
        x, y, z = bodies[n, CENTRE] - ox, bodies[n, CENTRE + 1] - oy, bodies[n, CENTRE + 2] - oz
        along = x * dx + y * dy + z * dz
        if along <= 0.0 or along > t + bodies[n, REACH]:
            continue
        reach = bodies[n, REACH] * bodies[n, REACH]
        near = reach / (reach + max(x * x + y * y + z * z - along * along, 0.0) * 1.5)
        near = 0.16 * near * near
        r, g, b = r + near * bodies[n, COLOUR], g + near * bodies[n, COLOUR + 1], b + near * bodies[n, COLOUR + 2]
    return r, g, b


@scalar
def hazed(place, r, g, b, t):
    """Light after t metres of air."""
    x = t * place[HAZE_RATE]
    kept = 1.0 / (1.0 + x * x * (0.5 + 0.35 * x))  # clear close by, where the bodies are
    return (
        place[HAZE] + (r - place[HAZE]) * kept,
        place[HAZE + 1] + (g - place[HAZE + 1]) * kept,
        place[HAZE + 2] + (b - place[HAZE + 2]) * kept,
    )
