#!/usr/bin/env python3
"""Make the golden values of this folder with Hugging Face transformers: `cargo xtask golden`.

Small random llama models. Their weights are not kept: they come from a counter-based generator (`weights` below)
that `tests/src/toy.rs` repeats bit for bit, so a test rebuilds each model from its shape and seed. Kept are

llama.json   the versions used, and for each model its shape, token ids and the positions whose logits are kept
llama.f32    little-endian f32; for each model [2, positions, vocabulary]: transformers as it is, and transformers with
             keys and values rounded to f16, as the runtime's cache holds them
tiny.gguf    one model written by the `gguf` package, so that reading does not rest on our own writer
blocks.bin   one [4, 64] matrix as the `gguf` package quantises it: Q8_0 bytes, Q4_0 bytes, then each dequantised (f32)
"""
import argparse
import json
import pathlib

import gguf
import numpy as np
import torch
import transformers
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
VOCABULARY = 288

SHARED = dict(width=64, ffn=96, layers=2, heads=4, kv_heads=2, head_dim=16, tied=False, rope_base=10000.0, eps=1e-5,
              scaling=None, format="f32", tokens=24)
MODELS = [
    dict(name="mha", seed=1, kv_heads=4),
    dict(name="gqa-tied", seed=2, tied=True, rope_base=500000.0, eps=1e-6),
    dict(name="mqa-wide-heads", seed=3, kv_heads=1, head_dim=32),
    dict(name="odd-sizes", seed=4, width=48, ffn=72, heads=3, kv_heads=1, head_dim=12),
    dict(name="rope-linear", seed=5, scaling=dict(type="linear", factor=4.0)),
    dict(name="rope-llama3", seed=6, tokens=96,
         scaling=dict(type="llama3", factor=8.0, low=1.0, high=4.0, original=32)),
    dict(name="f16", seed=7, format="f16"),
    dict(name="bf16", seed=8, format="bf16", tied=True),
    dict(name="tiny", seed=9, width=32, ffn=64, layers=1, heads=2, kv_heads=1, format="f16", tied=True),
]


def splitmix(seed, count):
    """[count] u64: splitmix64 started from `seed`, as a counter."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def weights(name, shape, scale, seed):
    """Uniform in [-scale, scale): 24 bits per value, so that float32 holds them exactly before scaling."""
    count = int(np.prod(shape))
    bits = splitmix(fnv1a(name) ^ seed, count) >> np.uint64(40)
    unit = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return (unit * np.float32(scale)).reshape(shape)


def tensors(m):
    """GGUF name -> (float32 array in Hugging Face's row order, whether it is a norm)."""
    d, f, hd = m["width"], m["ffn"], m["head_dim"]
    q, kv = m["heads"] * hd, m["kv_heads"] * hd

    def matrix(name, rows, cols, gain=2.0):
        return name, (weights(name, (rows, cols), gain / np.sqrt(np.float32(cols)), m["seed"]), False)

    def norm(name):
        return name, (np.float32(1.0) + weights(name, (d,), 0.25, m["seed"]), True)

    out = [matrix("token_embd.weight", VOCABULARY, d, gain=np.sqrt(np.float32(d)))]
    for layer in range(m["layers"]):
        p = f"blk.{layer}."
        out += [norm(p + "attn_norm.weight"), matrix(p + "attn_q.weight", q, d), matrix(p + "attn_k.weight", kv, d),
                matrix(p + "attn_v.weight", kv, d), matrix(p + "attn_output.weight", d, q), norm(p + "ffn_norm.weight"),
                matrix(p + "ffn_gate.weight", f, d), matrix(p + "ffn_up.weight", f, d),
                matrix(p + "ffn_down.weight", d, f)]
    out.append(norm("output_norm.weight"))
    if not m["tied"]:
        out.append(matrix("output.weight", VOCABULARY, d))
    return dict(out)


def rounded(array, is_norm, fmt):
    t = torch.from_numpy(array.copy())
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[fmt]
    return t if is_norm else t.to(dtype).to(torch.float32)


NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def hugging_face(name):
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{NAMES[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight"}[name]


def attention_f16_cache(module, query, key, value, mask, scaling, dropout=0.0, **_):
    """Plain causal attention, [1, heads, T, head_dim], with keys and values as an f16 cache returns them."""
    key, value = (x.half().float().repeat_interleave(module.num_key_value_groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    t = scores.shape[-1]
    scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("f16_cache", attention_f16_cache)


def logits(m, ids, attention):
    rope = dict(rope_type="default", rope_theta=m["rope_base"])
    s = m["scaling"]
    if s and s["type"] == "linear":
        rope.update(rope_type="linear", factor=s["factor"])
    elif s:
        rope.update(rope_type="llama3", factor=s["factor"], low_freq_factor=s["low"], high_freq_factor=s["high"],
                    original_max_position_embeddings=s["original"])
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=m["width"], intermediate_size=m["ffn"], num_hidden_layers=m["layers"],
        num_attention_heads=m["heads"], num_key_value_heads=m["kv_heads"], head_dim=m["head_dim"],
        rms_norm_eps=m["eps"], tie_word_embeddings=m["tied"], max_position_embeddings=256, rope_parameters=rope,
        attn_implementation=attention)
    model = LlamaForCausalLM(config).float().eval()
    assert model.model.rotary_emb.rope_type == rope["rope_type"], model.model.rotary_emb.rope_type
    state = {hugging_face(n): rounded(a, norm, m["format"]) for n, (a, norm) in tensors(m).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= ({"lm_head.weight"} if m["tied"] else set()), (missing, unexpected)
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def interleaved(array, heads):
    """Rows of q or k from pairs (i, i + d/2) to pairs (2i, 2i + 1) within each head, as a llama GGUF holds them."""
    rows, cols = array.shape
    return array.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def vocabulary():
    """256 byte tokens in GPT-2's characters, merged pairs, control tokens; the same list as toy.rs."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    extra = iter(range(256, 512))
    tokens = [chr(b) if b in printable else chr(next(extra)) for b in range(256)]
    merges = "Ġ t|h e|Ġ a|i n|r e|o n|Ġt he|e r|Ġ s|a t|Ġ w|Ġ o|e n|Ġ c|i t|i s|a n|o r|e s|Ġ b|e d|Ġ f|in g|Ġ p|o u".split("|")
    merges += ["Ġa n", "Ġan d"]
    tokens += [m.replace(" ", "") for m in merges] + ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"]
    assert len(tokens) == VOCABULARY, len(tokens)
    return tokens, merges


def write_gguf(m, path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny random llama")
    w.add_context_length(256); w.add_embedding_length(m["width"]); w.add_block_count(m["layers"])
    w.add_feed_forward_length(m["ffn"]); w.add_head_count(m["heads"]); w.add_head_count_kv(m["kv_heads"])
    w.add_key_length(m["head_dim"]); w.add_value_length(m["head_dim"]); w.add_rope_dimension_count(m["head_dim"])
    w.add_rope_freq_base(m["rope_base"]); w.add_layer_norm_rms_eps(m["eps"]); w.add_vocab_size(VOCABULARY)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tokens, merges = vocabulary()
    w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("gpt-2"); w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.NORMAL] * (VOCABULARY - 5) + [gguf.TokenType.CONTROL] * 5)
    w.add_token_merges(merges); w.add_bos_token_id(VOCABULARY - 5); w.add_eos_token_id(VOCABULARY - 4)
    w.add_pad_token_id(VOCABULARY - 1); w.add_add_bos_token(False)
    for name, (array, norm) in tensors(m).items():
        if name.endswith("attn_q.weight"):
            array = interleaved(array, m["heads"])
        if name.endswith("attn_k.weight"):
            array = interleaved(array, m["kv_heads"])
        w.add_tensor(name, array if norm else array.astype(np.float16))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def write_blocks(path):
    matrix = weights("blocks", (4, 64), 3.0, 0)
    matrix[1] *= np.float32(1e-3)
    matrix[2, :32] = 0
    parts = []
    kinds = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0)
    packed = [gguf.quants.quantize(matrix, kind) for kind in kinds]
    parts += [p.tobytes() for p in packed]
    parts += [gguf.quants.dequantize(p, kind).astype("<f4").tobytes() for p, kind in zip(packed, kinds)]
    path.write_bytes(b"".join(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    models, values = [], []
    for m in (SHARED | m for m in MODELS):
        t = m.pop("tokens")
        ids = [int(x) for x in splitmix(1000 + m["seed"], t) % np.uint64(VOCABULARY)]
        positions = sorted({0, 1, 2, 3, t // 4, t // 2, 3 * t // 4, t - 2, t - 1})
        plain, cached = logits(m, ids, "eager"), logits(m, ids, "f16_cache")
        values += [plain[positions], cached[positions]]
        models.append(m | dict(ids=ids, positions=positions))
        print(f"{m['name']:<16} largest |logit| {np.abs(plain).max():.3f}, f16 cache moves it by {np.abs(plain - cached).max():.2e}")
        if m["name"] == "tiny":
            write_gguf(m, out / "tiny.gguf")
    versions = {p.__name__: p.__version__ for p in (torch, transformers, np)}
    from importlib.metadata import version
    versions["gguf"] = version("gguf")
    lines = ",\n".join(json.dumps(m) for m in models)
    (out / "llama.json").write_text(
        f'{{"made_by": "make_llama.py", "versions": {json.dumps(versions)},\n"models": [\n{lines}\n]}}\n')
    np.concatenate([v.ravel() for v in values]).astype("<f4").tofile(out / "llama.f32")
    write_blocks(out / "blocks.bin")


if __name__ == "__main__":
    main()
