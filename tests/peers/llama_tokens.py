#!/usr/bin/env python3
"""llama.cpp's side of tests/tests/llama_cpp_tokens.rs: what it makes of texts with a file's vocabulary.

usage: llama_tokens.py < JSON {files: [paths], texts: [strings]}
       > JSON, for each file an error or {bos, eos, add_bos, add_eos, ends: [ids], plain: [[ids of each text]], special: [the same, with
         special tokens read]}
"""
import json
import sys

import llama_cpp.llama_cpp as low



@low.llama_log_callback
def quiet(*_):
    pass


def tokens(vocab, text, special, add=False):
    bytes_ = text.encode()
    most = 8 * len(bytes_) + 8
    ids = (low.llama_token * most)()
    count = low.llama_tokenize(vocab, bytes_, len(bytes_), ids, most, add, special)
    assert count >= 0, count
    return ids[:count]


def read(path, texts):
    params = low.llama_model_default_params()
    params.vocab_only = True
    model = low.llama_model_load_from_file(path.encode(), params)
    if not model:
        return "refused"
    vocab = low.llama_model_get_vocab(model)
    made = {
        "bos": low.llama_vocab_bos(vocab),
        "eos": low.llama_vocab_eos(vocab),
        "add_bos": low.llama_vocab_get_add_bos(vocab),
        "add_eos": low.llama_vocab_get_add_eos(vocab),
        "ends": [i for i in range(low.llama_vocab_n_tokens(vocab)) if low.llama_vocab_is_eog(vocab, i)],
        "around": tokens(vocab, "a", True, True),
        "plain": [tokens(vocab, text, False) for text in texts],
        "special": [tokens(vocab, text, True) for text in texts],
    }
    low.llama_model_free(model)
    return made


if __name__ == "__main__":
    low.llama_log_set(quiet, None)
    low.llama_backend_init()
    asked = json.load(sys.stdin)
    json.dump([read(path, asked["texts"]) for path in asked["files"]], sys.stdout)
