"""Compares OCR with RapidOCR, with the same models on the same pages, in one run.

    run ocr.py OCR_BENCH FILE.pdf... [--pages 4] [--rounds 3] [--dpi 150]

OCR_BENCH is the example of weir-inference: `cargo build -p weir-inference --example ocr_bench`. The PDFs need a text layer, which
is the expected text. Some pages of each document are rendered, and each of them also becomes a simulated scan: rotated by 0.6
degrees, blurred, with grain.

Each engine runs as one user would run it on this machine: RapidOCR page after page with its own threads and without its direction
classifier (which would only cost time here), Weir with one page on each core. Rounds alternate, and the figures are medians. The
error rate is the edit distance between expected and recognized text, row by row and without spaces, divided by the number of
expected characters.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
import unicodedata
from pathlib import Path

import numpy
import pypdfium2
from PIL import Image, ImageFilter

from minilm import assets_folder

SKEW_DEGREES = 0.6
QUOTE_TRANSLATION = str.maketrans("‘’“”", "''\"\"")


def render_pages(path, count, dpi):
    """Yields pages of a document: name, image and lines as (left, right, middle, height, text) in fractions of the page."""
    document = pypdfium2.PdfDocument(path)
    step = max(1, len(document) // count)
    for number in list(range(step // 2, len(document), step))[:count]:
        page = document[number]
        width, height = page.get_size()
        text = page.get_textpage()
        lines = []
        for n in range(text.count_rects()):
            left, bottom, right, top = text.get_rect(n)
            if words := text.get_text_bounded(left, bottom, right, top).strip():
                middle = 1 - (top + bottom) / 2 / height
                lines.append((left / width, right / width, middle, (top - bottom) / height, words))
        image = page.render(scale=dpi / 72, grayscale=True).to_pil().convert("L")
        yield f"{Path(path).stem}-{number + 1}", image, lines


def simulate_scan(image):
    grain = numpy.random.default_rng(7)
    turned = image.rotate(SKEW_DEGREES, resample=Image.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(0.6))
    pixels = numpy.asarray(turned) * 0.92 + 10 + grain.normal(0, 13, (image.height, image.width))
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def undo_rotation(x, y, size, degrees):
    """Maps a point of a rotated page, in fractions of the page, to its position before the rotation."""
    angle, (width, height) = math.radians(degrees), size
    x, y = (x - 0.5) * width, (y - 0.5) * height
    return (
        (x * math.cos(angle) - y * math.sin(angle)) / width + 0.5,
        (x * math.sin(angle) + y * math.cos(angle)) / height + 0.5,
    )


def normalize_text(text):
    return "".join(unicodedata.normalize("NFKC", text).translate(QUOTE_TRANSLATION).split())


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def count_errors(truth, read):
    """Returns the edits and the expected characters. Recognized lines belong to the nearest row and are ordered from the left."""
    rows = []
    for line in sorted(truth, key=lambda line: line[2]):
        if rows and abs(line[2] - rows[-1][0]) < 0.4 * max(line[3], rows[-1][1]):
            rows[-1][2].append(line)
        else:
            rows.append((line[2], line[3], [line], []))
    wrong = 0
    for left, middle, text in read:
        nearest = min(rows, key=lambda row: abs(row[0] - middle), default=None)
        if nearest is None or abs(nearest[0] - middle) > max(nearest[1], 0.01):
            wrong += len(normalize_text(text))
        else:
            nearest[3].append((left, text))
    characters = 0
    for _, _, lines, found in rows:
        wanted = normalize_text("".join(line[4] for line in sorted(lines)))
        wrong += edit_distance(wanted, normalize_text("".join(text for _, text in sorted(found))))
        characters += len(wanted)
    return wrong, characters


class RapidOcr:
    def __init__(self, models):
        from rapidocr import RapidOCR

        self.engine = RapidOCR(
            params={
                "Global.use_cls": False,
                "Global.log_level": "critical",
                "Det.model_path": str(models / "det.onnx"),
                "Rec.model_path": str(models / "rec.onnx"),
            }
        )

    def __call__(self, pages):
        images = [numpy.asarray(Image.open(path).convert("RGB")) for path in pages]
        self.engine(images[0])
        began = time.perf_counter()
        results = [self.engine(image) for image in images]
        seconds = time.perf_counter() - began
        lines = []
        for image, result in zip(images, results):
            height, width = image.shape[:2]
            boxes = [] if result.boxes is None else result.boxes
            lines.append(
                [
                    (box[:, 0].min() / width, box[:, 0].mean() / width, box[:, 1].mean() / height, text)
                    for box, text in zip(boxes, result.txts or ())
                ]
            )
        return seconds, lines


class WeirOcr:
    def __init__(self, binary, dpi):
        self.command = [binary, "--dpi", str(dpi)]

    def __call__(self, pages):
        output = subprocess.run([*self.command, *pages], capture_output=True, check=True, text=True).stdout
        report = json.loads(output)
        lines = []
        for result in report["results"]:
            boxes = [(line["box"], line["text"]) for line in result["lines"]]
            lines.append(
                [(b["x"], b["x"] + b["width"] / 2, b["y"] + b["height"] / 2, text) for b, text in boxes]
            )
        return report["seconds"], lines


parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("documents", nargs="+")
parser.add_argument("--pages", type=int, default=4)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--dpi", type=int, default=150)
parser.add_argument("--assets", type=Path, default=assets_folder())
arguments = parser.parse_args()
os.environ["WEIR_PATHS_ASSETS"] = str(arguments.assets)

with tempfile.TemporaryDirectory() as folder:
    pages = []
    for document in arguments.documents:
        for name, image, truth in render_pages(document, arguments.pages, arguments.dpi):
            for kind, picture, degrees in (("rendered", image, 0), ("scanned", simulate_scan(image), SKEW_DEGREES)):
                path = f"{folder}/{name}-{kind}.pgm"
                picture.save(path)
                pages.append((path, kind, picture.size, degrees, truth))

    engines = {
        "weir": WeirOcr(arguments.binary, arguments.dpi),
        "rapidocr": RapidOcr(arguments.assets / "models/ppocrv6"),
    }
    seconds = {name: [] for name in engines}
    read = {}
    for _ in range(arguments.rounds):
        for name, engine in engines.items():
            spent, read[name] = engine([page[0] for page in pages])
            seconds[name].append(spent)

report = {"pages": len(pages), "rounds": arguments.rounds, "cores": os.cpu_count()}
for name in engines:
    totals = {}
    for (_, kind, size, degrees, truth), lines in zip(pages, read[name]):
        placed = []
        for left, middle_x, middle_y, text in lines:
            x, y = undo_rotation(middle_x, middle_y, size, degrees)
            placed.append((x - (middle_x - left), y, text))
        wrong, characters = count_errors(truth, placed)
        sums = totals.setdefault(kind, [0, 0])
        sums[0] += wrong
        sums[1] += characters
    report[name] = {
        "pages_per_second": round(len(pages) / statistics.median(seconds[name]), 3),
        "seconds": [round(s, 2) for s in seconds[name]],
        "error_rate": {kind: round(wrong / characters, 5) for kind, (wrong, characters) in totals.items()},
    }
report["times_the_pages_per_second"] = round(
    report["weir"]["pages_per_second"] / report["rapidocr"]["pages_per_second"], 2
)
print(json.dumps(report, indent=1))
