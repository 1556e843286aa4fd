"""Compares the float text model with the quantized int8 one: retrieval quality and speed.

    samples --only book --pages 60 book.pdf
    run quantized.py book.pdf [--samples target/samples] [--model model-quantized.onnx]

The passages are the book's, with 1000 characters each. The query for each passage is half the words of one of its sentences,
chosen by a seeded generator, and the passage itself is the expected hit. With --samples, the questions of
tests/samples/questions.toml are searched too, in the samples that have a text layer; every passage with the expected phrase
is a hit.

Without --model, and if the assets have no quantized model, the script quantizes the model as described at `quantize_model`.
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

from minilm import MiniLM, assets_folder

PASSAGE_CHARS = 1000


def quantize_model(model, to):
    """Quantizes the weights of the matrix products to int8, per channel, and activations at run time.

    The model file stores int8 weights that its graph converts to float. ONNX Runtime folds that conversion first; otherwise there
    would be no constant weights to quantize.
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


def extract_passages(pdf):
    """Returns (page, text) of every passage, with runs of white space replaced by one space."""
    document = pypdfium2.PdfDocument(pdf)
    found = []
    for number in range(len(document)):
        text = document[number].get_textpage().get_text_bounded().replace("\ufffe", "-")
        text = re.sub(r"\s+", " ", text).strip()
        found += [(number + 1, text[i : i + PASSAGE_CHARS]) for i in range(0, len(text), PASSAGE_CHARS)]
    return found


def embed_texts(model, texts):
    """Returns vectors and texts per second. Batches contain texts of similar length, because padding takes time."""
    began = time.perf_counter()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = numpy.empty((len(texts), 384), dtype=numpy.float32)
    for i in range(0, len(order), 16):
        vectors[order[i : i + 16]] = model([texts[j] for j in order[i : i + 16]])
    return vectors, len(texts) / (time.perf_counter() - began)


def partial_query(text, generator):
    """Returns half the words of one of the passage's longer sentences, in order."""
    sentences = [s.split() for s in re.split(r"(?<=[.!?]) ", text)]
    words = generator.choice([s for s in sentences if len(s) >= 6] or [text.split()])
    kept = sorted(generator.sample(range(len(words)), (len(words) + 1) // 2))
    return " ".join(words[i] for i in kept)


def recall(queries, vectors, expected, k):
    """Returns the fraction of queries for which an expected passage is among the k nearest."""
    nearest = numpy.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    return round(float(numpy.mean([bool(set(row) & want) for row, want in zip(nearest, expected, strict=True)])), 4)


def compare_models(float_model, int8_model, texts, queries, expected):
    result, vectors, top = {}, {}, {}
    for name, model in (("float", float_model), ("int8", int8_model)):
        vectors[name], rate = embed_texts(model, texts)
        searched, _ = embed_texts(model, queries)
        top[name] = numpy.argsort(-(searched @ vectors[name].T), axis=1)[:, :10]
        result[name] = {
            "passages_per_second": round(rate, 2),
            "recall@1": recall(searched, vectors[name], expected, 1),
            "recall@10": recall(searched, vectors[name], expected, 10),
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
    parser.add_argument("--assets", type=Path, default=assets_folder())
    parser.add_argument("--model", type=Path, help="the quantized model")
    parser.add_argument("--samples", type=Path, help="folder with the sample documents")
    parser.add_argument("--threads", type=int, default=0, help="0 for one thread per core")
    arguments = parser.parse_args()
    folder = arguments.assets / "models/minilm"
    model = arguments.model or folder / "model-quantized.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        if not model.exists():
            model = Path(scratch) / "model-quantized.onnx"
            quantize_model(folder / "model.onnx", model)
        models = [MiniLM(folder, m, arguments.threads) for m in ("model.onnx", model.absolute())]
        result = {"model_bytes": model.stat().st_size}

        texts = [text for _, text in extract_passages(arguments.pdf) if len(text) > 200]
        generator = random.Random(1)
        queries = [partial_query(text, generator) for text in texts]
        result["book"] = compare_models(*models, texts, queries, [{i} for i in range(len(texts))])

        if arguments.samples:
            table = tomllib.loads((Path(__file__).parent / "../samples/questions.toml").read_text())
            documents = {d for d in {q["document"] for q in table["question"]} if "scan" not in d}
            found = [(d, page, text) for d in sorted(documents) for page, text in extract_passages(arguments.samples / d)]
            searched, expected = [], []
            for question in table["question"]:
                hits = {
                    i
                    for i, (document, page, text) in enumerate(found)
                    if (document, page) == (question["document"], question["page"]) and question["phrase"] in text
                }
                # A phrase that spans two passages is in neither of them, so its question is skipped.
                if hits:
                    searched.append(question["ask"])
                    expected.append(hits)
            result["questions"] = compare_models(*models, [text for *_, text in found], searched, expected)
    print(json.dumps(result))


main()
