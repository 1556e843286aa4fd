"""Quantizes the text embedding model: quantize.py model.onnx model-quantized.onnx

The model file has int8 weights with DequantizeLinear nodes, which ONNX Runtime converts to float32 when it loads the model. This script
folds them once and quantizes the matrix products dynamically, per channel, so that a CPU can use its int8 instructions: about twice the
texts per second. tests/bench/quantized.py measures the loss of retrieval quality; with quantization per tensor it is too high.

The same versions give the same bytes, so the model's digest can identify it.
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
        # The level "basic" folds constants and uses only operators of the ONNX standard. Higher levels create operators for this
        # CPU's kernels, which the quantizer would skip.
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
