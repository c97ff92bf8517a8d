"""Records picture files of every kind that clients send, and what Pillow sees in them.

    python generate.py            # writes files/, pixels.bin and cases.json beside this file

`cases.json` lists the files. A good one has its size, its place in `pixels.bin` (8-bit RGB as shown:
turned as EXIF says, on white) and the difference allowed per byte; a bad one has words of the error.
`fits` are pictures cut and resized by Pillow's BICUBIC. `versions` names those that made them.
"""

import io
import json
import pathlib
import random
import struct
import zlib

import PIL
from PIL import Image, ImageOps, features

HERE = pathlib.Path(__file__).parent
SIZE = (23, 17)


def painting(mode="RGB", size=SIZE):
    """Smooth colours, with corners that tell the orientations apart."""
    width, height = size
    picture = Image.new("RGBA", size)
    for y in range(height):
        for x in range(width):
            alpha = 255 if x < 4 else 40 + (x * 9 + y * 5) % 200
            picture.putpixel((x, y), (x * 255 // width, y * 255 // height, 90 + x * 2, alpha))
    picture.paste((250, 20, 30, 255), (0, 0, 8, 8))
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def exif(orientation, big_endian=False):
    order = ">" if big_endian else "<"
    head = b"MM\0*" if big_endian else b"II*\0"
    return (
        b"Exif\0\0" + head + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    )


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, interlace=0, before=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def deep_png(colour):
    """16 bits a sample, which Pillow writes for gray alone."""
    samples = {2: 3, 4: 2, 6: 4}[colour]
    width, height = SIZE
    draw = random.Random(colour)
    values = [[draw.randrange(65536) for _ in range(width * samples)] for _ in range(height)]
    return png(width, height, 16, colour, [struct.pack(f">{len(row)}H", *row) for row in values])


def deep_pixels(file):
    """Of deep_png, rounded: Pillow cuts the low bytes off."""
    colour = file[25]
    samples = {2: 3, 4: 2, 6: 4}[colour]
    start = file.index(b"IDAT")
    size = struct.unpack(">I", file[start - 4 : start])[0]
    raw = zlib.decompress(file[start + 4 : start + 4 + size])
    pixels = bytearray()
    stride = SIZE[0] * samples * 2 + 1
    for y in range(SIZE[1]):
        row = struct.unpack(f">{SIZE[0] * samples}H", raw[y * stride + 1 : (y + 1) * stride])
        for x in range(SIZE[0]):
            values = [round(v * 255 / 65535) for v in row[x * samples : (x + 1) * samples]]
            alpha = values[-1] if samples in (2, 4) else 255
            for value in values[:3] if samples > 2 else [values[0]] * 3:
                pixels.append(round((value * alpha + 255 * (255 - alpha)) / 255))
    return SIZE, bytes(pixels)


def shown(file):
    """What a viewer shows."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    picture = picture.convert("RGBA" if picture.mode != "CMYK" else "RGB").convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return picture.size, Image.alpha_composite(white, picture).convert("RGB").tobytes()


def good_files():
    """name: (file, allowed difference)."""
    rgb, rgba = painting(), painting("RGBA")
    gray = painting("L")
    palette = rgb.quantize(13)
    files = {
        "rgb.png": (encoded(rgb, "PNG"), 0),
        "rgba.png": (encoded(rgba, "PNG"), 1),
        "gray.png": (encoded(gray, "PNG"), 0),
        "gray_alpha.png": (encoded(rgba.convert("LA"), "PNG"), 1),
        "bits.png": (encoded(rgb.convert("1"), "PNG"), 0),
        "palette.png": (encoded(palette, "PNG"), 0),
        "palette4.png": (encoded(palette, "PNG", bits=4), 0),
        "palette_hole.png": (encoded(palette, "PNG", transparency=2), 1),
        "rgb_hole.png": (encoded(rgb, "PNG", transparency=(250, 20, 30)), 1),
        "rgb.jpg": (encoded(rgb, "JPEG", quality=95), 2),
        "whole_colour.jpg": (encoded(rgb, "JPEG", quality=95, subsampling=0), 2),
        "progressive.jpg": (encoded(rgb, "JPEG", quality=95, progressive=True), 2),
        "gray.jpg": (encoded(gray, "JPEG"), 2),
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "JPEG", quality=95), 2),
        "lossy.webp": (encoded(rgb, "WEBP", quality=90), 2),
        "lossless.webp": (encoded(rgb, "WEBP", lossless=True), 0),
        "alpha.webp": (encoded(rgba, "WEBP", lossless=True, exact=True), 1),
        "lossy_alpha.webp": (encoded(rgba, "WEBP", quality=90), 2),
        "one.png": (encoded(painting(size=(1, 1)), "PNG"), 0),
        "one.jpg": (encoded(painting(size=(1, 1)), "JPEG"), 2),
        "one.webp": (encoded(painting(size=(1, 1)), "WEBP", lossless=True), 0),
        "tall.png": (encoded(painting(size=(3, 200)), "PNG"), 0),
    }
    # Adam7 by hand, as Pillow does not write it: seven pictures of some of the pixels.
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2)]  # fmt: skip
    rows = [
        b"".join(bytes(rgba.getpixel((x, y))) for x in range(left, SIZE[0], right))
        for left, top, right, down in passes
        for y in range(top, SIZE[1], down)
    ]
    files["interlaced.png"] = (png(*SIZE, 8, 6, rows, interlace=1), 1)
    ycck = encoded(rgb.convert("CMYK"), "JPEG", quality=95)
    adobe = ycck.index(b"Adobe")
    # The same bytes with the transform that the Adobe marker states set to YCCK.
    files["ycck.jpg"] = (ycck[: adobe + 11] + b"\2" + ycck[adobe + 12 :], 3)
    for orientation in range(1, 9):
        tag = exif(orientation, big_endian=orientation % 2 == 0)
        files[f"turned{orientation}.jpg"] = (encoded(rgb, "JPEG", quality=95, exif=tag), 2)
    files["turned6.png"] = (encoded(rgb, "PNG", exif=exif(6)), 0)
    files["turned8.webp"] = (encoded(rgb, "WEBP", lossless=True, exif=exif(8)), 0)
    files["turned99.jpg"] = (encoded(rgb, "JPEG", quality=95, exif=exif(99)), 2)
    second = ImageOps.invert(rgb)
    files["animated.png"] = (
        encoded(rgb, "PNG", save_all=True, append_images=[second], duration=50), 0,
    )  # fmt: skip
    files["animated.webp"] = (
        encoded(rgb, "WEBP", lossless=True, save_all=True, append_images=[second], duration=50), 0,
    )  # fmt: skip
    return files


def bad_files():
    """name: (file, words of the error)."""
    rgb = painting()
    bomb = png(20000, 20000, 8, 2, [b""])
    whole = encoded(rgb, "PNG")
    idat = whole.index(b"IDAT")
    crc = bytearray(whole)
    crc[idat + 9] ^= 0x40
    jpeg = encoded(rgb, "JPEG", quality=95)
    frame = jpeg.index(b"\xff\xc0")
    tall = jpeg[: frame + 5] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 9 :]
    twelve = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    scan = jpeg.index(b"\xff\xda") + 12
    noisy = bytearray(jpeg)
    for i in range(scan + 10, scan + 60):
        noisy[i] = 0xFE
    webp = encoded(rgb, "WEBP", lossless=True)
    wide = Image.new("RGB", (4097, 1))
    progressive = encoded(rgb, "JPEG", progressive=True)
    first = progressive.index(b"\xff\xda")
    after = progressive.index(b"\xff\xc4", first)
    scans = progressive[:first] + progressive[first:after] * 120 + progressive[after:]
    return {
        "bomb.png": (bomb, "at most 4096 x 4096 pixels, got 20000 x 20000"),
        "bomb.jpg": (tall, "at most 4096 x 4096 pixels, got 65500 x 65500"),
        "wide.png": (encoded(wide, "PNG"), "got 4097 x 1"),
        "wide.jpg": (encoded(wide, "JPEG"), "got 4097 x 1"),
        "wide.webp": (encoded(wide, "WEBP"), "got 4097 x 1"),
        "none.png": (png(0, 5, 8, 2, [b""]), "got 0 x 5"),
        "crc.png": (bytes(crc), "PNG file that cannot be read"),
        "short.png": (png(*SIZE, 8, 2, [b"\0" * 69] * 16), "PNG file that cannot be read"),
        "cut.png": (whole[: idat + 40], "the file ends early"),
        "cut.jpg": (jpeg[: scan + 100], "JPEG file that cannot be read"),
        "cut.webp": (webp[:-40], "the file ends early"),
        "twelve.jpg": (twelve, "JPEG file that cannot be read"),
        "noisy.jpg": (bytes(noisy), "JPEG file that cannot be read"),
        "scans.jpg": (scans, "more than 100 scans"),
        "noisy.webp": (webp[:40] + b"\xff" * 60 + webp[100:], "WebP file that cannot be read"),
        "gif.png": (encoded(rgb, "GIF"), "must be a PNG, JPEG or WebP file"),
        "text.jpg": ("一叶扁舟".encode(), "must be a PNG, JPEG or WebP file"),
        "signature.png": (whole[:8], "PNG file that cannot be read"),
        "signature.jpg": (jpeg[:3], "JPEG file that cannot be read"),
        "signature.webp": (webp[:12], "WebP file that cannot be read"),
    }


def fitted(picture, size):
    width, height = picture.size
    if width * size[1] > height * size[0]:
        part = (max(1, (height * size[0] + size[1] // 2) // size[1]), height)
    else:
        part = (width, max(1, (width * size[1] + size[0] // 2) // size[0]))
    left, top = (width - part[0]) // 2, (height - part[1]) // 2
    cut = picture.crop((left, top, left + part[0], top + part[1]))
    return cut.resize(size, Image.Resampling.BICUBIC).tobytes()


def main():
    folder = HERE / "files"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    pixels = bytearray()
    good, bad, fits = [], [], []

    def place(data):
        at = len(pixels)
        pixels.extend(data)
        return at

    files = good_files()
    for name, colour in (("deep.png", 2), ("deep_gray_alpha.png", 4), ("deep_alpha.png", 6)):
        files[name] = (deep_png(colour), 1)
    for name, (file, tolerance) in files.items():
        (folder / name).write_bytes(file)
        size, rgb = deep_pixels(file) if name.startswith("deep") else shown(file)
        good.append(
            {"file": name, "width": size[0], "height": size[1], "pixels": place(rgb),
             "tolerance": tolerance}
        )  # fmt: skip
    for name, (file, words) in bad_files().items():
        (folder / name).write_bytes(file)
        bad.append({"file": name, "error": words})
    for source in ((64, 64), (61, 37), (20, 90), (7, 5), (1, 30)):
        picture = painting(size=source)
        for size in ((16, 16), (24, 12), (64, 64)):
            fits.append(
                {"from": source, "source": place(picture.tobytes()), "to": size,
                 "pixels": place(fitted(picture, size))}
            )  # fmt: skip
    (HERE / "pixels.bin").write_bytes(pixels)
    versions = {"pillow": PIL.__version__} | {
        name: features.version(name) for name in ("libjpeg_turbo", "webp", "zlib_ng")
    }
    cases = {"versions": versions, "good": good, "bad": bad, "fits": fits}
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
