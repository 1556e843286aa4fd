"""A plain sequential script that does the whole job with the same models, as a competent engineer would write it in an afternoon.

    run baseline.py FILE.pdf [ASSETS] [--dpi 150] [--batch 4]

Each page is rendered and saved as JPEG. Its text is the text layer, or OCR output if there is none. The text is cut into
passages of 1000 characters, embedded in batches of pages and inserted into a local Qdrant. Prints one JSON object.

A page counts as searchable once its passages are in the index. Times are measured from the start of the script and include
the loading of models on first use, as a user would experience it.
"""

import time

STARTED = time.perf_counter()

import argparse
import json
import resource
import tempfile
import uuid
from pathlib import Path

import numpy
import pypdfium2
from qdrant_client import QdrantClient, models

from minilm import MiniLM, assets_folder

PASSAGE_CHARS = 1000
COLLECTION = "pages"


class Ocr:
    """RapidOCR with the models that Weir uses, loaded on first use."""

    def __init__(self, folder):
        self.folder = folder
        self.engine = None

    def __call__(self, image):
        if self.engine is None:
            from rapidocr import RapidOCR

            self.engine = RapidOCR(
                params={
                    "Global.use_cls": False,
                    "Global.log_level": "error",
                    "Det.model_path": str(self.folder / "det.onnx"),
                    "Rec.model_path": str(self.folder / "rec.onnx"),
                }
            )
        lines = self.engine(numpy.asarray(image.convert("RGB"))[:, :, ::-1]).txts
        return "\n".join(lines or ())


def split_passages(text):
    return [part for i in range(0, len(text), PASSAGE_CHARS) if (part := text[i : i + PASSAGE_CHARS]).strip()]


def peak_memory_bytes():
    """Returns the sum of the peak memory of this process and of its finished children; Linux counts in kilobytes."""
    return 1024 * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pdf", type=Path)
    parser.add_argument("assets", type=Path, nargs="?", default=assets_folder())
    parser.add_argument("--dpi", type=float, default=150)
    parser.add_argument("--batch", type=int, default=4, help="pages that are embedded and indexed together")
    parser.add_argument("--ask", help="search for this after the document is indexed")
    arguments = parser.parse_args()

    embed = MiniLM(arguments.assets / "models/minilm")
    ocr = Ocr(arguments.assets / "models/ppocrv6")
    with tempfile.TemporaryDirectory() as out:
        out = Path(out)
        client = QdrantClient(path=str(out / "qdrant"))
        client.create_collection(
            COLLECTION, vectors_config=models.VectorParams(size=384, distance=models.Distance.COSINE)
        )
        document = pypdfium2.PdfDocument(arguments.pdf)
        first, indexed, ocr_pages = None, 0, 0
        for start in range(0, len(document), arguments.batch):
            batch = []
            for number in range(start, min(start + arguments.batch, len(document))):
                page = document[number]
                image = page.render(scale=arguments.dpi / 72).to_pil()
                image.save(out / f"{number + 1:05}.jpg", quality=85)
                text = page.get_textpage().get_text_bounded()
                if not text.strip():
                    text = ocr(image)
                    ocr_pages += 1
                batch += [(number + 1, part) for part in split_passages(text)]
            if batch:
                points = [
                    models.PointStruct(id=str(uuid.uuid4()), vector=vector.tolist(), payload={"page": page, "text": part})
                    for (page, part), vector in zip(batch, embed([part for _, part in batch]), strict=True)
                ]
                client.upsert(COLLECTION, points)
                indexed += len(points)
            first = first or time.perf_counter() - STARTED
        seconds = time.perf_counter() - STARTED
        result = {
            "document": arguments.pdf.name,
            "pages": len(document),
            "pages_by_ocr": ocr_pages,
            "passages": indexed,
            "seconds": round(seconds, 3),
            "first_page_searchable_seconds": round(first or seconds, 3),
            "pages_per_second": round(len(document) / seconds, 3),
            "peak_rss_bytes": peak_memory_bytes(),
        }
        if arguments.ask:
            hits = client.query_points(COLLECTION, query=embed([arguments.ask])[0].tolist(), limit=5).points
            result["hits"] = [{"page": hit.payload["page"], "score": round(hit.score, 3)} for hit in hits]
        client.close()
    print(json.dumps(result))


main()
