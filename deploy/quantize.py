"""Quantizes the text embedding model: quantize.py model.onnx model-quantized.onnx

The model comes with int8 weights behind DequantizeLinear nodes, and ONNX Runtime unfolds them to float32 when it loads it.
Folding them once and quantizing the matrix products dynamically, per channel, lets a CPU use its int8 instructions: about twice
the texts per second. tests/bench/quantized.py measures what it costs in retrieval quality; quantizing per tensor instead loses
too much.

The same versions give the same bytes, so the model's digest may stand for it.
"""

import os
import sys
import tempfile

import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic


def main(source: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        folded = os.path.join(folder, "folded.onnx")
        options = onnxruntime.SessionOptions()
        # Basic folds constants and stays within the ONNX standard; higher levels make operators that only this CPU's kernels
        # know, and the quantizer would pass them by.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        quantize_dynamic(
            folded,
            target,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            # A product of two activations has no weights to quantize.
            extra_options={"MatMulConstBOnly": True},
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
