#!/usr/bin/env python3
"""llama.cpp's side of tests/tests/llama_cpp.rs.

usage: llama_logits.py logits MODEL.gguf OUT.f32 [ADAPTER.gguf SCALE]... < token ids        [tokens, vocabulary] f32 little-endian
       llama_logits.py embed MODEL.gguf OUT.f32 < token ids             [width]: the text's vector, as long as it comes
       llama_logits.py rank MODEL.gguf OUT.f32 < query and document, a line each    [labels]: its labels' values
       llama_logits.py squares MODEL.gguf OUT.json < token ids          {tensor: sums of squares of what it is multiplied with,
                                                                          [experts, cols] or [cols]}
       llama_logits.py greedy MODEL.gguf MAX_TOKENS < JSON list of prompts > JSON list of {tokens, text}
"""
import ctypes
import json
import sys

import llama_cpp
import llama_cpp.llama_cpp as low
import numpy as np


def logits(path, out, *adapters):
    ids = [int(word) for word in sys.stdin.read().split()]
    # Keys and values in f16, its default, as Dram's cache.
    model = llama_cpp.Llama(path, n_ctx=len(ids) + 8, n_batch=512, n_threads=1, logits_all=True, verbose=False)
    if adapters:
        handles = [low.llama_adapter_lora_init(model._model.model, file.encode()) for file in adapters[::2]]
        scales = [float(scale) for scale in adapters[1::2]]
        count = len(handles)
        assert low.llama_set_adapters_lora(model._ctx.ctx, (low.llama_adapter_lora_p_ctypes * count)(*handles), count,
                                           (ctypes.c_float * count)(*scales)) == 0
    model.eval(ids)
    np.asarray(model.scores[: len(ids)], dtype="<f4").tofile(out)


def embed(path, out):
    ids = [int(word) for word in sys.stdin.read().split()]
    model = llama_cpp.Llama(path, n_ctx=len(ids) + 8, n_batch=1024, n_ubatch=1024, n_threads=1, embedding=True, verbose=False)
    model._batch.add_sequence(ids, 0, True)
    model._ctx.decode(model._batch)
    length = low.llama_model_n_embd_out(model._model.model)
    np.asarray(low.llama_get_embeddings_seq(model._ctx.ctx, 0)[:length], dtype="<f4").tofile(out)


def rank(path, out):
    """As its server's /rerank makes one text of a query and a document."""
    query, document = sys.stdin.read().split("\n")[:2]
    model = llama_cpp.Llama(path, n_ctx=128, n_batch=512, n_ubatch=512, n_threads=1, embedding=True, pooling_type=4, verbose=False)
    vocabulary = low.llama_model_get_vocab(model._model.model)
    template = low.llama_model_chat_template(model._model.model, b"rerank")
    if template:
        text = template.decode().replace("{query}", query).replace("{document}", document)
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
    else:
        plain = lambda text: model.tokenize(text.encode(), add_bos=False, special=False)
        end = [low.llama_vocab_eos(vocabulary)] if low.llama_vocab_get_add_eos(vocabulary) else []
        ids = [low.llama_vocab_bos(vocabulary)] if low.llama_vocab_get_add_bos(vocabulary) else []
        ids += plain(query) + end
        ids += [low.llama_vocab_sep(vocabulary)] if low.llama_vocab_get_add_sep(vocabulary) else []
        ids += plain(document) + end
    model._batch.add_sequence(ids, 0, True)
    model._ctx.decode(model._batch)
    labels = low.llama_model_n_cls_out(model._model.model)
    np.asarray(low.llama_get_embeddings_seq(model._ctx.ctx, 0)[:labels], dtype="<f4").tofile(out)


class Tensor(ctypes.Structure):
    """ggml.h's struct ggml_tensor, up to its name."""


Tensor._fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
                   ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
                   ("src", ctypes.POINTER(Tensor) * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
                   ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64)]


def array(tensor, kind):
    """The first three dimensions of a tensor of 32-bit values, the outermost first."""
    values = np.ctypeslib.as_array(ctypes.cast(tensor.data, ctypes.POINTER(kind)), (1,))
    return np.lib.stride_tricks.as_strided(values, tensor.ne[2::-1], tensor.nb[2::-1])


def squares(path, out):
    """What llama.cpp's tools/imatrix sums up, seen by the same callback."""
    sums = {}

    @low.ggml_backend_sched_eval_callback
    def seen(address, ask, _):
        t = Tensor.from_address(address)
        if not (t.src[0] and t.src[1]):
            return not ask
        weight, x = t.src[0].contents, t.src[1].contents
        # Only products have a weight as their first source and f32 as their second.
        if not weight.name.startswith(b"blk.") or not weight.name.endswith(b".weight") or x.type != 0:
            return not ask
        if not ask:
            values = array(x, ctypes.c_float)  # [tokens, experts used or 1, cols] with experts, or else [1, tokens, cols]
            squares = values.astype("f8") ** 2
            if t.src[2]:
                taken = array(t.src[2].contents, ctypes.c_int32)[0]  # [tokens, experts used]
                each = np.zeros((weight.ne[2], x.ne[0]))
                np.add.at(each, taken, np.broadcast_to(squares, (*taken.shape, x.ne[0])))
                sums[weight.name.decode()] = each.ravel().tolist()
            else:
                sums[weight.name.decode()] = squares.sum((0, 1)).tolist()
        return True

    default = low.llama_context_default_params

    def params():
        made = default()
        made.cb_eval = seen
        return made

    low.llama_context_default_params = params
    ids = [int(word) for word in sys.stdin.read().split()]
    llama_cpp.Llama(path, n_ctx=len(ids) + 8, n_batch=512, n_threads=1, logits_all=True, verbose=False).eval(ids)
    with open(out, "w") as file:
        json.dump(sums, file)


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
    {"logits": logits, "embed": embed, "rank": rank, "squares": squares, "greedy": greedy}[sys.argv[1]](*sys.argv[2:])
