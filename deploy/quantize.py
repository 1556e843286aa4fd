"""Builds the int8 variant of the text embedding model for CPUs: quantize.py model.onnx model-quantized.onnx

The model file has int8 weights, which its graph converts to float32, so ONNX Runtime multiplies in float32. This script writes the same
network with the int8 operators of ONNX Runtime. The weights are those of the model file, with one scale for each output channel. The
activations are quantized at run time, with one scale for each tensor.

The graph is written operator by operator, because the graph of the model file is one that ONNX Runtime cannot fuse. It has one operator
for attention and one for each GELU; layer normalization and the addition before it stay separate, because the operator for both is slower
than the two. The new graph has no attention mask, since masking would cost 3 % of the time, so all texts of a batch must have the same
number of tokens. tests/bench/embedding.py measures speed and retrieval quality.

The same versions give the same bytes, so the model's digest can identify it.
"""

import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = 6
HEADS = 12
DIMENSIONS = 384
MICROSOFT = "com.microsoft"

# The matrix products of a layer, in the order of the model file.
PRODUCTS = ("query", "key", "value", "attention_output", "intermediate", "output")


class Source:
    """The weights in the model file."""

    def __init__(self, path):
        graph = onnx.load(path).graph
        self.tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        consumers = {name: node for node in graph.node for name in node.input}
        self.products, self.norms = [], []
        for node in graph.node:
            if node.op_type == "MatMul" and f"{node.input[1]}_q" in self.tensors:
                add = consumers[node.output[0]]
                (bias,) = (name for name in add.input if name != node.output[0])
                scale = self.tensors[f"{node.input[1]}_scale"].reshape(-1)
                self.products.append((self.tensors[f"{node.input[1]}_q"], scale, self.tensors[bias]))
            elif node.op_type == "LayerNormalization":
                (epsilon,) = (a.f for a in node.attribute if a.name == "epsilon")
                self.norms.append((self.tensors[node.input[1]], self.tensors[node.input[2]], epsilon))
        if (len(self.products), len(self.norms)) != (LAYERS * len(PRODUCTS), 1 + 2 * LAYERS):
            raise ValueError(f"{path} is not the expected model: {len(self.products)} products, {len(self.norms)} normalizations")

    def embedding(self, kind):
        """Returns the rows of an embedding and their scales."""
        name = f"inner.embeddings.{kind}_embeddings.weight"
        return self.tensors[f"{name}_q"], self.tensors[f"{name}_scale"]

    def first_token_type(self):
        """Returns the embedding of the only token type that a single text has."""
        return self.tensors["inner.embeddings.token_type_embeddings.weight"][0]


class Graph:
    """The graph under construction. Values are referred to by name."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(numpy.ascontiguousarray(array), name))
        return name

    def apply(self, operator, inputs, outputs, domain="", **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def embed(self, source):
        words, scales = source.embedding("word")
        # The rows stay int8, which saves 35 MB of memory; only those of the text's tokens are converted.
        rows = self.apply("Gather", [self.constant("words", words), "input_ids"], "word_rows")
        rows = self.apply("Cast", [rows], "word_values", to=TensorProto.FLOAT)
        scale = self.apply("Gather", [self.constant("word_scales", scales), "input_ids"], "word_row_scales")
        rows = self.apply("Mul", [rows, scale], "word_embedding")
        positions, scales = source.embedding("position")
        positions = self.constant("positions", (positions * scales + source.first_token_type())[numpy.newaxis])
        length = self.apply("Shape", ["input_ids"], "length", start=1, end=2)
        start, axis = self.constant("start", numpy.array([0])), self.constant("axis", numpy.array([1]))
        positions = self.apply("Slice", [positions, start, length, axis], "position_embedding")
        return self.apply("Add", [rows, positions], "embedding")

    def normalize(self, value, weights, output):
        scale, bias, epsilon = weights
        constants = [self.constant(f"{output}/scale", scale), self.constant(f"{output}/bias", bias)]
        return self.apply("LayerNormalization", [value, *constants], output, axis=-1, epsilon=epsilon)

    def multiply(self, value, weights, output):
        """Multiplies float activations by int8 weights."""
        inputs = [value, *self.product_constants(weights, output)]
        return self.apply("DynamicQuantizeMatMul", [*inputs[:3], "", inputs[3]], output, MICROSOFT)

    def multiply_quantized(self, quantized, weights, output):
        """Multiplies quantized activations, given with their scale and zero point, by int8 weights."""
        value, scale, zero = quantized
        weight, weight_scale, bias = self.product_constants(weights, output)
        return self.apply("MatMulIntegerToFloat", [value, weight, scale, weight_scale, zero, "", bias], output, MICROSOFT)

    def product_constants(self, weights, output):
        return [self.constant(f"{output}/{kind}", array) for kind, array in zip(("weight", "scale", "bias"), weights, strict=True)]

    def layer(self, value, products, norms, prefix, output):
        quantized = [f"{prefix}/{part}" for part in ("input", "input_scale", "input_zero")]
        self.apply("DynamicQuantizeLinear", [value], quantized)
        heads = [self.multiply_quantized(quantized, products[kind], f"{prefix}/{kind}") for kind in PRODUCTS[:3]]
        attention = self.apply("Attention", heads, f"{prefix}/attention", q_num_heads=HEADS, kv_num_heads=HEADS)
        attention = self.multiply(attention, products["attention_output"], f"{prefix}/attention_output")
        value = self.apply("Add", [attention, value], f"{prefix}/attention_sum")
        value = self.normalize(value, norms[0], f"{prefix}/attention_norm")
        wide = self.multiply(value, products["intermediate"], f"{prefix}/intermediate")
        wide = self.apply("Gelu", [wide], f"{prefix}/gelu", MICROSOFT)
        narrow = self.multiply(wide, products["output"], f"{prefix}/output")
        return self.normalize(self.apply("Add", [narrow, value], f"{prefix}/sum"), norms[1], output)


def main(source_path, target_path):
    source, graph = Source(source_path), Graph()
    value = graph.normalize(graph.embed(source), source.norms[0], "embedding_norm")
    for layer in range(LAYERS):
        products = dict(zip(PRODUCTS, source.products[layer * len(PRODUCTS) :]))
        norms = source.norms[1 + 2 * layer : 3 + 2 * layer]
        output = "last_hidden_state" if layer == LAYERS - 1 else f"layer{layer}"
        value = graph.layer(value, products, norms, f"layer{layer}", output)
    tokens = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    states = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch", "sequence", DIMENSIONS])
    graph = helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", [tokens], [states], graph.constants)
    # Operator set 23 is the first with attention.
    operators = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(graph, opset_imports=operators, ir_version=11), target_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
