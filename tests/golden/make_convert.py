#!/usr/bin/env python3
"""Make tests/golden/convert: what llama.cpp's converter makes of a tiny folder of every family, as facts.

    make_convert.py --llama-cpp DIR --release R    DIR: llama.cpp's source, as the sdist of llama-cpp-python carries it in vendor/llama.cpp

Kept are the tokenizers, trained here on the lines of TEXT, and facts.json: for each case config.json, the names and shapes of the weights, and of
the GGUF file every key, and every tensor's type, shape and hash. The weights are a function of their name and place, `values` below, which the test
computes too, so they need not be kept. Long arrays are kept as their length and hash. Only the name of the pre-tokenizer is put in by hand: llama.cpp
knows it by the hash of a real vocabulary's ids.
"""
import argparse
import json
import pathlib
import re
import shutil
import sys
import tempfile
from importlib.metadata import version

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from make_families import DENSE, FULL, LOCAL, MODELS, POOLING, SHARED, STATE_SPACE, class_of, modules, published_layer_types, rope

HERE = pathlib.Path(__file__).resolve().parent / "convert"
TEXT = """\
A dram is the small measure that is left after distillation, and a small model is what is left of a large one.
The teacher answers, the student listens; the student answers, and the difference is what it learns from.
It's 7 o'clock and we're still here: don't wait for 12345 more tokens, they'll come at 3.14 per second!
def add(a, b):\n    return a + b    # and nothing else\n\nprint(add(2, 40))
Größe, naïve, café, señor; привет мир, как дела; 東京 と 京都; नमस्ते दुनिया; 🚀 emoji 🙂.
Weights lie in blocks of thirty-two values, each with a scale; the scale is the largest value over one hundred and twenty-seven.
"""
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"

LLAMA = dict(rms_norm_eps=1e-5, rope_parameters=rope(1e4))
# beside the families of make_families.py
EXTRA = {
    "llama-biased": ("Llama", dict(LLAMA, attention_bias=True, num_key_value_heads=4)),
    "phi4-mini": ("Phi3", dict(rms_norm_eps=1e-5, original_max_position_embeddings=32, hidden_size=64, rope_parameters=rope(
        1e4, type="longrope", long_factor=[1.5] * 6, short_factor=[1.0] * 6, original_max_position_embeddings=32,
        partial_rotary_factor=0.75), partial_rotary_factor=0.75)),
    "gemma3-vision": ("Gemma3Text", MODELS["gemma3"][1]),
    "granite-attention": ("GraniteMoeHybrid", dict(num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=48, layer_types=[FULL, FULL], **STATE_SPACE,
                                                   position_embedding_type="rope", rope_parameters=rope(1e4))),
    "gemma4-vision": ("Gemma4Text", MODELS["gemma4"][1]),
    "qwen3-moe-stacked": ("Qwen3Moe", dict(MODELS["qwen3-moe"][1], norm_topk_prob=False)),
}
# name: (tokenizer, name of its pre-tokenizer, dtype of the folder, type of the file)
CASES = {
    "llama3": ("llama3", "llama-bpe", "bf16", "bf16"),
    "llama-linear": ("spm", None, "f32", "f16"),
    "llama-yarn": ("spm-json", None, "f32", "f32"),
    "llama-biased": ("digits", "smollm", "f32", "bf16"),
    "mistral": ("spm", None, "bf16", "f16"),
    "qwen2": ("qwen2", "qwen2", "bf16", "f16"),
    "qwen3": ("qwen2", "qwen2", "f16", "f16"),
    "stablelm-2": ("qwen2", "stablelm2", "f16", "f32"),
    "stablelm-2-12b": ("qwen2", "stablelm2", "f32", "f16"),
    "gemma2": ("spm-gemma", None, "bf16", "bf16"),
    "gemma3": ("spm-gemma", None, "f32", "f16"),
    "gemma3-vision": ("spm-gemma", None, "bf16", "f16"),
    "gemma4": ("gemma4", None, "f32", "f16"),
    "gemma4-vision": ("gemma4", None, "bf16", "bf16"),
    "gemma4-dense": ("gemma4", None, "bf16", "f16"),
    "phi3": ("spm", None, "bf16", "f16"),
    "phi3-window": ("cl100k", "dbrx", "f32", "f16"),
    "phi4-mini": ("cl100k", "dbrx", "bf16", "bf16"),
    "smollm3": ("llama3", "llama-bpe", "bf16", "f16"),
    "olmo2": ("cl100k", "dbrx", "f32", "f16"),
    "olmo3": ("cl100k", "dbrx", "f16", "bf16"),
    "granite": ("digits", "refact", "bf16", "bf16"),
    "bert-mean": ("wordpiece", "bert-bge", "f32", "f16"),
    "bert-cls": ("wordpiece", "bert-bge", "f32", "f32"),
    "lfm2": ("llama3", "lfm2", "bf16", "f16"),
    "lfm2-moe": ("llama3", "lfm2", "f32", "bf16"),
    "qwen3.5": ("qwen2", "qwen2", "bf16", "f16"),
    "qwen3.5-moe": ("qwen2", "qwen2", "f32", "bf16"),
    "olmoe": ("digits", "smollm", "bf16", "f16"),
    "granite-moe": ("digits", "refact", "f32", "f16"),
    "granite-moe-shared": ("digits", "refact", "bf16", "bf16"),
    "granite-hybrid": ("digits", "refact", "bf16", "f16"),
    "granite-hybrid-moe": ("digits", "refact", "f32", "bf16"),
    "granite-attention": ("digits", "refact", "bf16", "f16"),
    "qwen3-moe": ("qwen2", "qwen2", "bf16", "f16"),
    "qwen3-embedding": ("qwen2-ends", "qwen2", "bf16", "f16"),
    "embeddinggemma": ("spm-gemma", None, "f32", "f16"),
    "modernbert": ("modernbert", "modern-bert", "bf16", "f16"),
    "bert-rank": ("wordpiece", "bert-bge", "f32", "f16"),
    "qwen3-reranker": ("qwen2-answers", "qwen2", "bf16", "f16"),
    "qwen3-moe-stacked": ("qwen2", "qwen2", "f32", "f16"),
}
DTYPES = dict(f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)


def fnv(data):
    sum = 0xcbf29ce484222325
    for byte in data:
        sum = (sum ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return sum


def values(name, count, dtype):
    """24 random bits for f32, so that f16 and bf16 must round; 8 for the others, which hold them exactly. splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)) + np.uint64(fnv(name.encode()))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        x ^= x >> np.uint64(31)
    bits = 24 if dtype == "f32" else 8
    half = 1 << (bits - 1)
    return ((x >> np.uint64(64 - bits)).astype(np.int64) - half) / half


def bpe(folder, split, normalizer=None, specials=(), template=False, ends=None, ignore_merges=False, **config):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.normalizer = normalizer
    t.pre_tokenizer = split
    trainer = trainers.BpeTrainer(vocab_size=310, min_frequency=2, show_progress=False, special_tokens=[],
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    t.train_from_iterator(TEXT.splitlines(), trainer)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_tokens([AddedToken(s, special=not s.startswith("<tool"), normalized=False) for s in specials])
    if template or ends:
        first, last = f"{specials[0]} " if template else "", f" {ends}" if ends else ""
        pair = f"{first}$A{last} {'' if ends else first}$B:1{last}{':1' if ends else ''}"
        around = [token for token in (first.strip(), last.strip()) if token]
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single=f"{first}$A{last}", pair=pair, special_tokens=[(token, t.token_to_id(token)) for token in around])])
    save(folder, t, config)


def save(folder, tokenizer, config, keep_json=True):
    folder.mkdir(parents=True, exist_ok=True)
    if keep_json:
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")


def spm(folder, prefix, keep_model=True, **config):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        text = pathlib.Path(temporary) / "text"
        text.write_text(TEXT)
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(pathlib.Path(temporary) / "m"), model_type="bpe", vocab_size=380, byte_fallback=True,
            character_coverage=0.98, add_dummy_prefix=prefix, normalization_rule_name="identity", remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True, split_digits=True, minloglevel=2, num_threads=1)
        model = pathlib.Path(temporary) / "m.model"
        # The training options, file names among them, are no part of what a tokenizer does.
        from sentencepiece import sentencepiece_model_pb2 as proto
        m = proto.ModelProto()
        m.ParseFromString(model.read_bytes())
        kind = m.trainer_spec.model_type
        m.trainer_spec.Clear()
        m.trainer_spec.model_type = kind
        m.trainer_spec.byte_fallback = True
        model.write_bytes(m.SerializeToString())
        if keep_model:
            shutil.copy(model, folder / "tokenizer.model")
        pieces = [(p.piece, p.score, p.type) for p in m.pieces]
    vocabulary = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    merges = []
    for piece, score, kind in pieces:
        if kind == 1 and len(piece) > 1:
            halves = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocabulary and piece[i:] in vocabulary]
            merges += [(vocabulary[piece], vocabulary[a], vocabulary[b], a, b) for a, b in halves]
    t = Tokenizer(models.BPE(vocab=vocabulary, merges=[(a, b) for _, _, _, a, b in sorted(merges)], unk_token="<unk>", fuse_unk=True,
                             byte_fallback=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    t.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    steps = [decoders.Strip(" ", 1, 0)] if prefix else []
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *steps])
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    more = config.pop("more", [])
    t.add_tokens([AddedToken(s, special=s.startswith("<|"), normalized=False) for s in more])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    names = ["<unk>", "<s>", "</s>", *more]
    config["added_tokens_decoder"] = {str(t.token_to_id(s)): dict(content=s, special=s in names[:3] or s.startswith("<|")) for s in names}
    save(folder, t, dict(config, unk_token="<unk>", bos_token="<s>", eos_token="</s>"))


def gemma4(folder):
    """BPE over a whole text with U+2581 for spaces, bytes for what has no token, and every special token among the model's own."""
    space, newline = "▁", "\n"
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Replace(" ", space)
    t.pre_tokenizer = pre_tokenizers.Split(space, "merged_with_next")
    t.train_from_iterator(TEXT.splitlines(), trainers.BpeTrainer(vocab_size=600, min_frequency=2, show_progress=False, special_tokens=[]))
    model = json.loads(t.to_str())["model"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool_response>"]
    merges = [tuple(m) for m in model["merges"]]
    letters = sorted(set(model["vocab"]) - {a + b for a, b in merges})
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), newline, newline * 2, *letters]
    merges = merges[:400 - len(tokens)]
    tokens += [a + b for a, b in merges]
    t = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[(newline, newline), *merges], unk_token="<unk>",
                             fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", space)
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()])
    t.add_special_tokens(special)
    t.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B:1", special_tokens=[("<bos>", 2)])
    save(folder, t, dict(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>", extra_special_tokens=special[4:],
                         tokenizer_class="PreTrainedTokenizerFast", chat_template=TEMPLATE))


def make_tokenizers(out):
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])
    bpe(out / "llama3", split(LLAMA3), specials=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"], template=True, ignore_merges=True,
        bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", tokenizer_class="PreTrainedTokenizerFast", chat_template=TEMPLATE)
    bpe(out / "qwen2", split(QWEN2), normalizer=normalizers.NFC(), specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"],
        add_bos_token=False, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", tokenizer_class="PreTrainedTokenizerFast",
        chat_template=TEMPLATE)
    bpe(out / "qwen2-ends", split(QWEN2), normalizer=normalizers.NFC(), specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ends="<|endoftext|>", add_bos_token=False, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        tokenizer_class="PreTrainedTokenizerFast")
    bpe(out / "qwen2-answers", split(QWEN2), normalizer=normalizers.NFC(), specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "yes", "no", "|"],
        add_bos_token=False, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>", tokenizer_class="PreTrainedTokenizerFast")
    bpe(out / "modernbert", pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.NFC(), specials=["[CLS]", "[SEP]", "[PAD]", "[MASK]"],
        template=True, ends="[SEP]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]",
        tokenizer_class="PreTrainedTokenizerFast")
    bpe(out / "cl100k", split(CL100K), specials=["<|endoftext|>", "<|pad|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>",
        unk_token="<|endoftext|>", pad_token="<|pad|>", tokenizer_class="GPT2Tokenizer")
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe(out / "digits", digits, specials=["<|end_of_text|>", "<fim_prefix>"], bos_token="<|end_of_text|>", eos_token="<|end_of_text|>",
        tokenizer_class="PreTrainedTokenizerFast")
    (out / "digits/chat_template.jinja").write_text(TEMPLATE)
    spm(out / "spm", True, more=["<|end|>"], add_bos_token=True, add_eos_token=False, tokenizer_class="LlamaTokenizer")
    (out / "spm/chat_template.json").write_text(json.dumps(dict(chat_template=TEMPLATE)))
    spm(out / "spm-json", True, keep_model=False, add_bos_token=True, tokenizer_class="PreTrainedTokenizerFast")
    spm(out / "spm-gemma", False, more=["<|turn|>", "▁▁▁▁▁▁"], add_bos_token=True, tokenizer_class="GemmaTokenizer")
    gemma4(out / "gemma4")
    # Its trainer orders ties by chance.
    normalizer, pre = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for word, _ in pre.pre_tokenize_str(normalizer.normalize_str(TEXT))}
    letters = {letter for word in words for letter in word}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *sorted(letters | {w for w in words if len(w) < 5}), *sorted(f"##{end}" for end in letters | {"ing", "er", "ens"})]
    t = Tokenizer(models.WordPiece(vocab={token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    t.add_special_tokens(special)
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
                                                     special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    save(out / "wordpiece", t, dict(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
                                    do_lower_case=True, tokenizer_class="BertTokenizer"))


def make_folder(name, folder, out):
    """Fills `folder` as transformers would; returns the weights' names and shapes, and the small files beside them."""
    tokenizer, _, dtype, _ = CASES[name]
    kind, special = (EXTRA[name] if name in EXTRA else MODELS[name][:2])
    more = dict(bos_token_id=1, eos_token_id=2) if tokenizer.startswith("spm") else {}
    more |= dict(vocab_size_per_layer_input=400) if tokenizer == "gemma4" else {}
    config = getattr(transformers, f"{kind}Config")(**SHARED | special | dict(vocab_size=380 if tokenizer == "spm-json" else 400) | more)
    model = getattr(transformers, class_of(name, kind))(config)
    model.to(DTYPES[dtype]).save_pretrained(folder, save_original_format=not name.endswith("-stacked"))
    path = folder / "model.safetensors"
    sees = name.endswith("-vision")
    rename = (lambda n: n.replace("model.", "model.language_model.", 1)) if sees else (lambda n: n)
    shapes = {rename(n): list(t.shape) for n, t in sorted(load_file(path).items())}
    if sees:
        shapes["model.vision_tower.encoder.weight"] = [3, 5]
        text = json.loads((folder / "config.json").read_text())
        text.pop("architectures")
        (folder / "config.json").write_text(json.dumps(dict(
            architectures=[f"Gemma{name[5]}ForConditionalGeneration"], model_type=name[:6], text_config=text)))
    weights = {n: torch.tensor(values(n, int(np.prod(s)), dtype)).to(DTYPES[dtype]).reshape(s) for n, s in shapes.items()}
    save_file(weights, path, metadata=dict(format="pt"))
    for file in (out / tokenizer).iterdir():
        shutil.copy(file, folder)
    extra = modules(name) if name in POOLING else {}
    if kind == "GraniteMoeHybrid":
        published_layer_types(folder)
    if name == "qwen3":
        extra["generation_config.json"] = dict(do_sample=True, temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.05)
    else:
        (folder / "generation_config.json").unlink(missing_ok=True)
    for file, content in extra.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))
        if "in_features" in content:
            # Weights of a module are listed behind its folder's name.
            part = file.replace("config.json", "linear.weight")
            shapes[part] = [content["out_features"], content["in_features"]]
            weight = torch.tensor(values(part, int(np.prod(shapes[part])), dtype)).to(DTYPES[dtype]).reshape(shapes[part])
            save_file({"linear.weight": weight}, (folder / file).parent / "model.safetensors", metadata=dict(format="pt"))
    return shapes, extra


def describe(path):
    import gguf
    reader = gguf.GGUFReader(path)
    keys = {}
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):
            continue
        kind = field.types[-1].name.lower()
        if field.types[0] != gguf.GGUFValueType.ARRAY:
            keys[field.name] = [kind, field.contents()]
            continue
        if kind == "string":
            data = b"".join(len(s := bytes(field.parts[i])).to_bytes(8, "little") + s for i in field.data)
        else:
            data = b"".join(field.parts[i].tobytes() for i in field.data)
        keys[field.name] = [f"[{kind}]", len(field.data), f"{fnv(data):016x}"]
    tensors = {t.name: f"{t.tensor_type.name.lower()} {'x'.join(str(n) for n in t.shape)} {fnv(t.data.tobytes()):016x}" for t in reader.tensors}
    return keys, tensors


def convert(name, folder, llama_cpp, path):
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    converter = get_model_class(get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT))

    def modify_tensors(self, data_torch, name, bid):
        # StableLM's returns its stacked norms from a generator, where they are lost, instead of yielding them.
        rest = yield from converter.modify_tensors(self, data_torch, name, bid) or ()
        yield from rest or ()
    changed = type(converter.__name__, (converter,), dict(
        get_vocab_base_pre=lambda self, tokenizer: CASES[name][1], modify_tensors=modify_tensors, model_arch=converter.model_arch,
        no_mtp=True))
    ftype = dict(f32=gguf.LlamaFileType.ALL_F32, f16=gguf.LlamaFileType.MOSTLY_F16, bf16=gguf.LlamaFileType.MOSTLY_BF16)[CASES[name][3]]
    changed(folder, ftype, path, eager=True, sentence_transformers_dense_modules=name in DENSE).write()


def first_layer(shapes):
    """The shapes without those of further layers, where all layers are alike."""
    layer = lambda number: {n.replace(f".{number}.", ".0.", 1): s for n, s in shapes.items() if re.search(rf"layers?\.{number}\.", n)}
    numbers = {int(found[1]) for n in shapes if (found := re.search(r"layers?\.(\d+)\.", n))}
    alike = all(layer(number) == layer(0) for number in numbers)
    return {n: s for n, s in shapes.items() if not (alike and re.search(r"layers?\.[1-9]", n))}


def others(out, versions, made):
    """The cases in `out` that are not in `made`."""
    if not (out / "facts.json").exists():
        return {}
    facts = json.loads((out / "facts.json").read_text())
    cases = {case["name"]: case for case in facts.pop("cases") if case["name"] not in made}
    if cases and facts != versions:
        sys.exit(f"the other cases were made with {facts}, these with {versions}: make all of them")
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    parser.add_argument("--release", required=True, help="the release of llama-cpp-python that carries it")
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--only", nargs="*", default=list(CASES), help="make these and keep the others")
    parser.add_argument("--keep", type=pathlib.Path, help="leave the folders and files here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    versions = {p.__name__: p.__version__ for p in (torch, transformers, tokenizers, sentencepiece, np)} | {"llama-cpp-python": args.release}
    make_tokenizers(args.out)
    cases = others(args.out, versions, args.only)
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.only:
            folder = (args.keep or pathlib.Path(temporary)) / f"Tiny-{name}-v0.3-Instruct"
            folder.mkdir(parents=True, exist_ok=True)
            shapes, extra = make_folder(name, folder, args.out)
            path = folder.parent / f"{folder.name}.gguf"
            convert(name, folder, args.llama_cpp, path)
            keys, tensors = describe(path)
            tokenizer, _, dtype, kind = CASES[name]
            rest = sorted(f"{n} {t}" for n, t in tensors.items() if n.startswith("blk.") and not n.startswith("blk.0."))
            tensors = {n: t for n, t in tensors.items() if not n.startswith("blk.") or n.startswith("blk.0.")}
            tensors["..."] = f"{fnv(chr(10).join(rest).encode()):016x}"
            shapes = first_layer(shapes)
            cases[name] = dict(name=name, tokenizer=tokenizer, dtype=dtype, type=kind, config=json.loads((folder / "config.json").read_text()),
                               files=extra, weights=[f"{n} {'x'.join(map(str, s))}" for n, s in shapes.items()], keys=keys, tensors=tensors)
    lines = [json.dumps(cases[name], ensure_ascii=False, separators=(",", ":")) for name in CASES if name in cases]
    (args.out / "facts.json").write_text(json.dumps(versions)[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
