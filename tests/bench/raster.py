"""Measures rendering alone with pypdfium2: pages per second at a resolution, in one thread, without encoding or saving.

    run raster.py FILE.pdf [--dpi 150] [--gray]
"""

import argparse
import json
import time

import pypdfium2

parser = argparse.ArgumentParser()
parser.add_argument("pdf")
parser.add_argument("--dpi", type=float, default=150)
parser.add_argument("--gray", action="store_true", help="one byte per pixel")
arguments = parser.parse_args()

started = time.perf_counter()
document = pypdfium2.PdfDocument(arguments.pdf)
pixels = 0
for number in range(len(document)):
    page = document[number]
    bitmap = page.render(scale=arguments.dpi / 72, grayscale=arguments.gray)
    pixels += bitmap.width * bitmap.height
    bitmap.close()
    page.close()
seconds = time.perf_counter() - started
print(
    json.dumps(
        {
            "pages": len(document),
            "dpi": arguments.dpi,
            "seconds": round(seconds, 4),
            "pages_per_second": round(len(document) / seconds, 2),
            "megapixels": round(pixels / 1e6, 1),
        }
    )
)
