"""Where rays meet bodies: exact intersections, normals and distances of the six shapes, in each body's own axes.

A direction is a unit vector; distances are metres; FAR means no hit. A `face` numbers the smooth parts of a shape's
surface (1, 2, 3), so that edges inside one body can be told from its smooth places.
"""

from __future__ import annotations

import math

from yozora.world.compiled import scalar
from yozora.world.pack import (
    BOTTOM,
    BOX,
    CAPSULE,
    CENTRE,
    CONE,
    CYLINDER,
    HALF,
    LEFT,
    REACH,
    RIGHT,
    ROTATION,
    SHAPE,
    SPHERE,
    TOP,
)

FAR = 1.0e9
NEAREST = 1.0e-4  # metres; hits closer than this are the surface the ray left


@scalar
def nearest_seen(bodies, column, row, ox, oy, oz, dx, dy, dz):
    """The first body that the camera ray through pixel (column, row) meets: (distance, body or -1, face)."""
    best, body, face = FAR, -1, 0
    for n in range(bodies.shape[0]):
        if column < bodies[n, LEFT] or column >= bodies[n, RIGHT] or row < bodies[n, TOP] or row >= bodies[n, BOTTOM]:
            continue
        t, f = meet(bodies, n, ox, oy, oz, dx, dy, dz)
        if t < best:
            best, body, face = t, n, f
    return best, body, face


@scalar
def nearest(bodies, skip, ox, oy, oz, dx, dy, dz):
    """The first body but `skip` that any ray meets: (distance, body or -1, face)."""
    best, body, face = FAR, -1, 0
    for n in range(bodies.shape[0]):
        if n != skip:
            t, f = meet(bodies, n, ox, oy, oz, dx, dy, dz)
            if t < best:
                best, body, face = t, n, f
    return best, body, face


@scalar
def meet(bodies, n, ox, oy, oz, dx, dy, dz):
    """Where a ray meets body n: (distance or FAR, face)."""
    x, y, z = ox - bodies[n, CENTRE], oy - bodies[n, CENTRE + 1], oz - bodies[n, CENTRE + 2]
    b = x * dx + y * dy + z * dz
    apart = x * x + y * y + z * z
    reach = bodies[n, REACH]
    inside = b * b - apart + reach * reach  # squared half chord of the bounding sphere
    if inside <= 0.0 or (b > 0.0 and apart > reach * reach):
        return FAR, 0
    shape = int(bodies[n, SHAPE])
    if shape == SPHERE:
        t = -b - math.sqrt(inside)
        return (t, 1) if t > NEAREST else (FAR, 0)
    x, y, z = to_body(bodies, n, x, y, z)
    dx, dy, dz = to_body(bodies, n, dx, dy, dz)
    p, q, h = bodies[n, HALF], bodies[n, HALF + 1], bodies[n, HALF + 2]
    if shape == BOX:
        return meet_box(p, q, h, x, y, z, dx, dy, dz)
    if shape == CYLINDER:
        return meet_cylinder(p, h, x, y, z, dx, dy, dz)
    if shape == CONE:
        return meet_cone(p, h, x, y, z, dx, dy, dz)
    if shape == CAPSULE:
        return meet_capsule(p, h, x, y, z, dx, dy, dz)
    chord = math.sqrt(inside)
    return meet_torus(p, h, x, y, z, dx, dy, dz, -b - chord, -b + chord)


@scalar
def to_body(bodies, n, x, y, z):
    """A world vector in body n's axes."""
    return (
        bodies[n, ROTATION] * x + bodies[n, ROTATION + 3] * y + bodies[n, ROTATION + 6] * z,
        bodies[n, ROTATION + 1] * x + bodies[n, ROTATION + 4] * y + bodies[n, ROTATION + 7] * z,
        bodies[n, ROTATION + 2] * x + bodies[n, ROTATION + 5] * y + bodies[n, ROTATION + 8] * z,
    )


@scalar
def to_world(bodies, n, x, y, z):
    """A vector in body n's axes in world axes."""
    return (
        bodies[n, ROTATION] * x + bodies[n, ROTATION + 1] * y + bodies[n, ROTATION + 2] * z,
        bodies[n, ROTATION + 3] * x + bodies[n, ROTATION + 4] * y + bodies[n, ROTATION + 5] * z,
        bodies[n, ROTATION + 6] * x + bodies[n, ROTATION + 7] * y + bodies[n, ROTATION + 8] * z,
    )


@scalar
def meet_box(p, q, h, x, y, z, dx, dy, dz):
    """Slabs; the face is the axis (1, 2, 3) that is entered last."""
    ix = 1.0 / (dx if abs(dx) > 1e-12 else 1e-12)
    iy = 1.0 / (dy if abs(dy) > 1e-12 else 1e-12)
    iz = 1.0 / (dz if abs(dz) > 1e-12 else 1e-12)
    mx, my, mz = -x * ix, -y * iy, -z * iz
    wx, wy, wz = abs(ix) * p, abs(iy) * q, abs(iz) * h
    enter = max(mx - wx, my - wy, mz - wz)
    leave = min(mx + wx, my + wy, mz + wz)
    if enter > leave or enter < NEAREST:
        return FAR, 0
    face = 1
    if enter == my - wy:
        face = 2
    elif enter == mz - wz:
        face = 3
    return enter, face


@scalar
def meet_cylinder(r, h, x, y, z, dx, dy, dz):
    """Side (face 1) or cap (face 2) of the upright cylinder of radius r and half height h."""
    a = dx * dx + dy * dy
    b = x * dx + y * dy
    c = x * x + y * y - r * r
    best, face = FAR, 0
    root = b * b - a * c
    if a > 1e-12 and root > 0.0:
        t = (-b - math.sqrt(root)) / a
        if t > NEAREST and abs(z + t * dz) <= h:
            best, face = t, 1
    if abs(dz) > 1e-9:
        t = ((h if dz < 0.0 else -h) - z) / dz
        px, py = x + t * dx, y + t * dy
        if t > NEAREST and t < best and px * px + py * py <= r * r:
            best, face = t, 2
    return best, face


@scalar
def meet_cone(r, h, x, y, z, dx, dy, dz):
    """Side (face 1) or base (face 2) of the cone with its tip at z = h and a base of radius r at z = -h."""
    slope = r / (2.0 * h)
    k = slope * slope
    q = h - z
    a = dx * dx + dy * dy - k * dz * dz
    b = x * dx + y * dy + k * q * dz
    c = x * x + y * y - k * q * q
    best, face = FAR, 0
    root = b * b - a * c
    if root > 0.0 and abs(a) > 1e-12:
        root = math.sqrt(root)
        for sign in (-1.0, 1.0):
            t = (-b + sign * root) / a
            if t > NEAREST and t < best and abs(z + t * dz) <= h:
                best, face = t, 1
    if dz > 1e-9:
        t = (-h - z) / dz
        px, py = x + t * dx, y + t * dy
        if t > NEAREST and t < best and px * px + py * py <= r * r:
            best, face = t, 2
    return best, face


@scalar
def meet_capsule(r, h, x, y, z, dx, dy, dz):
    """The capsule about the segment z = -h to h."""
    a = dx * dx + dy * dy
    b = x * dx + y * dy
    c = x * x + y * y - r * r
    root = b * b - a * c
    if root < 0.0:
        return FAR, 0
    height = z
    if a > 1e-12:
        t = (-b - math.sqrt(root)) / a
        height = z + t * dz
        if abs(height) <= h:
            return (t, 1) if t > NEAREST else (FAR, 0)
    elif dz > 0.0:
        height = -h
    w = z - (h if height > 0.0 else -h)
    b = x * dx + y * dy + w * dz
    root = b * b - (x * x + y * y + w * w - r * r)
    if root <= 0.0:
        return FAR, 0
    t = -b - math.sqrt(root)
    return (t, 1) if t > NEAREST else (FAR, 0)


@scalar
def meet_torus(ring, tube, x, y, z, dx, dy, dz, start, end):
    """Marches the exact distance between `start` and `end`: steadier than the quartic's roots at grazing rays."""
    t = max(start, 0.0)
    small = 0.002 * tube
    for _ in range(48):
        px, py, pz = x + t * dx, y + t * dy, z + t * dz
        gap = distance_torus(ring, tube, px, py, pz)
        if gap < small:
            return (t, 1) if t > 0.01 * tube else (FAR, 0)
        t += gap
        if t > end:
            return FAR, 0
    return t, 1  # a ray that grazes for so long touches


@scalar
def normal(bodies, n, face, x, y, z):
    """Outward unit normal (world axes) of body n at the world point (x, y, z) on `face`."""
    x, y, z = x - bodies[n, CENTRE], y - bodies[n, CENTRE + 1], z - bodies[n, CENTRE + 2]
    shape = int(bodies[n, SHAPE])
    if shape == SPHERE:
        scale = 1.0 / bodies[n, HALF]
        return x * scale, y * scale, z * scale
    x, y, z = to_body(bodies, n, x, y, z)
    p, h = bodies[n, HALF], bodies[n, HALF + 2]
    nx, ny, nz = 0.0, 0.0, 0.0
    if shape == BOX:
        if face == 1:
            nx = 1.0 if x > 0.0 else -1.0
        elif face == 2:
            ny = 1.0 if y > 0.0 else -1.0
        else:
            nz = 1.0 if z > 0.0 else -1.0
    elif face == 2:  # a cap
        nz = 1.0 if z > 0.0 else -1.0
    else:
        across = math.sqrt(x * x + y * y) + 1e-12
        if shape == CYLINDER:
            nx, ny = x / across, y / across
        elif shape == CONE:
            lean = 1.0 / math.sqrt(4.0 * h * h + p * p)
            nx, ny, nz = 2.0 * h * lean * x / across, 2.0 * h * lean * y / across, p * lean
        else:
            if shape == CAPSULE:
                nx, ny, nz = x, y, z - min(max(z, -h), h)
            else:
                nx, ny, nz = x * (1.0 - p / across), y * (1.0 - p / across), z
            scale = 1.0 / (math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12)
            nx, ny, nz = nx * scale, ny * scale, nz * scale
    return to_world(bodies, n, nx, ny, nz)


@scalar
def distance(bodies, n, x, y, z):
    """Signed distance (negative inside) from a point in body n's axes to its surface; never too large."""
    shape = int(bodies[n, SHAPE])
    p, h = bodies[n, HALF], bodies[n, HALF + 2]
    if shape == SPHERE:
        return math.sqrt(x * x + y * y + z * z) - p
    if shape == BOX:
        ax, ay, az = abs(x) - p, abs(y) - bodies[n, HALF + 1], abs(z) - h
        bx, by, bz = max(ax, 0.0), max(ay, 0.0), max(az, 0.0)
        return math.sqrt(bx * bx + by * by + bz * bz) + min(max(ax, ay, az), 0.0)
    if shape == CAPSULE:
        z -= min(max(z, -h), h)
        return math.sqrt(x * x + y * y + z * z) - p
    across = math.sqrt(x * x + y * y)
    if shape == CYLINDER:
        a, b = across - p, abs(z) - h
        c, d = max(a, 0.0), max(b, 0.0)
        return math.sqrt(c * c + d * d) + min(max(a, b), 0.0)
    if shape == CONE:
        side = (2.0 * h * across + p * (z - h)) / math.sqrt(4.0 * h * h + p * p)
        return max(side, -h - z)
    return distance_torus(p, h, x, y, z)


@scalar
def distance_torus(ring, tube, x, y, z):
    """Signed distance to the torus of radius `ring` about z whose tube has radius `tube`."""
    across = math.sqrt(x * x + y * y) - ring
    return math.sqrt(across * across + z * z) - tube
