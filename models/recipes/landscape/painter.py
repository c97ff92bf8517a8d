"""Paints a `grammar.Scene` as a 128 x 128 Chinese ink landscape: the ground truth of the demo model.

    python painter.py --output grid.png            # 48 random scenes, to look at
    python painter.py --faults --output bad.png    # the checker's negatives

`paint` is deterministic in (scene, numpy generator, fault). A fault (see faults.py) doubles or
damages one object; only the checker is trained on those.
"""

import numpy as np

import faults
from brush import COLUMN, WASH, X, Y, Wash, noise1, noise2, over, smoothstep
from objects import bank, birds, boat, pavilion, seal, season_foreground, tree

HORIZON = 0.66
# Per time of day: sky at the top and at the horizon, mist, light that falls on things.
LIGHT = {
    "none": ((236, 227, 204), (245, 238, 220), (248, 243, 230), (1.0, 1.0, 1.0)),
    "dawn": ((176, 204, 216), (253, 206, 178), (255, 232, 216), (1.0, 0.97, 0.97)),
    "dusk": ((138, 110, 148), (244, 164, 104), (250, 200, 152), (0.86, 0.75, 0.73)),
    "night": ((24, 32, 62), (72, 90, 126), (122, 138, 168), (0.58, 0.64, 0.82)),
}
WINTER_SKY = ((208, 214, 217), (232, 235, 234), (244, 246, 246))
MOUNTAIN = {"blue": (34, 112, 116), "ink": (44, 44, 50), "gold": (206, 142, 26)}


def lit(colour, light, keep=0.0):
    """`colour` under a light; `keep` > 0 spares that share of the darkening (self-bright things)."""
    return np.asarray(colour, np.float32) * (np.asarray(light, np.float32) * (1 - keep) + keep)


def _sky(canvas, scene, rng):
    top, low, mist, light = LIGHT[scene.time]
    if scene.season == "winter" and scene.time == "none":
        top, low, mist = WINTER_SKY
    t = smoothstep(0.0, HORIZON, Y)[..., None] ** 0.9
    canvas.rgb[:] = np.asarray(top, np.float32) * (1 - t) + np.asarray(low, np.float32) * t
    blotch = noise2(rng, 6, 6)
    canvas.rgb += (blotch * 2.2 * (1 if scene.time == "none" else 1.3))[..., None]
    # wet clouds: long soft brush marks
    cloud = smoothstep(0.5, 1.9, noise2(rng, 14, 4)) * smoothstep(0.55, 0.25, Y)
    canvas.blend(0.30 * cloud, mist)
    return np.asarray(mist, np.float32), light


def _sun_or_moon(canvas, kind, x, y, radius):
    d = np.hypot(X - x, Y - y)
    inside = np.clip((radius - d) * WASH / 1.5 + 0.5, 0, 1)
    if kind == "sun":
        canvas.blend(0.50 * np.exp(-np.maximum(d - radius, 0) / 0.055), (240, 140, 92))
        canvas.blend(inside, np.stack([212 + 0 * Y, 58 - 90 * (y + radius - Y), 34 + 0 * Y], -1))
    else:
        canvas.blend(0.50 * np.exp(-np.maximum(d - radius, 0) / 0.05), (150, 164, 178))
        canvas.blend(inside, (254, 251, 232))
        canvas.blend(
            0.10 * inside * smoothstep(0.2, 1.4, noise2(np.random.default_rng(3), 24, 24)),
            (170, 170, 150),
        )


def _far_hills(canvas, rng, mist, light):
    for level, (height, tone) in enumerate(((0.13, 0.13), (0.07, 0.20))):
        ridge = HORIZON - height - 0.022 * noise1(rng, 5 + 2 * level) - 0.008 * noise1(rng, 17)
        depth = Y - ridge[None]
        body = np.clip(depth * WASH / 2 + 0.5, 0, 1) * smoothstep(
            HORIZON + 0.01, HORIZON - height, Y
        )
        canvas.blend(tone * body, lit((96, 116, 128), light))


def _profile(rng, u, skew):
    """Height fraction of a crag over u in [-1, 1]: a blunt asymmetric peak with two broken shoulders."""
    v = u + skew * (1 - u * u)
    base = np.clip(1 - np.abs(v), 0, None)
    steep = base ** rng.uniform(0.98, 1.22)
    bumps = 0.0
    for side in (-1, 1):
        at, size = side * rng.uniform(0.38, 0.58), rng.uniform(0.06, 0.13)
        bumps = bumps + size * np.exp(-(((u - at) / 0.13) ** 2))
    return steep + bumps * smoothstep(0, 0.3, base)


def _mountain(canvas, rng, scene, colour, place, mist, light):
    centre, half, height = place
    u = (COLUMN - centre) / half
    prof = _profile(rng, u, rng.uniform(-0.13, 0.13))
    crag = (0.013 * noise1(rng, 22) + 0.008 * noise1(rng, 52)) * np.clip(prof * 4, 0, 1)
    crag *= np.clip(1.25 - prof, 0.35, 1)
    ridge = np.where(prof > 0.002, HORIZON - height * prof + crag, 2.0)
    depth = Y - ridge[None]
    body = np.clip(depth * WASH / 2 + 0.5, 0, 1)
    q = np.clip((HORIZON - Y) / height, 0, 1)  # height fraction
    foot = smoothstep(-0.02, 0.42, q)
    above = np.clip((HORIZON + 0.015 - Y) * 40, 0, 1)
    canvas.blend(body * above * (0.45 + 0.55 * foot), mist)  # hides what is behind

    theta = np.clip(u[None] / (1.08 - 0.92 * q) * 0.5 + 0.5 + 0.05 * noise2(rng, 5, 5), 0, 1)
    streaks = noise2(rng, 7, 30)
    folds = noise2(rng, 3, 9)
    rows = ((1 - q) * (WASH - 1)).astype(np.int32)
    cols = (theta * (WASH - 1)).astype(np.int32)
    stroke, fold = streaks[rows, cols], folds[rows, cols]
    shade = np.tanh((theta - 0.5) * 5) * rng.choice([-1, 1])
    tone = 0.64 + 0.13 * stroke + 0.15 * fold + 0.15 * shade
    tone = tone * (0.30 + 0.70 * foot)
    edge = np.exp(-np.maximum(depth, 0) / 0.011) * smoothstep(0.02, 0.3, q)
    alpha = np.clip(np.maximum(tone, 0.92 * edge), 0.0, 0.97) * body * above * foot
    ink = np.asarray(colour, np.float32)
    canvas.blend(alpha, ink)
    canvas.blend(
        np.clip(0.55 * smoothstep(0.5, 1.7, fold - 0.6 * shade + 0.4 * stroke), 0, 1)
        * body
        * above
        * foot,
        ink * 0.45,
    )
    if scene.season == "winter":
        line = 0.57 + 0.10 * fold + 0.07 * stroke
        snow = smoothstep(line - 0.05, line + 0.05, q) * body * smoothstep(0.006, 0.014, depth)
        rock = smoothstep(0.5, 1.3, fold + 0.5 * stroke + 0.5 * shade)
        canvas.blend(snow * (0.97 - 0.62 * rock), lit((252, 253, 254), light, 0.35))


def _mountains(canvas, rng, scene, fault, mist, light):
    count = scene.mountains if fault != ("mountains", "double") else 4
    slots = {1: (0.5,), 2: (0.30, 0.70), 3: (0.18, 0.5, 0.82), 4: (0.13, 0.38, 0.63, 0.88)}[count]
    half = {1: 0.37, 2: 0.245, 3: 0.178, 4: 0.13}[count]
    top = {1: 0.46, 2: 0.40, 3: 0.36, 4: 0.34}[count]
    shift = rng.uniform(-0.09, 0.09) if count == 1 else 0.0
    odd = int(rng.integers(count))
    for i in rng.permutation(count):
        hue = scene.colour
        if fault == ("colour", "double") and i == odd:
            hue = faults.other(rng, MOUNTAIN, scene.colour)
        keep = 0.55 if hue != "ink" else 0.0
        colour = lit(MOUNTAIN[hue], light, keep) * rng.uniform(0.94, 1.06)
        place = (
            slots[i] + shift + rng.uniform(-0.025, 0.025),
            half * rng.uniform(0.94, 1.06),
            top * rng.uniform(0.80, 1.08),
        )
        _mountain(canvas, rng, scene, colour, place, mist, light)


def _mist(canvas, rng, scene, mist):
    strength = {"dawn": 0.85, "none": 0.6, "dusk": 0.55, "night": 0.4}[scene.time]
    for _ in range(3 if scene.time == "dawn" else 2):
        y = rng.uniform(HORIZON - 0.13, HORIZON - 0.03) + 0.012 * noise1(rng, 4)
        band = np.exp(-(((Y - y[None]) / rng.uniform(0.014, 0.026)) ** 2))
        canvas.blend(strength * band * smoothstep(-0.7, 0.9, noise1(rng, 4))[None], mist)


SHORE = {
    "none": ((70, 78, 70), (96, 100, 88)),
    "spring": ((244, 142, 168), (252, 186, 200)),
    "summer": ((58, 132, 58), (98, 160, 66)),
    "autumn": ((200, 52, 22), (232, 120, 30)),
    "winter": ((240, 244, 247), (206, 216, 222)),
}


def _shore(canvas, rng, scene, light):
    """The thin far bank where mountains meet water, with groves in the season's colour."""
    y0 = HORIZON + 0.004 * noise1(rng, 9)
    land = np.exp(-(((Y - y0[None]) / 0.006) ** 2)) * smoothstep(-0.9, 0.5, noise1(rng, 6))[None]
    canvas.blend(0.55 * land, lit((74, 78, 72), light))
    dense = scene.season != "none"
    for _ in range(rng.integers(4, 6) if dense else 4):
        at, spread = rng.uniform(0.03, 0.97), rng.uniform(0.04, 0.08)
        for k in range(int(rng.integers(9, 13)) if dense else 5):
            x, r = (
                at + rng.normal() * spread * 0.6,
                rng.uniform(0.009, 0.017) * (1 if dense else 0.6),
            )
            y = (
                HORIZON
                - 0.004
                - rng.uniform(0, 0.034 if dense else 0.008) * np.exp(-(((x - at) / spread) ** 2))
            )
            tone = lit(SHORE[scene.season][int(k % 3 == 0)], light, 0.35)
            _dab(canvas, x, y, r, tone * rng.uniform(0.88, 1.08), 0.92)


def _dab(canvas, x, y, r, colour, opacity):
    x0, x1 = int(max(0, (x - 2 * r) * WASH)), int(min(WASH, (x + 2 * r) * WASH + 1))
    y0, y1 = int(max(0, (y - 2 * r) * WASH)), int(min(WASH, (y + 2 * r) * WASH + 1))
    if x0 >= x1 or y0 >= y1:
        return
    d = np.hypot(X[y0:y1, x0:x1] - x, (Y[y0:y1, x0:x1] - y) * 1.15)
    alpha = opacity * np.clip((r - d) * WASH / 2 + 0.5, 0, 1)
    canvas.rgb[y0:y1, x0:x1] += alpha[..., None] * (colour - canvas.rgb[y0:y1, x0:x1])


def _water(canvas, rng, scene, light):
    """Mirrors the land below the horizon, broken by ripples and fading towards the viewer."""
    first = round((HORIZON + 0.012) * WASH)
    rows = np.arange(first, WASH)
    below = (rows - first) / WASH
    wave = (noise1(rng, 40, WASH)[rows] * (1.0 + 9 * below)).astype(np.int32)
    source = np.clip(first - 3 - (rows - first) * 1.15, 0, WASH - 1).astype(np.int32)
    cols = np.clip(np.arange(WASH)[None] + wave[:, None], 0, WASH - 1)
    mirror = canvas.rgb[source[:, None], cols]
    base = canvas.rgb[max(0, first - round(0.3 * WASH)) : first].mean((0, 1)) * 0.3
    base = base + 0.7 * np.asarray(
        LIGHT[scene.time][1] if scene.season != "winter" or scene.time != "none" else WINTER_SKY[1],
        np.float32,
    )
    depth = below[:, None, None]
    tone = base[None, None] * (1.0 - 0.22 * depth / 0.34)
    share = 0.62 * np.exp(-depth / 0.17)
    canvas.rgb[first:] = tone * (1 - share) + mirror * share
    bright = lit((255, 252, 240), light, 0.3)
    for _ in range(16):
        y = rng.uniform(HORIZON + 0.03, 0.985)
        x, length = rng.uniform(-0.05, 0.95), rng.uniform(0.06, 0.22)
        shape = np.exp(-(((Y[first:] - y) / 0.0035) ** 2)) * smoothstep(
            length / 2, length / 5, np.abs(X[first:] - x - length / 2)
        )
        tone = bright if rng.random() < 0.6 else lit((86, 108, 120), light)
        canvas.rgb[first:] += (0.34 * shape)[..., None] * (tone - canvas.rgb[first:])


def paint(scene, rng, fault=None):
    """Returns uint8 [128, 128, 3]. `fault` is None or (object, kind) from faults.KINDS."""
    canvas = Wash()
    mist, light = _sky(canvas, scene, rng)
    sky_side = rng.choice([-1.0, 1.0])
    sky_at = (0.5 + sky_side * rng.uniform(0.22, 0.35), rng.uniform(0.12, 0.17))
    body = faults.sky_body(scene, fault)
    if body:
        clean = canvas.rgb.copy() if fault and fault[0] == "sky" else None
        _sun_or_moon(canvas, body, *sky_at, rng.uniform(0.068, 0.082))
        if clean is not None:
            faults.spoil_sky(canvas, clean, rng, fault[1], sky_at, _sun_or_moon)
    _far_hills(canvas, rng, mist, light)
    before = canvas.rgb.copy() if fault and fault[0] == "mountains" else None
    _mountains(canvas, rng, scene, fault, mist, light)
    if before is not None:
        faults.spoil_mountains(canvas, before, rng, fault[1], HORIZON)
    _mist(canvas, rng, scene, mist)
    _shore(canvas, rng, scene, light)
    _water(canvas, rng, scene, light)
    picture = canvas.small()

    side = -1.0 if scene.side == "left" else 1.0
    layers = []
    if scene.pavilion:
        layers.append(("pavilion", lambda s: pavilion(s, rng, scene, -side)))
    over(picture, bank(rng, scene, side, -side if scene.pavilion else None).array() * _tint(light))
    if scene.tree != "none":
        layers.append(("tree", lambda s: tree(s, rng, scene, side)))
    if scene.boat:
        layers.append(("boat", lambda s: boat(s, rng, scene, side)))
    if scene.birds:
        layers.append(("birds", lambda s: birds(s, rng, scene, -sky_side)))
    for name, draw in layers:
        kind = fault[1] if fault and fault[0] == name else None
        for layer in faults.layers(rng, scene, name, draw, kind, side):
            over(picture, layer * _tint(light, 0.18 if name != "birds" else 1.0))
    over(picture, season_foreground(rng, scene, side).array() * _tint(light, 0.45))
    over(picture, seal(rng, side, scene).array() * _tint(light, 0.6))
    grain = rng.normal(size=(picture.shape[0], picture.shape[1], 1)).astype(np.float32)
    return np.clip(picture + 0.8 * grain + 0.5, 0, 255).astype(np.uint8)


def _tint(light, keep=0.0):
    return np.append(lit((1, 1, 1), light, keep), 1).astype(np.float32)


def main():
    import argparse
    import random
    import time

    from PIL import Image

    import grammar

    args = argparse.ArgumentParser(description="Paints a grid of random scenes.")
    args.add_argument("--output", required=True)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--faults", action="store_true")
    args = args.parse_args()
    rng, pick = np.random.default_rng(args.seed), random.Random(args.seed)
    scenes = grammar.all_scenes()
    start, tiles = time.time(), []
    for _ in range(48):
        scene = pick.choice(scenes)
        fault = faults.draw(rng, scene) if args.faults else None
        tiles.append(paint(scene, rng, fault))
        print(len(tiles), scene if not fault else (fault, scene))
    print(f"{(time.time() - start) / 48 * 1e3:.1f} ms a picture")
    rows = [np.concatenate(tiles[i : i + 8], 1) for i in range(0, 48, 8)]
    grid = Image.fromarray(np.concatenate(rows))
    grid.resize((grid.width * 2, grid.height * 2), Image.LANCZOS).save(args.output)


if __name__ == "__main__":
    main()
