#!/usr/bin/env python3
"""Writes blocks.bin: random blocks of every format with small integers and what they read as; and how well GGML rounds to them.

Values are read by the PyPI package gguf; the errors are those of GGML's own quantisers, called in the shared library that the PyPI package
pywhispercpp carries. Versions are below:
    python3 -m pip install numpy gguf pywhispercpp && python3 core/tests/golden/make_blocks.py

Layout, all little-endian. For each of FORMATS: blocks of 512 values, the values f32 [512]. Then inputs f32 [8, 256], importance f32 [256].
Then for each of FORMATS and of ROUNDED: the error of GGML's rounding without and with importance, f32 [2], each relative to the inputs:
sqrt(sum w (x - y)^2 / sum w x^2), with w = 1 and w = importance.
"""
import ctypes
from importlib.metadata import distribution, version
from pathlib import Path

import gguf
import numpy as np

GGUF, PYWHISPERCPP = "0.19.0", "1.5.1"  # the latter's library is ggml 0.13.1
# Where scales in binary16 lie in a block: random bytes there would be infinities and NaN now and then.
FORMATS = {
    "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [],
}
ROUNDED = ["Q4_0"]  # its blocks are in quants.bin
VALUES = 512


def kind(name):
    return gguf.GGMLQuantizationType[name]


def raw(name, random):
    block, size = gguf.GGML_QUANT_SIZES[kind(name)]
    blocks = random.integers(0, 256, (VALUES // block, size), dtype=np.uint8)
    for at in FORMATS[name]:
        blocks[:, at : at + 2] = random.standard_normal((len(blocks), 1)).astype("<f2").view(np.uint8)
    return blocks


def library():
    files = distribution("pywhispercpp").files
    found = [f.locate() for f in files if "libggml-base" in f.name]
    lib = ctypes.CDLL(str(sorted(found, key=lambda f: len(str(f)))[0]))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return lib


def error(lib, name, inputs, importance):
    block, size = gguf.GGML_QUANT_SIZES[kind(name)]
    rows, cols = inputs.shape
    packed = np.zeros((rows, cols // block * size), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    written = lib.ggml_quantize_chunk(kind(name), inputs.ctypes.data, packed.ctypes.data, 0, rows, cols, weights)
    assert written == packed.size, (name, written)
    read = gguf.quants.dequantize(packed, kind(name)).astype(np.float64)
    w = 1.0 if importance is None else importance.astype(np.float64)
    return np.sqrt((w * (inputs - read) ** 2).sum() / (w * inputs.astype(np.float64) ** 2).sum())


def main():
    assert (version("gguf"), version("pywhispercpp")) == (GGUF, PYWHISPERCPP)
    random = np.random.default_rng(11)
    out = []
    for name in FORMATS:
        blocks = raw(name, random)
        if name == "MXFP4":
            blocks[:, 0] = random.integers(100, 150, len(blocks), dtype=np.uint8)
            blocks[:3, 0] = 0, 1, 2
        values = gguf.quants.dequantize(blocks, kind(name)).astype("<f4")
        assert np.isfinite(values).all() and values.size == VALUES
        out += [blocks, values]
    inputs = random.standard_normal((8, 256)) * (random.lognormal(-3, 0.5, (8, 1)))
    inputs[3] = random.standard_t(3, 256) * 0.05  # a row with outliers
    inputs[5, 64:96] = 0
    inputs[6] += 0.02
    inputs = inputs.astype("<f4")
    importance = random.lognormal(0, 1.5, 256).astype("<f4")
    out += [inputs, importance]
    lib = library()
    for name in [*FORMATS, *ROUNDED]:
        errors = [error(lib, name, inputs, None), error(lib, name, inputs, importance)]
        print(name, errors)
        out.append(np.array(errors, "<f4"))
    path = Path(__file__).with_name("blocks.bin")
    path.write_bytes(b"".join(a.tobytes() for a in out))
    print(f"{path.name}: {path.stat().st_size} bytes")


main()
