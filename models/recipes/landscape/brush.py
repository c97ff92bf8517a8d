"""Drawing primitives of the painter: smooth noise, washes on a float canvas, sprites drawn large.

Washes (paper, sky, mountains, water) are computed per pixel on a canvas of twice the output size.
Objects with strokes are drawn by Pillow on transparent sprites of four times the output size and
reduced, which anti-aliases thin strokes. All coordinates are fractions of the picture, y downwards.
"""

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
WASH = 2 * SIZE
SPRITE = 4 * SIZE
Y, X = np.mgrid[0:WASH, 0:WASH].astype(np.float32) / WASH
COLUMN = np.arange(WASH, dtype=np.float32) / WASH


def smoothstep(low, high, value):
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise1(rng, knots, width=WASH):
    """Smooth 1-D noise of unit variance with about `knots` swings over the picture."""
    values = rng.normal(size=knots + 3)
    x = np.linspace(0, knots, width)
    i = x.astype(int)
    f = x - i
    f = f * f * (3 - 2 * f)
    return (values[i] * (1 - f) + values[i + 1] * f).astype(np.float32)


def noise2(rng, rows, columns, size=WASH):
    """Smooth 2-D noise, size x size, from a rows x columns grid of unit normals."""
    grid = Image.fromarray(rng.normal(size=(rows, columns)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.BICUBIC))


class Wash:
    """The float canvas."""

    def __init__(self):
        self.rgb = np.empty((WASH, WASH, 3), np.float32)

    def blend(self, alpha, colour):
        """Lays `colour` (3 numbers or an image) over the canvas with per-pixel opacity `alpha`."""
        rows, cols = np.nonzero(alpha.max(1) > 0.002)[0], np.nonzero(alpha.max(0) > 0.002)[0]
        if not len(rows):
            return
        box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        colour = np.asarray(colour, np.float32)
        self.rgb[box] += alpha[box][..., None] * (
            (colour[box] if colour.ndim == 3 else colour) - self.rgb[box]
        )

    def small(self):
        """The canvas reduced to the output size, float32 0..255."""
        s = SIZE
        return self.rgb.reshape(s, 2, s, 2, 3).mean((1, 3))


class Sprite:
    """A transparent layer; strokes keep their order, later ones cover earlier ones."""

    def __init__(self):
        self.image = Image.new("RGBA", (SPRITE, SPRITE), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)

    @staticmethod
    def px(points):
        return [(x * SPRITE, y * SPRITE) for x, y in points]

    def line(self, points, colour, width):
        """A polyline with round joints; `width` as a fraction of the picture."""
        w = max(1, round(width * SPRITE))
        self.draw.line(self.px(points), fill=_rgba(colour), width=w, joint="curve")

    def taper(self, points, colour, start, end):
        """A brush stroke whose width runs from `start` to `end`."""
        pts = self.px(points)
        n = len(pts)
        for k in range(n - 1):
            w = (start + (end - start) * k / max(1, n - 2)) * SPRITE
            self.draw.line(pts[k : k + 2], fill=_rgba(colour), width=max(1, round(w)))
            self.dot(points[k], w / SPRITE / 2, colour)

    def dot(self, centre, radius, colour, flat=1.0):
        x, y = centre[0] * SPRITE, centre[1] * SPRITE
        r = radius * SPRITE
        self.draw.ellipse([x - r, y - r * flat, x + r, y + r * flat], fill=_rgba(colour))

    def polygon(self, points, colour):
        self.draw.polygon(self.px(points), fill=_rgba(colour))

    def array(self):
        """The sprite reduced to the output size, float32 RGBA 0..255."""
        return np.asarray(self.image.reduce(SPRITE // SIZE), np.float32)


def _rgba(colour):
    c = [min(255, max(0, int(v))) for v in colour]
    return tuple(c) if len(c) == 4 else (*c, 255)


def over(picture, layer):
    """Composites a reduced sprite (float RGBA) onto a float RGB picture in place."""
    picture += layer[..., 3:] / 255 * (layer[..., :3] - picture)
