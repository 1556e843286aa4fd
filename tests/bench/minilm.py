"""The text embedding model with tokenizers and ONNX Runtime: mean pooling over the attention mask, vectors of unit length."""

import os
from pathlib import Path

import numpy
import onnxruntime
from tokenizers import Tokenizer

MAX_TOKENS = 256


def assets_folder():
    """Returns the folder of the models: WEIR_PATHS_ASSETS, or the user's data folder."""
    if folder := os.environ.get("WEIR_PATHS_ASSETS"):
        return Path(folder)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(data) / "weir/assets"


class MiniLM:
    """Embeds texts as vectors of 384 numbers."""

    def __init__(self, folder, model="model.onnx", threads=0):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / model), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {i.name for i in self.session.get_inputs()}

    def __call__(self, texts):
        if "attention_mask" in self.inputs:
            return self.embed_batch(texts)
        # Without a mask, texts of different lengths cannot run together.
        return numpy.concatenate([self.embed_batch([text]) for text in texts])

    def embed_batch(self, texts):
        encodings = self.tokenizer.encode_batch(texts)
        mask = numpy.array([e.attention_mask for e in encodings], dtype=numpy.int64)
        feed = {
            "input_ids": numpy.array([e.ids for e in encodings], dtype=numpy.int64),
            "attention_mask": mask,
            "token_type_ids": numpy.zeros_like(mask),
        }
        hidden = self.session.run(None, {k: v for k, v in feed.items() if k in self.inputs})[0]
        weights = mask[:, :, None].astype(hidden.dtype)
        vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
