"""Simulates a cheap office scanner to make the pages of the scanned letter.

    pip install pypdfium2==5.15.2 pillow==13.0.0 numpy==2.4.6
    samples --only letter letter.pdf
    python make.py letter.pdf

The letter is rendered in gray, rotated by 0.6 degrees and blurred slightly. Contrast is reduced, and uneven light, noise
and dust are added. The three JPEG files beside this script are its output. They are in the repository so that building the
samples needs neither Python nor a renderer.
"""

import sys
from pathlib import Path

import numpy
import pypdfium2
from PIL import Image, ImageFilter

DPI = 150
SKEW = (0.6, -0.6, 0.6)

letter = pypdfium2.PdfDocument(sys.argv[1])
random = numpy.random.default_rng(47)
for number, (page, skew) in enumerate(zip(letter, SKEW, strict=True), start=1):
    # Rendered at twice the size, so that the rotation does not reduce sharpness.
    picture = page.render(scale=2 * DPI / 72, grayscale=True).to_pil()
    picture = picture.rotate(skew, Image.Resampling.BICUBIC, fillcolor=255)
    picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    picture = picture.filter(ImageFilter.GaussianBlur(0.6))
    light = numpy.asarray(picture, dtype=numpy.float32) / 255
    height, width = light.shape
    # Toner is dark gray, not black; the lamp is weaker towards the lower right corner.
    y, x = numpy.mgrid[0:height, 0:width]
    lamp = 1 - 0.05 * (x / width) * (y / height)
    light = (0.16 + 0.80 * light) * lamp
    light += random.normal(0, 0.012, light.shape)
    # Dust particles.
    for _ in range(40):
        dx, dy = random.integers(0, width - 3), random.integers(0, height - 3)
        light[dy : dy + 2, dx : dx + 2] -= random.uniform(0.1, 0.4)
    scan = Image.fromarray((light.clip(0, 1) * 255).astype(numpy.uint8))
    scan.save(Path(__file__).with_name(f"letter-{number}.jpg"), quality=27, optimize=True)
