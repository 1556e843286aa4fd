"""Compares Weir's text embedding with Python's onnxruntime: speed and retrieval quality, in one run.

    run embedding.py EMBEDDING_BENCH FILE.pdf... [--samples target/samples] [--rounds 3]

EMBEDDING_BENCH is the example of weir-inference: `cargo build -p weir-inference --example embedding_bench`. The passages are those of
the PDFs, with 1000 characters each. The query for each passage is half the words of one of its sentences, chosen by a seeded generator,
and the passage itself is the expected hit. With --samples, the questions of tests/samples/questions.toml are searched too, in the samples
that have a text layer; every passage with the expected phrase is a hit.

| engine | what runs |
|---|---|
| weir | the model of the assets, one text on each core |
| weir, model of onnxruntime | the same with the int8 model that `quantize_dynamic` of ONNX Runtime makes of the float model |
| onnxruntime float | the float model in Python with a thread for each core, in padded batches of 16 texts of similar length |
| onnxruntime int8 | the same with the model that `quantize_dynamic` makes |
| onnxruntime, model of weir | the int8 model of the assets in Python, text by text, since it has no mask for padding |

Rounds alternate. The times are medians, and the ratios are medians of the ratios of each round. Times include the tokenizer. CPU time
varies less than time if the machine has other work; threads of ONNX Runtime that wait for each other use CPU time too.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

import numpy
import onnxruntime
import pypdfium2

from minilm import MiniLM, assets_folder

PASSAGE_CHARS = 1000
BATCH_TEXTS = 16

# The engines whose vectors are compared; those of the others are the same, computed by another program.
QUALITY_ENGINES = ("weir", "weir, model of onnxruntime", "onnxruntime float")


def quantize_with_onnxruntime(model, to):
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


def assets_with_model(assets, model, scratch):
    """Returns a folder with the assets, but another int8 model."""
    folder = Path(scratch) / "assets"
    (folder / "models/minilm").mkdir(parents=True)
    for name in ("lib", "models/minilm/model.onnx", "models/minilm/tokenizer.json"):
        (folder / name).symlink_to(assets / name)
    (folder / "models/minilm/model-quantized.onnx").symlink_to(model)
    return folder


class Weir:
    """Embeds texts with the example program, which measures its own time without the start."""

    def __init__(self, binary, assets, scratch):
        self.command = [binary, "--assets", str(assets)]
        self.file = Path(scratch) / "texts.json"

    def __call__(self, texts):
        self.file.write_text(json.dumps(texts))
        report = json.loads(subprocess.run([*self.command, self.file], capture_output=True, check=True).stdout)
        return numpy.array(report["vectors"], dtype=numpy.float32), report["seconds"][0], report["cpu_seconds"][0]


class Python:
    """Embeds texts in batches of similar length, because padding takes time."""

    def __init__(self, model):
        self.model = model
        self.model(["The first run opens nothing more."])

    def __call__(self, texts):
        began, cpu_before = time.perf_counter(), time.process_time()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = numpy.empty((len(texts), 384), dtype=numpy.float32)
        for i in range(0, len(order), BATCH_TEXTS):
            batch = order[i : i + BATCH_TEXTS]
            vectors[batch] = self.model([texts[j] for j in batch])
        return vectors, time.perf_counter() - began, time.process_time() - cpu_before


def extract_passages(pdf):
    """Returns (page, text) of every passage, with runs of white space replaced by one space."""
    document = pypdfium2.PdfDocument(pdf)
    found = []
    for number in range(len(document)):
        text = document[number].get_textpage().get_text_bounded().replace("\ufffe", "-")
        text = re.sub(r"\s+", " ", text).strip()
        found += [(number + 1, text[i : i + PASSAGE_CHARS]) for i in range(0, len(text), PASSAGE_CHARS)]
    return found


def partial_query(text, generator):
    """Returns half the words of one of the passage's longer sentences, in order."""
    sentences = [s.split() for s in re.split(r"(?<=[.!?]) ", text)]
    words = generator.choice([s for s in sentences if len(s) >= 6] or [text.split()])
    kept = sorted(generator.sample(range(len(words)), (len(words) + 1) // 2))
    return " ".join(words[i] for i in kept)


def sample_questions(samples):
    """Returns the passages of the samples, the questions, and the passages that answer each."""
    table = tomllib.loads((Path(__file__).parent / "../samples/questions.toml").read_text())["question"]
    documents = sorted({q["document"] for q in table if "scan" not in q["document"]})
    found = [(d, page, text) for d in documents for page, text in extract_passages(samples / d)]
    questions, expected = [], []
    for question in table:
        place = (question["document"], question["page"])
        hits = {i for i, (d, page, text) in enumerate(found) if (d, page) == place and question["phrase"] in text}
        # A phrase that spans two passages is in neither of them, so its question is skipped.
        if hits:
            questions.append(question["ask"])
            expected.append(hits)
    return [text for *_, text in found], questions, expected


def nearest(queries, vectors, k):
    return numpy.argsort(-(queries @ vectors.T), axis=1)[:, :k]


def recall(queries, vectors, expected, k):
    """Returns the fraction of queries for which an expected passage is among the k nearest."""
    return round(float(numpy.mean([bool(set(row) & want) for row, want in zip(nearest(queries, vectors, k), expected, strict=True)])), 4)


def compare_quality(engines, texts, queries, expected):
    """Returns the retrieval quality of each engine, and its likeness to the float model."""
    embedded = {name: (engine(texts)[0], engine(queries)[0]) for name, engine in engines.items() if name in QUALITY_ENGINES}
    float_vectors, float_queries = embedded["onnxruntime float"]
    float_top = nearest(float_queries, float_vectors, 10)
    result = {"passages": len(texts), "queries": len(queries)}
    for name, (vectors, searched) in embedded.items():
        cosine = (vectors * float_vectors).sum(axis=1)
        top = nearest(searched, vectors, 10)
        result[name] = {
            "recall@1": recall(searched, vectors, expected, 1),
            "recall@10": recall(searched, vectors, expected, 10),
            "same_in_top_10_as_float": round(float(numpy.mean([len(set(a) & set(b)) / len(a) for a, b in zip(top, float_top)])), 4),
            "cosine_to_float": {"mean": round(float(cosine.mean()), 4), "min": round(float(cosine.min()), 4)},
        }
    return result


def compare_speed(engines, pages, texts, rounds):
    times = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            times[name].append(engine(texts)[1:])
    result = {"pages": pages, "passages": len(texts), "cores": os.cpu_count()}
    for name, spent in times.items():
        seconds, cpu_seconds = (statistics.median(kind) for kind in zip(*spent))
        ratios = zip(*((ours / theirs for ours, theirs in zip(*rounds)) for rounds in zip(spent, times["weir"])))
        slower, more_cpu = (statistics.median(kind) for kind in ratios)
        result[name] = {
            "pages_per_second": round(pages / seconds, 2),
            "passages_per_second": round(len(texts) / seconds, 2),
            "cpu_millis_per_passage": round(1000 * cpu_seconds / len(texts), 2),
            "time_relative_to_weir": round(slower, 2),
            "cpu_time_relative_to_weir": round(more_cpu, 2),
        }
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--assets", type=Path, default=assets_folder())
    parser.add_argument("--samples", type=Path, help="folder with the sample documents")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.assets / "models/minilm"
    with tempfile.TemporaryDirectory() as scratch:
        quantized = Path(scratch) / "quantized.onnx"
        quantize_with_onnxruntime(folder / "model.onnx", quantized)
        engines = {
            "weir": Weir(arguments.binary, arguments.assets, scratch),
            "weir, model of onnxruntime": Weir(arguments.binary, assets_with_model(arguments.assets, quantized, scratch), scratch),
            "onnxruntime float": Python(MiniLM(folder)),
            "onnxruntime int8": Python(MiniLM(folder, quantized)),
            "onnxruntime, model of weir": Python(MiniLM(folder, "model-quantized.onnx")),
        }
        found = [(d, *passage) for d in arguments.documents for passage in extract_passages(d)]
        pages = len({(d, page) for d, page, _ in found})
        texts = [text for *_, text in found]
        result = {"speed": compare_speed(engines, pages, texts, arguments.rounds)}

        long_texts = [text for text in texts if len(text) > 200]
        generator = random.Random(1)
        queries = [partial_query(text, generator) for text in long_texts]
        result["half sentences"] = compare_quality(engines, long_texts, queries, [{i} for i in range(len(long_texts))])
        if arguments.samples:
            result["questions"] = compare_quality(engines, *sample_questions(arguments.samples))
    print(json.dumps(result, indent=1))


main()
