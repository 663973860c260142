#!/usr/bin/env python3
"""llama.cpp's side of tests/tests/llama_cpp.rs.

usage: llama_logits.py logits MODEL.gguf OUT.f32 < token ids        [tokens, vocabulary] f32 little-endian
       llama_logits.py greedy MODEL.gguf MAX_TOKENS < JSON list of prompts > JSON list of {tokens, text}
"""
import json
import sys

import llama_cpp
import numpy as np


def logits(path, out):
    ids = [int(word) for word in sys.stdin.read().split()]
    # Keys and values in f16, its default, as Dram's cache.
    model = llama_cpp.Llama(path, n_ctx=len(ids) + 8, n_batch=512, n_threads=1, logits_all=True, verbose=False)
    model.eval(ids)
    np.asarray(model.scores[: len(ids)], dtype="<f4").tofile(out)


def greedy(path, limit):
    model = llama_cpp.Llama(path, n_ctx=1024, n_threads=1, verbose=False)
    answers = []
    for prompt in json.load(sys.stdin):
        model.reset()
        ids = model.tokenize(prompt.encode(), add_bos=True, special=True)
        made = []
        for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            if llama_cpp.llama_vocab_is_eog(model._model.vocab, token) or len(made) == int(limit):
                break
            made.append(token)
        answers.append({"prompt_tokens": ids, "tokens": made, "text": model.detokenize(made).decode("utf-8", "replace")})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    {"logits": logits, "greedy": greedy}[sys.argv[1]](*sys.argv[2:])
