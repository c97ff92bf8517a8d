"""Deliberate faults for the checker: doubled objects and malformed ones.

`KINDS` maps an object to the ways it can go wrong. "double" puts a second instance where a picture
must have one; the other kinds damage the drawn layer the way a weak image model does: faded, blurred,
half missing, smeared, torn to displaced pieces.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageFilter

from brush import SIZE, WASH, Sprite

DAMAGE = ("faded", "blurred", "halved", "smeared", "torn")
KINDS = {
    "sky": ("double", "both", "halved", "smeared", "torn"),
    "mountains": ("double", "halved", "blurred", "torn"),
    "colour": ("double",),
    "tree": ("double", "mixed", *DAMAGE),
    "boat": ("double", *DAMAGE),
    "birds": ("double", *DAMAGE),
    "pavilion": ("double", *DAMAGE),
}
_PRESENT = {
    "sky": lambda s: s.sky != "none",
    "mountains": lambda s: True,
    "colour": lambda s: s.mountains > 1,
    "tree": lambda s: s.tree != "none",
    "boat": lambda s: s.boat,
    "birds": lambda s: s.birds,
    "pavilion": lambda s: s.pavilion,
}


def other(rng, options, value):
    return rng.choice([o for o in options if o != value])


def draw(rng, scene, doubles=False):
    """A random fault that this scene can have, objects equally likely; `doubles` asks for no other kind."""
    name = rng.choice([k for k, present in _PRESENT.items() if present(scene)])
    return str(name), "double" if doubles else str(rng.choice(KINDS[name]))


def sky_body(scene, fault):
    return None if scene.sky == "none" else scene.sky


def spoil_sky(canvas, clean, rng, kind, at, draw_body):
    x, y = at
    if kind == "double" or kind == "both":
        second = other(rng, ("sun", "moon"), "sun") if kind == "both" else None
        near = rng.random() < 0.4
        x2 = x + np.sign(0.5 - x) * (rng.uniform(0.13, 0.2) if near else rng.uniform(0.4, 0.6))
        body = second or ("sun" if _is_red(canvas.rgb, x, y) else "moon")
        if kind == "both" and not _is_red(canvas.rgb, x, y):
            body = "sun"
        draw_body(canvas, body, x2, rng.uniform(0.12, 0.2), rng.uniform(0.06, 0.08))
        return
    x0, x1 = (int(np.clip((x + d) * WASH, 0, WASH)) for d in (-0.1, 0.1))
    y0, y1 = (int(np.clip((y + d) * WASH, 0, WASH)) for d in (-0.1, 0.1))
    box = canvas.rgb[y0:y1, x0:x1]
    if kind == "halved":
        half = (x1 - x0) // 2 + int(rng.integers(-8, 9))
        if rng.random() < 0.5:
            box[:, :half] = clean[y0:y1, x0:x1][:, :half]
        else:
            box[:half] = clean[y0:y1, x0:x1][:half]
    elif kind == "smeared":
        shift = (
            np.sin(np.linspace(0, rng.uniform(4, 9), box.shape[0])) * rng.uniform(7, 14)
        ).astype(int)
        for row, d in enumerate(shift):
            box[row] = np.roll(box[row], d, 0)
    else:
        _shuffle(box, rng, 3)


def _is_red(rgb, x, y):
    pixel = rgb[int(y * WASH), int(np.clip(x, 0, 0.999) * WASH)]
    return pixel[0] - pixel[2] > 90


def spoil_mountains(canvas, before, rng, kind, horizon):
    if kind == "double":
        return
    low = int(horizon * WASH)
    band = canvas.rgb[: low + 2]
    if kind == "blurred":
        image = Image.fromarray(np.clip(band, 0, 255).astype(np.uint8))
        band[:] = np.asarray(
            image.filter(ImageFilter.GaussianBlur(float(rng.uniform(9, 14)))), np.float32
        )
    elif kind == "halved":  # the upper or the middle part is missing
        cut = low - int(rng.uniform(0.12, 0.2) * WASH)
        if rng.random() < 0.5:
            band[:cut] = before[:cut]
        else:
            gap = slice(cut - int(0.05 * WASH), cut + int(0.06 * WASH))
            band[gap] = before[gap]
    else:
        top = int(0.22 * WASH)
        for y in range(top, low, 22):
            band[y : y + 22] = np.roll(
                band[y : y + 22], int(rng.choice([-1, 1]) * rng.integers(14, 34)), 1
            )


def layers(rng, scene, name, draw_object, kind, side):
    """The layers (float RGBA, output size) that one object becomes under a fault kind, or None."""
    sprite = Sprite()
    draw_object(sprite)
    if kind is None:
        return [sprite.array()]
    if kind == "double":
        second = Sprite()
        draw_object(second)
        image = second.image
        if name == "tree" or name == "pavilion":
            if rng.random() < 0.5:
                image = image.transpose(Image.FLIP_LEFT_RIGHT)
            else:
                image = _moved(
                    image,
                    -side * rng.uniform(0.17, 0.3) * (1 if name == "tree" else -1),
                    rng.uniform(-0.05, 0.02),
                )
        elif name == "boat":
            way = rng.choice([-1, 1])
            image = _moved(image, way * rng.uniform(0.14, 0.24), rng.uniform(-0.05, 0.06))
        else:
            image = _moved(image, rng.uniform(-0.3, 0.3), rng.uniform(0.16, 0.28))
        second.image = image
        return [second.array(), sprite.array()]
    if kind == "mixed":
        import objects

        kinds = [t for t in ("pine", "willow", "plum") if t != scene.tree]
        if scene.season == "winter":
            kinds = [t for t in kinds if t != "willow"]
        second = Sprite()
        objects.tree(second, rng, dataclasses.replace(scene, tree=str(rng.choice(kinds))), side)
        return [sprite.array(), second.array()]
    return [_damaged(rng, sprite.array(), kind)]


def _moved(image, dx, dy):
    return image.transform(
        image.size, Image.AFFINE, (1, 0, -dx * image.width, 0, 1, -dy * image.height)
    )


def _damaged(rng, layer, kind):
    alpha = layer[..., 3]
    if not alpha.any():
        return layer
    ys, xs = np.nonzero(alpha > 20)
    y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    if kind == "faded":
        layer[..., 3] *= rng.uniform(0.2, 0.42)
    elif kind == "blurred":
        image = Image.fromarray(np.clip(layer, 0, 255).astype(np.uint8), "RGBA")
        radius = float(max(1.7, min(y1 - y0, x1 - x0) * rng.uniform(0.10, 0.16)))
        layer = np.asarray(
            image.convert("RGBa").filter(ImageFilter.GaussianBlur(radius)).convert("RGBA"),
            np.float32,
        )
    elif kind == "halved":
        t = rng.uniform(0.4, 0.6)
        cut = rng.integers(4)
        if cut == 0:
            layer[: int(y0 + t * (y1 - y0)), :, 3] = 0
        elif cut == 1 and (y1 - y0) < 40:
            layer[int(y0 + t * (y1 - y0)) :, :, 3] = 0
        elif cut == 2:
            layer[:, : int(x0 + t * (x1 - x0)), 3] = 0
        else:
            layer[:, int(x0 + t * (x1 - x0)) :, 3] = 0
    elif kind == "smeared":
        width = max(6, int((x1 - x0) * 0.35))
        stack = [np.roll(layer, d, 1) for d in range(-width // 2, width // 2 + 1, 2)]
        alpha_sum = np.sum([l[..., 3] for l in stack], 0)
        rgb = (
            np.sum([l[..., :3] * l[..., 3:] for l in stack], 0)
            / np.maximum(alpha_sum, 1)[..., None]
        )
        layer = np.concatenate(
            [rgb, np.clip(alpha_sum / len(stack) * 1.6, 0, 235)[..., None]], -1
        ).astype(np.float32)
    else:
        _shuffle(layer[y0:y1, x0:x1], rng, 3)
    return layer


def _shuffle(box, rng, n):
    """Permutes an n x n tiling of `box` in place, leaving no tile where it was."""
    h, w = box.shape[0] // n, box.shape[1] // n
    if h < 2 or w < 2:
        box[:] = box[::-1]
        return
    copy = box.copy()
    order = np.roll(rng.permutation(n * n), 1)
    for to, source in zip(np.roll(order, int(rng.integers(1, n * n))), order):
        (a, b), (c, d) = divmod(int(to), n), divmod(int(source), n)
        box[a * h : (a + 1) * h, b * w : (b + 1) * w] = copy[
            c * h : (c + 1) * h, d * w : (d + 1) * w
        ]


assert SIZE == 128
