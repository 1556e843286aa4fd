"""What quantizing the text model costs in retrieval and gains in speed: the float model against the int8 one.

    samples --only book --pages 60 book.pdf
    run quantized.py book.pdf [--samples target/samples] [--model model-quantized.onnx]

The passages are the book's, 1000 characters each. Each is searched for with half the words of one of its sentences,
chosen by a seeded generator; a hit is the passage itself. With --samples, the questions of tests/samples/questions.toml
are asked too, against the samples that have a text layer; a hit is a passage with the answer's phrase.

Without --model, and without a quantized model among the assets, the model is quantized here as described at `quantize`.
"""

import argparse
import json
import random
import re
import tempfile
import time
import tomllib
from pathlib import Path

import numpy
import onnxruntime
import pypdfium2

from minilm import MiniLM, assets

PASSAGE = 1000


def quantize(model, to):
    """Weights of the matrix products to int8, per channel; activations at run time.

    The model file stores int8 weights that its graph unfolds to float. ONNX Runtime folds that first, or there would be no
    constant weights to quantize.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        folded = str(Path(folder) / "folded.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        quantize_dynamic(
            folded,
            str(to),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def passages(pdf):
    """(page, text) of every passage, with white space made single."""
    document = pypdfium2.PdfDocument(pdf)
    found = []
    for number in range(len(document)):
        text = document[number].get_textpage().get_text_bounded().replace("\ufffe", "-")
        text = re.sub(r"\s+", " ", text).strip()
        found += [(number + 1, text[i : i + PASSAGE]) for i in range(0, len(text), PASSAGE)]
    return found


def embedded(model, texts):
    """Vectors and texts a second. Texts of like length go together, since padding is work too."""
    began = time.perf_counter()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = numpy.empty((len(texts), 384), dtype=numpy.float32)
    for i in range(0, len(order), 16):
        vectors[order[i : i + 16]] = model([texts[j] for j in order[i : i + 16]])
    return vectors, len(texts) / (time.perf_counter() - began)


def partial_query(text, generator):
    """Half the words of one of the passage's longer sentences, in their order."""
    sentences = [s.split() for s in re.split(r"(?<=[.!?]) ", text)]
    words = generator.choice([s for s in sentences if len(s) >= 6] or [text.split()])
    kept = sorted(generator.sample(range(len(words)), (len(words) + 1) // 2))
    return " ".join(words[i] for i in kept)


def recall(queries, vectors, wanted, k):
    """Share of the queries for which one of the k nearest is wanted."""
    nearest = numpy.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    return round(float(numpy.mean([bool(set(row) & want) for row, want in zip(nearest, wanted, strict=True)])), 4)


def compare(float_model, int8_model, texts, queries, wanted):
    result, vectors, top = {}, {}, {}
    for name, model in (("float", float_model), ("int8", int8_model)):
        vectors[name], rate = embedded(model, texts)
        asked, _ = embedded(model, queries)
        top[name] = numpy.argsort(-(asked @ vectors[name].T), axis=1)[:, :10]
        result[name] = {
            "passages_per_second": round(rate, 2),
            "recall@1": recall(asked, vectors[name], wanted, 1),
            "recall@10": recall(asked, vectors[name], wanted, 10),
        }
    cosine = (vectors["float"] * vectors["int8"]).sum(axis=1)
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(top["float"], top["int8"], strict=True)]
    return result | {
        "passages": len(texts),
        "queries": len(queries),
        "cosine_mean": round(float(cosine.mean()), 4),
        "cosine_least": round(float(cosine.min()), 4),
        "same_in_top_10": round(float(numpy.mean(same)), 4),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pdf", type=Path)
    parser.add_argument("--assets", type=Path, default=assets())
    parser.add_argument("--model", type=Path, help="the quantized model")
    parser.add_argument("--samples", type=Path, help="folder with the sample documents")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as cores")
    arguments = parser.parse_args()
    folder = arguments.assets / "models/minilm"
    model = arguments.model or folder / "model-quantized.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        if not model.exists():
            model = Path(scratch) / "model-quantized.onnx"
            quantize(folder / "model.onnx", model)
        models = [MiniLM(folder, m, arguments.threads) for m in ("model.onnx", model.absolute())]
        result = {"model_bytes": model.stat().st_size}

        texts = [text for _, text in passages(arguments.pdf) if len(text) > 200]
        generator = random.Random(1)
        queries = [partial_query(text, generator) for text in texts]
        result["book"] = compare(*models, texts, queries, [{i} for i in range(len(texts))])

        if arguments.samples:
            table = tomllib.loads((Path(__file__).parent / "../samples/questions.toml").read_text())
            documents = {d for d in {q["document"] for q in table["question"]} if "scan" not in d}
            found = [(d, page, text) for d in sorted(documents) for page, text in passages(arguments.samples / d)]
            asked, wanted = [], []
            for question in table["question"]:
                hits = {
                    i
                    for i, (document, page, text) in enumerate(found)
                    if (document, page) == (question["document"], question["page"]) and question["phrase"] in text
                }
                # A phrase that was cut in two is in no passage, so it cannot be asked for.
                if hits:
                    asked.append(question["ask"])
                    wanted.append(hits)
            result["questions"] = compare(*models, [text for *_, text in found], asked, wanted)
    print(json.dumps(result))


main()
