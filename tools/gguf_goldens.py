#!/usr/bin/env python3
"""Writes tests/golden/gguf/blocks.safetensors: blocks of every format that nibble reads and what gguf-py makes of them.

  python3 -m venv v && v/bin/pip install gguf==0.19.0 && v/bin/python tools/gguf_goldens.py tests/golden/gguf

Per format F: "F.blocks" U8 [n,bytes] and "F.values" F32 [n,weights]. The codes and block scales are random bytes, all
256 of them occur; the f16 scales are random finite numbers, subnormal ones and zeros of both signs among them. For the
quantizer: "encode.x" F32 [n,32] and "encode.q8_0" U8 [n,34].
"""
import json
import struct
import sys

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

HALVES = {T.Q4_0: [0], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}  # offsets of f16 scales


def random_half(rng, n):
    bits = rng.integers(0, 65536, n).astype(np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] ^= 0x4000  # no infinity, no NaN
    bits[0], bits[1], bits[2] = 0x0000, 0x8000, 0x0001
    return bits.view(np.uint8).reshape(n, 2)


def blocks_of(rng, kind, n):
    blocks = rng.integers(0, 256, (n, GGML_QUANT_SIZES[kind][1])).astype(np.uint8)
    for at in HALVES.get(kind, []):
        blocks[:, at : at + 2] = random_half(rng, n)
    if kind == T.NVFP4:
        blocks[:, :4] = rng.integers(0, 0x7F, (n, 4))
    if kind == T.F16:
        return random_half(rng, n)
    if kind in (T.BF16, T.F32):
        values = rng.standard_normal(n).astype(np.float32)
        return values.view(np.uint8).reshape(n, 4)[:, 4 - GGML_QUANT_SIZES[kind][1] :].copy()
    return blocks


def write(path, tensors):
    header, data = {"__metadata__": {"origin": "gguf-py 0.19.0, tools/gguf_goldens.py"}}, b""
    for name, array in tensors.items():
        dtype = {"uint8": "U8", "float32": "F32"}[str(array.dtype)]
        raw = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main(folder):
    rng, tensors = np.random.default_rng(35), {}
    for kind, n in [(T.F16, 64), (T.BF16, 64), (T.F32, 64), (T.Q4_0, 24), (T.Q8_0, 24), (T.Q4_K, 8), (T.Q5_K, 8), (T.Q6_K, 8), (T.NVFP4, 16)]:
        blocks = blocks_of(rng, kind, n)
        tensors[f"{kind.name}.blocks"] = blocks
        tensors[f"{kind.name}.values"] = quants.dequantize(blocks, kind).astype(np.float32).reshape(n, -1)
    x = (rng.standard_normal((32, 32)) * np.exp2(rng.integers(-24, 12, (32, 1)))).astype(np.float32)
    x[0] = 0
    x[1] = np.arange(32) - 15.5  # halves of the step: ties
    x[1, 0] = 127
    x[2, ::2] = 0
    tensors["encode.x"], tensors["encode.q8_0"] = x, quants.quantize(x, T.Q8_0).reshape(32, 34)
    write(f"{folder}/blocks.safetensors", dict(sorted(tensors.items(), key=lambda t: t[1].dtype != np.float32)))


main(sys.argv[1])
