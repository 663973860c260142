#!/usr/bin/env python3
"""Make tests/golden/families: a tiny random model of every family, and what Hugging Face transformers makes of it.

    make_families.py --llama-cpp DIR    DIR: llama.cpp's source, as the sdist of llama-cpp-python carries it in vendor/llama.cpp

The GGUF files are written by llama.cpp's own converter, so that the names, the permutations and the metadata are its and not ours; only the tokenizer
is replaced (the files hold 64 single-byte tokens), and Mistral's window is added, which the converter leaves out. Kept are

NAME.gguf      the model, matrices in f16, which hold the weights exactly
families.tsv   the versions used, then for each case: its name, file, what it asks for, token ids, and the positions whose values are kept
families.f32   little-endian f32, case after case. `logits`: [2, positions, vocabulary], transformers as it is, and transformers with keys and values
               rounded to f16, as the runtime's cache holds them. `embedding`: [width], pooled and normalised to length 1 as sentence-transformers does.
               `rank`: one score; instead of ids and positions, families.tsv has the ids of the query and those of the document
"""
import argparse
import json
import pathlib
import sys
import tempfile
from importlib.metadata import version

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent / "families"
VOCABULARY = 64
TOKENS = 80

SHARED = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=128, pad_token_id=None, bos_token_id=0, eos_token_id=1)


def rope(base, **scaling):
    return dict(rope_type=scaling.pop("type", "default"), rope_theta=base, **scaling)


FULL, LOCAL, CONV, LINEAR = "full_attention", "sliding_attention", "conv", "linear_attention"
STATE_SPACE = dict(rms_norm_eps=1e-5, mamba_n_heads=8, mamba_d_state=16, mamba_d_head=8, mamba_chunk_size=16, embedding_multiplier=6.0,
                   residual_multiplier=0.3, attention_multiplier=0.2, logits_scaling=3.0)
YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=8.0, beta_slow=1.0)
LONG = [1.0 + 0.6 * i for i in range(4)]
SHORT = [1.0 + 0.1 * i for i in range(4)]
# name: (configuration's class, its values, standard deviation of the embeddings, seed)
MODELS = {
    "llama3": ("Llama", dict(rms_norm_eps=1e-5, tie_word_embeddings=True, rope_parameters=rope(
        1e4, type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)), 1),
    "llama-linear": ("Llama", dict(rms_norm_eps=1e-5, rope_parameters=rope(1e4, type="linear", factor=4.0)), 1),
    "llama-yarn": ("Llama", dict(rms_norm_eps=1e-5, head_dim=16, rope_parameters=rope(1e2, **YARN)), 1),
    "mistral": ("Mistral", dict(rms_norm_eps=1e-5, sliding_window=19, head_dim=16, rope_parameters=rope(1e4)), 1),
    "qwen2": ("Qwen2", dict(rms_norm_eps=1e-6, rope_parameters=rope(1e6)), 1),
    "qwen3": ("Qwen3", dict(rms_norm_eps=1e-6, head_dim=16, tie_word_embeddings=True, rope_parameters=rope(1e6)), 1),
    "stablelm-2": ("StableLm", dict(layer_norm_eps=1e-5, use_qkv_bias=True, partial_rotary_factor=0.5,
                                    rope_parameters=rope(1e4, partial_rotary_factor=0.5)), 1),
    "stablelm-2-12b": ("StableLm", dict(layer_norm_eps=1e-5, qk_layernorm=True, use_parallel_residual=True,
                                        rope_parameters=rope(1e4, partial_rotary_factor=0.25)), 1),
    "gemma2": ("Gemma2", dict(num_hidden_layers=3, head_dim=16, query_pre_attn_scalar=16, sliding_window=21, rms_norm_eps=1e-6,
                              attn_logit_softcapping=3.0, final_logit_softcapping=4.0, rope_parameters=rope(1e4)), 0.2),
    "gemma3": ("Gemma3Text", dict(num_hidden_layers=7, intermediate_size=32, head_dim=8, query_pre_attn_scalar=8, sliding_window=17,
                                  rms_norm_eps=1e-6, rope_parameters={
                                      FULL: rope(1e6, type="linear", factor=8.0), LOCAL: rope(1e4)}), 0.2),
    "gemma4": ("Gemma4Text", dict(num_hidden_layers=6, intermediate_size=32, head_dim=8, global_head_dim=16, sliding_window=17, rms_norm_eps=1e-6,
                                  layer_types=[LOCAL, FULL] * 3, num_kv_shared_layers=2, use_double_wide_mlp=True, final_logit_softcapping=4.0,
                                  hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY), 0.2),
    "gemma4-dense": ("Gemma4Text", dict(num_hidden_layers=3, head_dim=8, global_head_dim=16, sliding_window=19, rms_norm_eps=1e-6,
                                        layer_types=[LOCAL, LOCAL, FULL], attention_k_eq_v=True, num_global_key_value_heads=1,
                                        final_logit_softcapping=4.0, hidden_size_per_layer_input=0), 0.2),
    "phi3": ("Phi3", dict(rms_norm_eps=1e-5, original_max_position_embeddings=32, rope_parameters=rope(
        1e4, type="longrope", long_factor=LONG, short_factor=SHORT, original_max_position_embeddings=32)), 1),
    "phi3-window": ("Phi3", dict(rms_norm_eps=1e-5, original_max_position_embeddings=128, sliding_window=23,
                                 rope_parameters=rope(1e4)), 1),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4, rms_norm_eps=1e-6, rope_parameters=rope(5e6)), 1),
    "olmo2": ("Olmo2", dict(rms_norm_eps=1e-6, rope_parameters=rope(5e5)), 1),
    "olmo3": ("Olmo3", dict(num_hidden_layers=4, intermediate_size=32, rms_norm_eps=1e-6, sliding_window=18,
                            rope_parameters={FULL: rope(1e2, **YARN), LOCAL: rope(1e2)}), 1),
    "granite": ("Granite", dict(rms_norm_eps=1e-5, embedding_multiplier=6.0, residual_multiplier=0.3, attention_multiplier=0.2,
                                logits_scaling=3.0, rope_parameters=rope(1e4)), 0.3),
    "bert-mean": ("Bert", dict(layer_norm_eps=1e-12, num_key_value_heads=4, pad_token_id=0), 1),
    "bert-cls": ("Bert", dict(layer_norm_eps=1e-12, num_key_value_heads=4, pad_token_id=0), 1),
    "lfm2": ("Lfm2", dict(num_hidden_layers=4, intermediate_size=72, block_multiple_of=16, norm_eps=1e-5, layer_types=[CONV, CONV, FULL, CONV],
                          rope_parameters=rope(1e6)), 1),
    "lfm2-moe": ("Lfm2Moe", dict(num_hidden_layers=4, num_dense_layers=1, moe_intermediate_size=24, num_experts=8, num_experts_per_tok=2,
                                 norm_eps=1e-5, layer_types=[CONV, FULL, CONV, FULL], rope_parameters=rope(1e6)), 1),
    "qwen3.5": ("Qwen3_5Text", dict(num_hidden_layers=4, rms_norm_eps=1e-6, head_dim=16, layer_types=[LINEAR, LINEAR, FULL, LINEAR],
                                    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
                                    rope_parameters=rope(1e6, partial_rotary_factor=0.5, mrope_section=[2, 1, 1])), 1),
    "qwen3.5-moe": ("Qwen3_5MoeText", dict(rms_norm_eps=1e-6, head_dim=16, layer_types=[LINEAR, FULL], linear_num_key_heads=2,
                                           linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8, num_experts=8,
                                           num_experts_per_tok=3, moe_intermediate_size=24, shared_expert_intermediate_size=40,
                                           rope_parameters=rope(1e6, partial_rotary_factor=0.5, mrope_section=[2, 1, 1])), 1),
    "olmoe": ("Olmoe", dict(rms_norm_eps=1e-5, num_key_value_heads=4, num_experts=8, num_experts_per_tok=3, norm_topk_prob=False, rope_parameters=rope(1e4)), 1),
    "granite-moe": ("GraniteMoe", dict(rms_norm_eps=1e-5, num_local_experts=8, num_experts_per_tok=2, embedding_multiplier=6.0,
                                       residual_multiplier=0.3, attention_multiplier=0.2, logits_scaling=3.0, rope_parameters=rope(1e4)), 0.3),
    "granite-moe-shared": ("GraniteMoeShared", dict(rms_norm_eps=1e-5, num_local_experts=8, num_experts_per_tok=2, shared_intermediate_size=40,
                                                    embedding_multiplier=6.0, residual_multiplier=0.3, attention_multiplier=0.2,
                                                    logits_scaling=3.0, rope_parameters=rope(1e4)), 0.3),
    "granite-hybrid": ("GraniteMoeHybrid", dict(num_hidden_layers=4, num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=48, layer_types=[LINEAR, FULL, LINEAR, LINEAR],
                                                **STATE_SPACE, rope_parameters=rope(1e4)), 0.3),
    "granite-hybrid-moe": ("GraniteMoeHybrid", dict(num_local_experts=8, num_experts_per_tok=2, shared_intermediate_size=40, layer_types=[LINEAR, FULL],
                                                    **STATE_SPACE, rope_parameters=rope(1e4)), 0.3),
    "qwen3-moe": ("Qwen3Moe", dict(rms_norm_eps=1e-6, head_dim=16, moe_intermediate_size=24, num_experts=8, num_experts_per_tok=3,
                                   norm_topk_prob=True, rope_parameters=rope(1e6)), 1),
    "qwen3-embedding": ("Qwen3", dict(rms_norm_eps=1e-6, head_dim=16, tie_word_embeddings=True, rope_parameters=rope(1e6)), 1),
    "xlmr-rank": ("XLMRoberta", dict(layer_norm_eps=1e-5, num_key_value_heads=4, pad_token_id=1, max_position_embeddings=130, type_vocab_size=1,
                                     num_labels=1, eos_token_id=2), 1),
    "bert-rank": ("Bert", dict(layer_norm_eps=1e-12, num_key_value_heads=4, pad_token_id=1, num_labels=1), 1),
    "qwen3-reranker": ("Qwen3", dict(rms_norm_eps=1e-6, head_dim=16, tie_word_embeddings=True, rope_parameters=rope(1e6)), 0.1),
    "modernbert": ("ModernBert", dict(num_hidden_layers=5, norm_eps=1e-5, layer_norm_eps=1e-5, global_attn_every_n_layers=3, local_attention=16, pad_token_id=0, cls_token_id=0, sep_token_id=1,
                                      num_key_value_heads=4, rope_parameters={FULL: rope(1.6e5), LOCAL: rope(1e4)}), 1),
    "embeddinggemma": ("Gemma3Text", dict(num_hidden_layers=7, max_position_embeddings=1024, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, rms_norm_eps=1e-6,
                                          use_bidirectional_attention=True, rope_parameters={FULL: rope(1e6), LOCAL: rope(1e4)}), 0.2),
}
# Encoders, and the mode of sentence-transformers' pooling
POOLING = {"bert-mean": "mean_tokens", "bert-cls": "cls_token", "qwen3-embedding": "lasttoken", "embeddinggemma": "mean_tokens",
           "modernbert": "cls_token"}
# Rerankers: the class, and the ids that go before a query, between it and a document, and after that
RANK = {"xlmr-rank": ("ForSequenceClassification", [0], [2, 2], [2]), "bert-rank": ("ForSequenceClassification", [0], [2], [2]),
        "qwen3-reranker": ("ForCausalLM", [17, 18], [19, 20], [21, 22])}
YES, NO = 40, 50
# Inner length of the two matrices that the text's vector is multiplied with
DENSE = {"embeddinggemma": 64}
# name: (model, tokens); the length decides between Phi's factors for short and long contexts, and a long text is taken in several segments
CASES = {name: (name, TOKENS) for name in MODELS} | {"phi3-short": ("phi3", 24), "embeddinggemma-long": ("embeddinggemma", 700)}


def class_of(name, kind):
    if name in RANK:
        return kind + RANK[name][0]
    return f"{kind}Model" if name in POOLING else f"{kind.removesuffix('Text')}ForCausalLM"


def modules(name):
    """What sentence-transformers keeps beside an encoder: file and content."""
    modes = {f"pooling_mode_{m}": m == POOLING[name] for m in ("mean_tokens", "cls_token", "max_tokens", "lasttoken")}
    parts = {"Pooling": ("pooling", modes)}
    if name in DENSE:
        shared = dict(bias=False, activation_function="torch.nn.modules.linear.Identity")
        lengths = SHARED["hidden_size"], DENSE[name]
        parts |= {f"{i}_Dense": (f"{i}_Dense", dict(in_features=a, out_features=b) | shared) for i, (a, b) in ((2, lengths), (3, lengths[::-1]))}
    return {"modules.json": [dict(type=f"models.{part.split('_')[-1]}", path=path) for part, (path, _) in parts.items()]} | {
        f"{path}/config.json": config for path, config in parts.values()}


def dense(name):
    """The matrices of those modules, by their folders."""
    generator = torch.Generator().manual_seed(7)
    shapes = {path.split("/")[0]: (c["out_features"], c["in_features"]) for path, c in modules(name).items() if "in_features" in c}
    return {path: (torch.randn(shape, generator=generator) / shape[1] ** 0.5).half().float() for path, shape in shapes.items()}


def pooled(name, vectors):
    """The vectors of a text's tokens as one of length 1."""
    vector = dict(mean_tokens=vectors.mean(0), cls_token=vectors[0], lasttoken=vectors[-1])[POOLING[name]]
    for matrix in dense(name).values():
        vector = matrix.numpy() @ vector
    return vector / np.linalg.norm(vector)


def score(name, model, query, document):
    """The reranker's score of a document, and the largest value that it is made of."""
    _, before, between, after = RANK[name]
    first = before + query + between
    ids = first + document + after
    # RoBERTa puts the second separator before the document, but its texts have one type.
    types = [0] * len(first) + [min(1, getattr(model.config, "type_vocab_size", 1) - 1)] * (len(ids) - len(first))
    with torch.no_grad():
        if model.config.model_type == "qwen3":
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            return logits[[YES, NO]].softmax(-1)[:1].numpy(), logits.abs().max()
        logits = model(torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[0]
        return logits.numpy(), logits.abs().max()


def build(name):
    kind, values, spread = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**SHARED | values, attn_implementation="eager")
    torch.manual_seed(sum(name.encode()))
    model = getattr(transformers, class_of(name, kind))(config)
    model = model.float().eval()
    shifted = kind.startswith(("Gemma2", "Gemma3", "Qwen3_5"))  # these norms add 1 to their weights
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if "embeddings.LayerNorm.weight" in key or "norm" in key.lower() and key.endswith("weight"):
                weight.copy_(0.3 * noise + (0.0 if shifted and "linear_attn" not in key else 1.0))
                if kind == "Gemma4Text" and "q_norm" in key:  # attention has no other scale
                    weight.mul_(weight.shape[-1] ** -0.5)
            elif weight.dim() == 1:
                weight.copy_(0.3 * noise)
            else:
                scale = spread if "embed" in key and "token_type" not in key else 1.2 / weight.shape[-1] ** 0.5
                weight.copy_((scale * noise).half().float())
        for key, bias in model.named_buffers():
            if key.endswith(".expert_bias"):
                bias.copy_(0.3 * torch.randn_like(bias))
            if key.endswith(".layer_scalar"):
                bias.copy_(1.0 + 0.3 * torch.randn_like(bias))
    return model


def f16_cache(model):
    """The model with keys and values rounded as an f16 cache rounds them."""
    module = sys.modules[type(model).__module__]
    plain = module.eager_attention_forward

    def rounded(this, query, key, value, *rest, **named):
        return plain(this, query, key.half().float(), value.half().float(), *rest, **named)
    module.eager_attention_forward = rounded
    return lambda: setattr(module, "eager_attention_forward", plain)


def run(model, ids):
    with torch.no_grad():
        out = model(torch.tensor([ids])) if "bert" in model.config.model_type else model(torch.tensor([ids]), use_cache=False)
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state)[0].float().numpy()


def add_mtp(folder, config):
    """Gives the folder a layer that predicts the token after the next, as published models have; nothing of it changes the logits."""
    from safetensors.torch import load_file
    tensors = load_file(folder / "model.safetensors")
    full, width = f"model.layers.{config.layer_types.index(FULL)}.", config.hidden_size
    own = {f"mtp.layers.0.{k.removeprefix(full)}": v.clone() for k, v in tensors.items() if k.startswith(full)}
    norms = {f"mtp.{k}.weight": torch.zeros(width) for k in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
    save_file(tensors | own | norms | {"mtp.fc.weight": torch.zeros(width, 2 * width)}, folder / "model.safetensors", {"format": "pt"})
    stated = json.loads((folder / "config.json").read_text()) | {"mtp_num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(stated))


def published_layer_types(folder):
    """Calls the layers as published models do, and llama.cpp's converter expects."""
    stated = json.loads((folder / "config.json").read_text())
    stated["layer_types"] = ["mamba" if kind == LINEAR else "attention" for kind in stated["layer_types"]]
    (folder / "config.json").write_text(json.dumps(stated))


def convert(model, name, llama_cpp, path):
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder) / name  # by which the converter knows Qwen3-Reranker
        model.save_pretrained(folder)
        tokens = [chr(ord("0") + i) for i in range(VOCABULARY)]
        (folder / "tokenizer.json").write_text(
            json.dumps({"model": {"vocab": {t: i for i, t in enumerate(tokens)}}, "added_tokens": []}))
        for file, content in modules(name).items() if name in POOLING else ():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(json.dumps(content))
        for part, matrix in dense(name).items() if name in POOLING else ():
            save_file({"linear.weight": matrix}, folder / part / "model.safetensors", {"format": "pt"})
        if name.startswith("qwen3.5"):
            add_mtp(folder, model.config)
        if name.startswith("granite-hybrid"):
            published_layer_types(folder)
        converter = get_model_class(get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT))

        def set_vocab(self):
            w = self.gguf_writer
            w.add_tokenizer_model("gpt2")
            w.add_tokenizer_pre("gpt-2")
            w.add_token_list(tokens)
            w.add_token_types([gguf.TokenType.NORMAL] * VOCABULARY)
            w.add_add_bos_token(False)
            if "bert" in model.config.model_type or "rob" in model.config.model_type:
                w.add_token_type_count(getattr(model.config, "type_vocab_size", 1))
            if name in RANK and name != "qwen3-reranker":
                before, between = RANK[name][1:3]
                w.add_bos_token_id(before[0]); w.add_eos_token_id(between[0]); w.add_sep_token_id(between[0])
                w.add_add_bos_token(True); w.add_add_eos_token(True); w.add_add_sep_token(len(between) > 1)
            if name == "mistral":
                w.add_sliding_window(model.config.sliding_window)

        def modify_tensors(self, data_torch, name, bid):
            # StableLM's returns its stacked norms from a generator, where they are lost, instead of yielding them.
            rest = yield from converter.modify_tensors(self, data_torch, name, bid) or ()
            yield from rest or ()
        def filter_tensors(cls, item):
            # llama.cpp's converter leaves BERT's pooler out, which its classifier reads.
            tensor, make = item
            tensor = tensor.replace("classifier.", "classifier.out_proj.").replace("bert.pooler.dense.", "classifier.dense.")
            return converter.filter_tensors.__func__(cls, (tensor, make))

        def set_gguf_parameters(self):
            converter.set_gguf_parameters(self)
            if name == "qwen3-reranker":  # of tokens that the tiny model has
                text = lambda ids: "".join(tokens[i] for i in ids)
                _, before, between, after = RANK[name]
                self.gguf_writer.add_string("tokenizer.chat_template.rerank", text(before) + "{query}" + text(between) + "{document}" + text(after))

        def find_rerank_config(self):
            self.is_rerank, self.is_tied_embeddings, self.token_true_id, self.token_false_id = True, True, YES, NO

        own = dict(filter_tensors=classmethod(filter_tensors)) if name == "bert-rank" else {}
        changed = type(converter.__name__, (converter,), own | dict(
            set_gguf_parameters=set_gguf_parameters, _find_rerank_config=find_rerank_config, set_vocab=set_vocab, modify_tensors=modify_tensors, model_arch=converter.model_arch))
        changed(folder, gguf.LlamaFileType.MOSTLY_F16, path, eager=True, model_name=f"tiny random {name}",
                sentence_transformers_dense_modules=name in DENSE).write()


def others(out, header, made):
    """Lines and values of the cases in `out` that are not in `made`."""
    if not (out / "families.tsv").exists():
        return {}
    first, *lines = (out / "families.tsv").read_text().splitlines()
    values, cases = np.fromfile(out / "families.f32", "<f4"), {}
    for line in lines:
        name, _, kind, _, positions = line.split("\t")
        count = dict(logits=2 * len(positions.split()) * VOCABULARY, embedding=SHARED["hidden_size"], rank=1)[kind]
        cases[name], values = (line, values[:count]), values[count:]
    cases = {name: case for name, case in cases.items() if name not in made}
    if cases and first != header:
        sys.exit(f"the other cases were {first[2:]}, these are {header[2:]}: make all of them")
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    parser.add_argument("--release", required=True, help="the release of llama-cpp-python that carries it")
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--only", nargs="*", default=list(CASES), help="make these and keep the others")
    args = parser.parse_args()
    torch.set_num_threads(1)
    versions = {p.__name__: p.__version__ for p in (torch, transformers, np)} | {"llama-cpp-python": args.release}
    header = "# made by make_families.py with " + ", ".join(f"{k} {v}" for k, v in versions.items())
    cases = others(args.out, header, args.only)  # name: (line, values)
    for case in args.only:
        name, count = CASES[case]
        model = build(name)
        path = args.out / f"{name}.gguf"
        if case == name:
            convert(model, name, args.llama_cpp, path)
        ids = np.random.default_rng(len(case)).integers(3 if name in RANK else 0, VOCABULARY, count).tolist()
        if name in RANK:
            query, document = ids[:20], ids[20:60]
            value, largest = score(name, model, query, document)
            line = "\t".join([case, path.name, "rank", " ".join(map(str, query)), " ".join(map(str, document))])
            cases[case] = line, value
            print(f"{case:<16} {path.stat().st_size:>7} bytes, score {value[0]:.4f}, largest |value| {largest:.3f}")
            continue
        plain = run(model, ids)
        restore = f16_cache(model)
        cached = run(model, ids)
        restore()
        if name in POOLING:
            kind, positions, kept = "embedding", [], [pooled(name, plain)]
        else:
            kind, positions = "logits", sorted({*range(0, count, 4), count - 2, count - 1})
            kept = [plain[positions], cached[positions]]
        line = "\t".join([case, path.name, kind, " ".join(map(str, ids)), " ".join(map(str, positions))])
        cases[case] = line, np.concatenate([v.ravel() for v in kept])
        print(f"{case:<16} {path.stat().st_size:>7} bytes, largest |value| {np.abs(plain).max():.3f}, "
              f"an f16 cache moves it by {np.abs(plain - cached).max():.2e}")
    cases = [cases[case] for case in CASES if case in cases]
    (args.out / "families.tsv").write_text("\n".join([header, *(line for line, _ in cases)]) + "\n")
    np.concatenate([values for _, values in cases]).astype("<f4").tofile(args.out / "families.f32")


if __name__ == "__main__":
    main()
