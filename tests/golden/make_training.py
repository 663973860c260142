#!/usr/bin/env python3
"""Make tests/golden/training: loss and gradients of the families' tiny models by PyTorch, for the training decoder.

    make_training.py    in an environment with torch and transformers

The models are those of make_families.py, whose GGUF files hold the weights exactly, and two that are kept here as folders. The loss is the mean cross-entropy of each next token. Kept are

NAME/          config.json and weights in f16, which hold them exactly
training.tsv   the versions used, then for each case: its name, file, token ids, and the names of its tensors in Hugging Face's order
training.f32   little-endian f32, case after case: the loss, then for each tensor the norm of its gradient and up to SAMPLES values of it, evenly spread
"""
import copy
import pathlib
from importlib.metadata import version

import numpy as np
import torch

from make_families import FULL, LOCAL, MODELS, VOCABULARY, build, rope

MODELS["llama-biased"] = ("Llama", dict(rms_norm_eps=1e-5, attention_bias=True, mlp_bias=True, rope_parameters=rope(1e4)), 1)
MODELS["olmo3-default"] = ("Olmo3", dict(num_hidden_layers=4, intermediate_size=32, rms_norm_eps=1e-6, sliding_window=18, rope_parameters={
    FULL: rope(1e4), LOCAL: rope(1e4)}), 1)

HERE = pathlib.Path(__file__).resolve().parent / "training"
TOKENS = 48
SAMPLES = 24
CASES = ["llama3", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "gemma2", "gemma3", "stablelm-2", "stablelm-2-12b", "phi3-window"]
FOLDERS = ["llama-biased", "olmo3-default"]


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    lines = ["# made by make_training.py with " + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))]
    values = []
    for name in CASES + FOLDERS:
        model = build(name)
        if name in FOLDERS:
            copy.deepcopy(model).half().save_pretrained(HERE / name)
            (HERE / name / "generation_config.json").unlink(missing_ok=True)
            for weight in model.parameters():  # not the rotation's frequencies
                weight.data = weight.data.half().float()
        ids = np.random.default_rng(len(name) + 100).integers(0, VOCABULARY, TOKENS).tolist()
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].float()
        loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]))
        loss.backward()
        values.append([loss.item()])
        names = []
        for key, weight in model.named_parameters():
            gradient = weight.grad.flatten().double().numpy()
            count = min(SAMPLES, gradient.size)
            names.append(key)
            values.append([np.linalg.norm(gradient), *gradient[[i * gradient.size // count for i in range(count)]]])
        file = f"training/{name}" if name in FOLDERS else f"families/{name}.gguf"
        lines.append("\t".join([name, file, " ".join(map(str, ids)), " ".join(names)]))
        print(f"{name:<16} loss {loss.item():.4f}, {len(names)} tensors")
    (HERE / "training.tsv").write_text("\n".join(lines) + "\n")
    np.concatenate([np.asarray(v, "<f4") for v in values]).tofile(HERE / "training.f32")


if __name__ == "__main__":
    main()
