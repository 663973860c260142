#!/usr/bin/env python3
"""Writes quants.bin: inputs, and what GGML's reference quantisers make of them, restated here in numpy.

Made with numpy 2.x and compared with the PyPI package gguf (VERSION below) while it ran:
    python3 -m pip install numpy gguf && python3 core/tests/golden/make_quants.py

Layout, all little-endian: inputs f32 [1024]; q8_0 blocks [32 x 34]; q4_0 blocks [32 x 18]; activation scales f32 [32];
activation values i8 [1024].
"""
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np

VERSION = "0.19.0"
f32 = np.float32


def inputs():
    random = np.random.default_rng(7)
    blocks = random.standard_normal((32, 32)).astype(f32)
    blocks *= (10.0 ** random.uniform(-6, 4, (32, 1))).astype(f32)
    blocks[3] = 0
    blocks[4] = (np.arange(32) - 16) / f32(2)  # halves: ties
    blocks[5] = -blocks[4]
    blocks[6] = (np.arange(32) * 8 - 127) / f32(2)
    blocks[7] = 1
    blocks[8, 1], blocks[8, 2] = -1e5, 1e5  # a tie of magnitudes, the negative one first
    blocks[9, 1], blocks[9, 2] = 1e4, -1e4
    return blocks


def half_away(x):
    whole = np.trunc(x)
    return (whole + np.where(np.abs(x - whole) >= f32(0.5), np.sign(x), 0)).astype(f32)


def reciprocal(d):
    with np.errstate(divide="ignore"):
        return np.where(d == 0, f32(0), f32(1) / d).astype(f32)


def q8_0(blocks):
    d = (np.abs(blocks).max(axis=1, keepdims=True) / f32(127)).astype(f32)
    q = half_away((blocks * reciprocal(d)).astype(f32)).astype(np.int8)
    return np.concatenate([d.astype("<f2").view(np.uint8), q.view(np.uint8)], axis=1)


def q4_0(blocks):
    first = np.abs(blocks).argmax(axis=1, keepdims=True)
    d = (np.take_along_axis(blocks, first, axis=1) / f32(-8)).astype(f32)
    q = ((blocks * reciprocal(d)).astype(f32) + f32(8.5)).astype(f32)  # two roundings: GGML's C without contraction
    q = np.minimum(np.trunc(q), 15).astype(np.uint8)
    return np.concatenate([d.astype("<f2").view(np.uint8), q[:, :16] | (q[:, 16:] << 4)], axis=1)


def activations(blocks):
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / f32(127)).astype(f32)
    q = np.rint((blocks * reciprocal(scale)).astype(f32)).astype(np.int8)
    return scale, q


def main():
    blocks = inputs()
    assert version("gguf") == VERSION, f"compared with gguf {VERSION}; this is {version('gguf')}"
    theirs = gguf.quants.quantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    assert (theirs == q8_0(blocks)).all(), "q8_0 differs from the gguf package"
    # The package computes q4_0's nibbles in float64, as if fused; a nibble may differ where that rounds otherwise.
    theirs = gguf.quants.quantize(blocks, gguf.GGMLQuantizationType.Q4_0)
    differ = (theirs != q4_0(blocks)).sum()
    print(f"q4_0: {differ} of {theirs.size} bytes differ from the gguf package {VERSION}")
    assert differ <= 4
    scale, values = activations(blocks)
    path = Path(__file__).with_name("quants.bin")
    path.write_bytes(b"".join(a.tobytes() for a in [blocks.astype("<f4"), q8_0(blocks), q4_0(blocks), scale.astype("<f4"), values]))
    print(f"{path.name}: {path.stat().st_size} bytes")


main()
