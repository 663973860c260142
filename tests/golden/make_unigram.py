"""Writes unigram.json: a small vocabulary of SentencePiece's unigram kind with rules for characters, and what SentencePiece makes of texts.

    pip install sentencepiece==0.2.3
    python make_unigram.py
"""

import json
import tempfile
from pathlib import Path

import sentencepiece

CORPUS = """
A dram is the small measure that is left after distillation. What you trained is what runs on the phone.
The weights are read from the map; nothing is copied, and nothing grows while the answer is written.
Set an alarm for a quarter past seven tomorrow morning. Play some quiet music in the kitchen, please!
Le café est déjà fermé; l'été, la mer était calme. Où est la bibliothèque? Ça va, ça vient.
Der Fluß fließt langsam durch die Täler. Übermorgen fährt der Zug um zehn Uhr ab.
Привет, как дела? Поезд отправляется завтра утром. Съешь ещё этих мягких булок.
東京は日本の首都です。今日は天気がいいですね。明日も晴れるでしょう。
Numbers: 1 22 333 4444 12345, 3.14 and 1,000,000; 50% of $20.00 is $10.00.
"""
# [what is written, what stands for it]: widths, ligatures, marks, spaces, what vanishes, one that is the beginning of another.
RULES = {
    "\u00a0": " ", "\u3000": " ", "\u2003": " ", "\t": " ", "\n": " ", "\r": " ", "\u200b": "", "\u00ad": "", "\ufeff": "", "ﬁ": "fi", "ﬂ": "fl",
    "Ａ": "A", "Ｂ": "B", "ａ": "a", "１": "1", "２": "2", "！": "!", "，": ",", "e\u0301": "é", "a\u0300": "à", "c\u0327": "ç",
    "u\u0308": "ü", "…": "...", "½": "1/2", "№": "No", "™": "TM", "カ\u3099": "ガ", "ｶ": "カ", "ｶﾞ": "ガ", "㎏": "kg",
    "\ufdfa": "صلى الله عليه وسلم",
}
TEXTS = [
    "Hello, world!", "The café is closed.", " leading and  double   spaces ", "trailing ", "   ", "a", "", "\n\t", "line\nbreak\r\n\nand\ttab",
    "ﬁne ﬂow Ａｂ１２！", "e\u0301te\u0301 voila\u0300 c\u0327a u\u0308ber e\u0300", "½ №5 ™ … ㎏", "ｶﾞｶ カ\u3099 カ", "soft\u00adhyphen zero\u200bwidth \ufeffbom",
    "nbsp\u00a0here\u3000wide\u2003em", "東京は日本の首都です。", "今日 は 天気", "Привет, как дела?", "Съешь ещё", "🦙 and 😀😀 emoji☃", "𝔘𝔫𝔨 𝔫𝔬𝔴",
    "xyzzyq qqq zzz", "1234567890 3.14159", "$100.00%", "\u2581already \u2581\u2581marked", "don't you've", "\ufdfa", "the " * 40, "z" * 60, "ة" * 9 + "x",
    "What you trained is what runs on the phone.", "</s> is text", "über fährt Fluß", "e\u0301\u200b\u00ad \u00a0\n x",
]


def train(folder, **options):
    (folder / "corpus.txt").write_text(CORPUS * 4 + (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text())
    lines = ["\t".join(" ".join(f"{ord(c):X}" for c in text) for text in rule) for rule in sorted(RULES.items())]
    (folder / "rules.tsv").write_text("\n".join(lines) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "m"), vocab_size=500, model_type="unigram", character_coverage=0.998,
        normalization_rule_tsv=str(folder / "rules.tsv"), user_defined_symbols=["<tool>"], num_threads=1, minloglevel=2, **options)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto.FromString((folder / "m.model").read_bytes())
    return {
        "adds_space": proto.normalizer_spec.add_dummy_prefix, "merges_spaces": proto.normalizer_spec.remove_extra_whitespaces,
        "charsmap": proto.normalizer_spec.precompiled_charsmap.hex(),
        "tokens": [piece.piece for piece in proto.pieces], "scores": [piece.score for piece in proto.pieces], "types": [piece.type for piece in proto.pieces],
        "ids": [model.encode(text) for text in TEXTS],
    }


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        models = [train(folder), train(folder, remove_extra_whitespaces=False), train(folder, add_dummy_prefix=False, remove_extra_whitespaces=False)]
    made = {"sentencepiece": sentencepiece.__version__, "texts": TEXTS, "models": models}
    (Path(__file__).parent / "unigram.json").write_text(json.dumps(made, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
