"""The painter's objects, drawn with strokes on sprites: tree, pavilion, boat, birds, banks, seal.

Each function draws at a place of its own choosing within the region its attribute allows, so that
objects never hide each other. `side` is -1 (left) or +1 (right).
"""

import numpy as np

from brush import Sprite

PINK, DEEP_PINK = (232, 96, 130), (206, 48, 88)


def bank(rng, scene, side, other):
    """Foreground land under the tree (or bare rocks) and, where `other` is given, the pavilion's islet."""
    s = Sprite()
    snow = scene.season == "winter"
    cx = 0.5 + side * 0.40
    reach = 0.25 if scene.tree != "none" else 0.15
    top = 0.925 if scene.tree != "none" else 0.95
    _mound(s, rng, cx, top, reach, snow)
    if scene.tree == "none":
        for _ in range(9):  # reeds
            x = cx - side * rng.uniform(0.0, 0.16)
            h, bend = rng.uniform(0.05, 0.11), rng.uniform(-0.02, 0.02)
            s.line(
                [(x, top + 0.03), (x + bend * 0.4, top - h * 0.5), (x + bend, top - h)],
                (72, 78, 52),
                0.005,
            )
    if other is not None:
        _mound(s, rng, 0.5 + other * 0.36, 0.835, 0.19, snow, 0.05)
    return s


def _mound(s, rng, cx, top, reach, snow, thick=0.3):
    t = np.linspace(-1, 1, 33)
    bump = np.interp(t, np.linspace(-1, 1, 9), rng.uniform(-0.012, 0.012, 9))
    crest = [
        (cx + reach * v, top + 0.075 * v * v * min(1, thick * 4) + b * (1 - v * v))
        for v, b in zip(t, bump)
    ]
    bottom = [
        (x, min(1.05, y + thick * (1 - abs(v) ** 3))) for (x, y), v in zip(crest[::-1], t[::-1])
    ]
    s.polygon(crest + bottom, (96, 94, 80))
    for k in range(3):
        inner = [
            (x * 0.96 + cx * 0.04 * (k + 1) / 1, y + 0.012 + 0.016 * k)
            for x, y in crest[3 + 3 * k : -3 - 3 * k]
        ]
        floor = [(x, min(1.05, y + thick * 0.8)) for x, y in inner[::-1]]
        if thick > 0.1:
            s.polygon(inner + floor, (84 - 10 * k, 82 - 10 * k, 72 - 8 * k))
    if thick <= 0.1:
        s.line([(x, y + 0.03) for x, y in crest[5:-5]], (58, 58, 54), 0.010)
    s.line(crest, (250, 252, 253) if snow else (58, 60, 54), 0.022 if snow else 0.008)
    for _ in range(10):  # moss dots
        i = int(rng.integers(3, 30))
        x, y = crest[i]
        s.dot(
            (x + rng.uniform(-0.01, 0.01), y + rng.uniform(0, 0.012)),
            rng.uniform(0.004, 0.007),
            (252, 253, 254) if snow else (64, 80, 54),
        )


def tree(s, rng, scene, side):
    x0, y0 = 0.5 + side * rng.uniform(0.335, 0.375), 0.945
    {"pine": _pine, "willow": _willow, "plum": _plum}[scene.tree](s, rng, scene, side, x0, y0)


def _trunk(s, rng, side, x0, y0, height, lean, width, colour, bend=0.03):
    t = np.linspace(0, 1, 12)
    phase = rng.uniform(0, 1.5)
    path = [
        (x0 - side * lean * v + side * bend * np.sin(v * 4.5 + phase), y0 - height * v) for v in t
    ]
    s.taper(path, colour, width, width * 0.35)
    lit = [(x - width * 0.18, y) for x, y in path[:9]]
    s.taper(lit, [c + 34 for c in colour], width * 0.28, width * 0.1)
    return path


def _pine(s, rng, scene, side, x0, y0):
    height = rng.uniform(0.44, 0.50)
    path = _trunk(s, rng, side, x0, y0, height, rng.uniform(0.02, 0.07), 0.034, (74, 50, 38), 0.022)
    snow = scene.season == "winter"
    levels = (5, 6, 8, 9, 11)
    for k, level in enumerate(levels):
        x, y = path[level]
        way = side if k % 2 else -side
        if level == 11:
            way = 0.0
        reach = (0.105, 0.105, 0.085, 0.07, 0.02)[k] * rng.uniform(0.9, 1.1)
        cx, cy = x + way * reach, y - 0.012
        s.taper(
            [(x, y + 0.03), ((x + cx) / 2, cy + 0.022), (cx, cy + 0.006)],
            (74, 50, 38),
            0.014,
            0.007,
        )
        half = (0.105, 0.10, 0.088, 0.076, 0.066)[k] * rng.uniform(0.92, 1.1)
        for layer, (dark, lift) in enumerate(
            (((18, 46, 36), 0.0), ((32, 74, 50), 0.010), ((62, 104, 64), 0.018))
        ):
            n = (26, 20, 13)[layer]
            for v in np.linspace(-1, 1, n):
                w = half * (1 - 0.16 * layer)
                px, py = cx + v * w, cy - lift - 0.014 * (1 - v * v)
                length = 0.030 * (1 - 0.55 * v * v) * rng.uniform(0.8, 1.15)
                s.line([(px, py + 0.012), (px + v * 0.018, py - length)], dark, 0.0075)
        s.polygon(
            [(cx - half, cy), (cx, cy - 0.02), (cx + half, cy), (cx, cy + 0.014)], (24, 56, 42)
        )
        if snow:
            for v in np.linspace(-0.8, 0.8, 9):
                s.dot(
                    (cx + v * half, cy - 0.026 - 0.020 * (1 - v * v)), 0.015, (251, 253, 254), 0.62
                )


def _willow(s, rng, scene, side, x0, y0):
    height = rng.uniform(0.40, 0.44)
    path = _trunk(s, rng, side, x0, y0, height, rng.uniform(0.03, 0.07), 0.036, (84, 68, 50))
    tone = {
        "none": (122, 150, 58),
        "spring": (150, 188, 70),
        "summer": (84, 140, 52),
        "autumn": (190, 166, 60),
    }[scene.season]
    tx, ty = path[-1]
    boughs = []
    for dx in (-0.12, -0.07, -0.02, 0.04, 0.09, 0.13):
        t = np.linspace(0, 1, 7)
        bough = [(tx + dx * v, ty + 0.07 - 0.12 * v**0.7 + 0.05 * v * v) for v in t]
        s.taper(bough, (84, 68, 50), 0.012, 0.006)
        boughs.append((dx, bough))
    for k in range(34):
        dx, bough = boughs[k % len(boughs)]
        sx, sy = bough[int(rng.integers(2, 7))]
        drift = dx * rng.uniform(0.25, 0.65) + rng.uniform(-0.02, 0.02)
        length = rng.uniform(0.16, 0.31) * (1 - 1.1 * abs(dx))
        t = np.linspace(0, 1, 9)
        pts = [
            (
                sx + drift * (1 - (1 - v) ** 2),
                sy - 0.03 * 4 * v * (1 - v) * (1 - v) + length * v**1.3,
            )
            for v in t
        ]
        g = rng.uniform(-26, 22)
        s.taper(pts, (tone[0] + g, tone[1] + g, tone[2] + 0.5 * g), 0.0088, 0.0055)
        for v in range(3, 9, 2):
            s.dot(
                (pts[v][0] + rng.uniform(-0.006, 0.006), pts[v][1]),
                0.0055,
                (tone[0] + g + 14, tone[1] + g + 14, tone[2]),
                1.5,
            )


def _plum(s, rng, scene, side, x0, y0):
    height = rng.uniform(0.30, 0.34)
    dark = (52, 36, 36)
    path = _trunk(s, rng, side, x0, y0, height, rng.uniform(0.0, 0.05), 0.034, dark, 0.028)
    tips = []
    for k in range(8):
        x, y = path[int(rng.integers(6, 12))]
        way = side if k % 2 else -side
        angle = rng.uniform(0.25, 1.15)
        length = rng.uniform(0.11, 0.17)
        mx, my = x + way * np.sin(angle) * length * 0.62, y - np.cos(angle) * length * 0.5
        ex, ey = (
            mx + way * np.sin(angle * 0.4) * length * 0.55,
            my - np.cos(angle * 0.4) * length * 0.55,
        )
        s.taper([(x, y), (mx, my), (ex, ey)], dark, 0.013, 0.006)
        tips += [(mx, my), (ex, ey), ((mx + ex) / 2, (my + ey) / 2), ((x + mx) / 2, (y + my) / 2)]
        if scene.season == "winter":
            s.line([(mx, my - 0.008), (ex, ey - 0.008)], (250, 252, 253), 0.007)
    spots = tips + [tips[i] for i in rng.integers(0, len(tips), 12)]
    for x, y in spots:
        x, y = x + rng.uniform(-0.026, 0.026), y + rng.uniform(-0.024, 0.024)
        r = rng.uniform(0.0105, 0.0155)
        g = rng.uniform(-16, 22)
        for a in np.arange(5) * 1.2566 + rng.uniform(0, 1):
            s.dot(
                (x + 0.62 * r * np.cos(a), y + 0.62 * r * np.sin(a)),
                0.66 * r,
                (DEEP_PINK[0] + g, DEEP_PINK[1] + g, DEEP_PINK[2] + g),
            )
        s.dot((x, y), 0.38 * r, (255, 206, 190))


def pavilion(s, rng, scene, side):
    x, y = 0.5 + side * rng.uniform(0.335, 0.37), 0.845
    w, h = rng.uniform(0.088, 0.098), 0.088
    roof, post, red = (46, 58, 66), (150, 44, 30), (120, 34, 26)
    s.polygon(
        [
            (x - w * 1.05, y),
            (x + w * 1.05, y),
            (x + w * 1.12, y + 0.016),
            (x - w * 1.12, y + 0.016),
        ],
        (150, 144, 130),
    )
    s.line([(x - w * 0.95, y - 0.022), (x + w * 0.95, y - 0.022)], red, 0.007)
    for v in (-0.84, -0.3, 0.3, 0.84):
        s.line([(x + v * w, y), (x + v * w, y - h)], post, 0.0125 if abs(v) > 0.5 else 0.008)
    s.line([(x - w, y - h + 0.004), (x + w, y - h + 0.004)], red, 0.011)
    for base, half, rise in ((y - h, 1.5, 0.066), (y - h - 0.066, 0.62, 0.058)):
        t = np.linspace(0, 1, 9)
        flank = [
            (half * w * (1 - v) + 0.22 * w * v, -rise * v**1.45 - 0.020 * (1 - v) ** 4) for v in t
        ]
        right = [(x + a, base + b) for a, b in flank]
        left = [(x - a, base + b) for a, b in flank[::-1]]
        s.polygon(right + left, roof)
        under = [(x + half * w * v, base - 0.020 * abs(v) ** 5) for v in np.linspace(-1, 1, 11)]
        s.line(under, (30, 36, 42), 0.008)
        for v in (-0.5, -0.17, 0.17, 0.5):
            s.line(
                [(x + v * half * w, base - 0.006), (x + v * 0.3 * w, base - rise * 0.9)],
                (92, 106, 112),
                0.004,
            )
    tip = y - h - 0.066 - 0.058
    s.line([(x, tip + 0.01), (x, tip - 0.022)], roof, 0.011)
    s.dot((x, tip - 0.022), 0.010, (196, 60, 34))
    if scene.season == "winter":
        for base, half, rise in ((y - h - 0.012, 1.25, 0.05), (y - h - 0.078, 0.5, 0.044)):
            s.line(
                [(x + half * w * (1 - v), base - rise * v**1.4) for v in np.linspace(0, 0.82, 7)],
                (252, 253, 254),
                0.015,
            )
            s.line(
                [(x - half * w * (1 - v), base - rise * v**1.4) for v in np.linspace(0, 0.82, 7)],
                (252, 253, 254),
                0.015,
            )
    if scene.time in ("night", "dusk"):
        s.dot((x, y - h * 0.55), 0.014, (255, 214, 120), 1.2)


def boat(s, rng, scene, side, shift=0.0):
    x = 0.5 - side * rng.uniform(-0.03, 0.07) + shift
    y = rng.uniform(0.785, 0.865)
    w, way = rng.uniform(0.092, 0.108), rng.choice([-1.0, 1.0])
    for k in range(4):  # its shade on the water
        half = w * (1.05 - 0.2 * k)
        s.line(
            [(x - half, y + 0.026 + 0.011 * k), (x + half, y + 0.026 + 0.011 * k)],
            (60, 58, 56, 120 - 24 * k),
            0.006,
        )
    t = np.linspace(-1, 1, 17)
    deck = [(x + w * v, y - 0.026 * abs(v) ** 2.4) for v in t]
    keel = [(x + w * 0.93 * v, y + 0.030 * (1 - v * v) - 0.020 * v * v) for v in t[::-1]]
    s.polygon(deck + keel, (70, 44, 32))
    s.line(deck, (112, 76, 52), 0.006)
    a = np.linspace(np.pi, 0, 13)
    cx = x - way * 0.012
    s.polygon([(cx + 0.043 * np.cos(v), y + 0.002 - 0.052 * np.sin(v)) for v in a], (176, 128, 70))
    for f in (-0.6, -0.2, 0.2, 0.6):
        s.line(
            [(cx + 0.043 * f, y), (cx + 0.043 * f * 0.9, y - 0.05 * np.sqrt(1 - f * f))],
            (128, 88, 46),
            0.005,
        )
    s.line(
        [(cx + 0.043 * np.cos(v), y + 0.002 - 0.052 * np.sin(v)) for v in a], (84, 54, 34), 0.006
    )
    px = x + way * w * 0.66
    s.polygon(
        [
            (px - 0.017, y - 0.008),
            (px + 0.017, y - 0.008),
            (px + 0.008, y - 0.056),
            (px - 0.008, y - 0.056),
        ],
        (48, 54, 70),
    )
    s.dot((px, y - 0.062), 0.010, (214, 176, 140))
    s.polygon([(px - 0.025, y - 0.063), (px + 0.025, y - 0.063), (px, y - 0.086)], (196, 160, 92))
    s.line([(px + way * 0.010, y - 0.076), (px + way * 0.062, y + 0.036)], (66, 48, 36), 0.0055)
    if scene.time == "night":
        lx = x - way * w * 0.80
        s.dot((lx, y - 0.045), 0.011, (255, 196, 92))


def birds(s, rng, scene, side):
    cx, cy = 0.5 + side * rng.uniform(0.18, 0.28), rng.uniform(0.10, 0.15)
    n = int(rng.integers(3, 6))
    colour = (232, 236, 240) if scene.time == "night" else (30, 30, 36)
    for k in range(n):
        off = k - (n - 1) / 2
        x = cx + off * 0.075 + rng.uniform(-0.008, 0.008)
        y = cy + abs(off) * 0.034 + rng.uniform(-0.006, 0.006)
        a, lift = rng.uniform(0.029, 0.034), rng.uniform(0.55, 0.85)
        for way in (-1, 1):
            wing = [
                (x + way * a * v, y - a * lift * np.sin(min(1.0, v * 1.25) * 1.75) * (1 - 0.25 * v))
                for v in np.linspace(0, 1, 7)
            ]
            s.taper(wing, colour, 0.0135, 0.006)
        s.dot((x, y + 0.002), 0.0075, colour, 0.8)


def season_foreground(rng, scene, side):
    """What the season scatters in the air and on the near water."""
    s = Sprite()
    if scene.season == "spring":
        for _ in range(16):
            s.dot(
                (rng.uniform(0.03, 0.97), rng.uniform(0.70, 0.97)),
                rng.uniform(0.006, 0.009),
                (248, 160, 184),
                0.6,
            )
    elif scene.season == "summer":
        for cx, cy in (
            (0.5 - side * 0.30, 0.955),
            (0.5 - side * 0.12, 0.965),
            (0.5 - side * 0.44, 0.94),
        ):
            for _ in range(3):
                x, y = cx + rng.uniform(-0.06, 0.06), cy + rng.uniform(-0.025, 0.02)
                r, g = rng.uniform(0.032, 0.045), rng.uniform(-12, 14)
                s.dot((x, y), r, (44 + g, 112 + g, 64 + g), 0.36)
                s.dot((x - 0.005, y - 0.004), r * 0.72, (82 + g, 148 + g, 84 + g), 0.30)
            if rng.random() < 0.8:
                _lotus(s, cx + rng.uniform(-0.03, 0.03), cy - rng.uniform(0.035, 0.055))
    elif scene.season == "autumn":
        for _ in range(20):
            x, y = rng.uniform(0.03, 0.97), rng.uniform(0.70, 0.97)
            s.dot(
                (x, y),
                rng.uniform(0.007, 0.0105),
                ((206, 56, 22), (226, 118, 26))[int(rng.random() < 0.4)],
                0.6,
            )
    elif scene.season == "winter":
        for _ in range(46):
            s.dot(
                (rng.uniform(0, 1), rng.uniform(0, 0.96)),
                rng.uniform(0.004, 0.0075),
                (254, 255, 255),
            )
    return s


def _lotus(s, x, y):
    s.line([(x, y), (x + 0.004, y + 0.05)], (60, 116, 66), 0.006)
    for dx, tone in (
        (-0.019, PINK),
        (0.019, PINK),
        (-0.010, (244, 140, 166)),
        (0.010, (244, 140, 166)),
        (0.0, (252, 184, 200)),
    ):
        s.polygon(
            [
                (x - 0.009, y + 0.006),
                (x + dx - 0.004, y - 0.012),
                (x + dx, y - 0.026),
                (x + dx + 0.006, y - 0.012),
                (x + 0.009, y + 0.006),
            ],
            tone,
        )


def seal(rng, side, scene):
    """The painter's red seal, in the lower corner away from the tree, with a cut 山 for a character."""
    s = Sprite()
    x, y, r = 0.5 - side * 0.445, 0.935, 0.026
    s.polygon([(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)], (190, 38, 30))
    ivory = (248, 232, 214)
    s.line([(x, y - 0.016), (x, y + 0.014)], ivory, 0.007)
    s.line(
        [
            (x - 0.014, y - 0.004),
            (x - 0.014, y + 0.014),
            (x + 0.014, y + 0.014),
            (x + 0.014, y - 0.004),
        ],
        ivory,
        0.007,
    )
    return s
