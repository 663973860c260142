"""Writes splits.txt: where the pre-tokenizers cut awkward texts, by the Python package `regex` (2026.11.19).

The expressions are those of the models' tokenizer.json files, in the order in which each cuts what the one before it left (Hugging Face's
`Sequence` of isolated `Split`s). With a folder as argument it also writes texts and lengths for a longer, random comparison.

    pip install regex==2026.11.19
    python make_splits.py
"""

import random
import sys
import unicodedata
from pathlib import Path

import regex

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def llama3(numbers, letters=r"\p{L}", others=r"\p{L}\p{N}"):
    return (
        CONTRACTIONS
        + rf"|[^\r\n\p{{L}}\p{{N}}]?[{letters}]+|{numbers}| ?[^\s{others}]+[\r\n]*"
        + TAIL
    )


def cased(contractions, numbers):
    upper, lower = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
    first = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{first}[{upper}]*[{lower}]+{contractions}|{first}[{upper}]+[{lower}]*{contractions}"
        rf"|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*" + TAIL
    )


# Hugging Face's `Punctuation`: ASCII's and Unicode's.
PUNCTUATION = r"[\p{P}$+<=>^`|~]"
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    + TAIL
)
SENTENCES = r" ?[^(\s|.,!?…。，、।۔،)]+"
# The cased letters that deepseek-llm's expression lists.
DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d"
    "\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    "\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134"
    "\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)

FAMILIES = {
    "default": [r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "starcoder": [r"\p{N}", GPT2],
    "falcon": [PUNCTUATION + "+", GPT2, "[0-9][0-9][0-9]"],
    "llama-bpe": [llama3(r"\p{N}{1,3}")],
    "minicpm5": [r"\p{N}{1,3}", llama3(r"\p{N}+")],
    "jais-2": [
        llama3(r"\p{N}{1,3}").removesuffix(r"|\s+(?!\S)|\s+")
        + "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4))
        + r"|\s{1,2}(?!\S)|\s{1}"
    ],
    "qwen2": [llama3(r"\p{N}")],
    "qwen35": [llama3(r"\p{N}", r"\p{L}\p{M}", r"\p{L}\p{M}\p{N}")],
    "laguna": [r"[^\n]+|[\n]+", llama3(r"\p{N}")],
    "ufakzeka": [llama3(r"\p{N}").removeprefix(CONTRACTIONS + "|")],
    "bailingmoe": [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "seed-coder": [
        CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+"
        + TAIL
    ],
    "gpt-4o": [cased(CONTRACTIONS + "?", r"\p{N}{1,3}")],
    "tiny_aya": [
        # `\b` as Oniguruma, which Hugging Face uses, sees it: every number belongs to a word, a joiner does not.
        r"\d{1,3}(?=(?:\d{3})*(?![\p{Alphabetic}\p{N}\p{M}\p{Pc}]))",
        cased(CONTRACTIONS + "?", r"\p{N}{1,3}"),
    ],
    "kimi-k2": [
        # `&&` as in Rust; here V1 of `regex`.
        r"(?V1)[\p{Han}]+|"
        + cased(CONTRACTIONS + "?", r"\p{N}{1,3}")
        .replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]")
        .replace(r"[\r\n/]*", r"[\r\n]*")
    ],
    "exaone-moe": [
        CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "spark2_5": [
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        DEEPSEEK3.removesuffix(r"[\r\n]*" + TAIL) + r"|[\r\n]|\s+(?!\S)|\s+",
        r"\p{N}",
    ],
    "tekken": [cased("", r"\p{N}")],
    "youtu": [
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
        cased(CONTRACTIONS + "?", r"\p{N}"),
    ],
    "deepseek-llm": [
        r"[\r\n]",
        rf"\s?[{DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        "[一-龥ࠀ-一가-퟿]+",
        r"\p{N}+",
    ],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
    "afmoe": [
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
        "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
        DEEPSEEK3,
    ],
    "bloom": [SENTENCES],
    "viking": [SENTENCES, r"\p{N}"],
    "chameleon": [
        "<sentinel:[0-9]+>",
        "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        r"\p{N}",
        PUNCTUATION,
        GPT2,
    ],
    "gemma4": [r"[^\n]+|[\n]+"],
}

TEXTS = [
    "Hello  world's 1234 x!?\n\n y",
    "HE'LL pay $12,345.67.\r\n\r\nOK, 'twas  WE'Ve he'd I'M 'S ''s 'ſ",
    "\tx  \t y \n  b   \n\n\n c   ",
    "    if (a[0] != b) {\n\t\treturn x_1 + 2**10; // done\n    }\n",
    "https://example.org/a/b?c=d&e=f#g\n/usr/bin//\n",
    "iPhone McDonald HTTPServer ÉCOLE ǅungla ǲ naïve e\u0301te\u0301 A\u030A'll",
    "१२३ ٣٤٥٦ ½ ²³ Ⅷ ⅷ ①② 1234567 12ab 1_000_000 3.14159",
    "नमस्ते दुनिया। ไทยแลนด์ สวัสดี កាន់តែពិសេស",
    "東京タワー、我想在apple工作1314151天～ 한국어 ㄱㄴ ㄅㄆ “引用”——…",
    "Привет, мир! Γειά σου Κόσμε ʰʷ ªº ჀႠ Ꭰ",
    "😶\u200d🌫️ 👩\u200d👧 🇩🇪 ✅✅ ™ © a\u200bb \ufeff \u00ad \u2028\u2029",
    "\u00a0x\u3000 y\u2003\u2003z\u0085\u0085 \u000b\f\u001c w",
    "IMGIMGABCZ <sentinel:12> ``` ~~~ <<>> $$ ^^ || ++ ===",
    "لغة ۔ ، عربى؟ עִבְרִית 'll",
]


def cut(text, expressions):
    pieces = [text]
    for expression in expressions:
        after = []
        for piece in pieces:
            at = 0
            for match in regex.finditer(expression, piece):
                if match.start() > at:
                    after.append(piece[at : match.start()])
                if match.group():
                    after.append(match.group())
                at = match.end()
            if at < len(piece):
                after.append(piece[at:])
        pieces = after
    assert "".join(pieces) == text
    return pieces


def lengths(text, expressions):
    return " ".join(str(len(piece)) for piece in cut(text, expressions))


def random_texts(count, rng):
    """Code points of all categories (as this Python knows them: Unicode 14, which later versions agree with), and pieces of real text."""
    by_category = {}
    for code in range(0x110000):
        by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    del by_category["Cs"], by_category["Cn"]
    pieces = [piece for text in TEXTS for piece in regex.findall(r"\w+|\s+|[^\w\s]+|.", text)]
    pieces += list(" \n\r\t'/.,!?-_sStTdDmMlLrRvVeE019") + ["  ", "\r\n", "'ll", "'RE", "'s"]
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 24)):
            kind = rng.random()
            if kind < 0.6:
                parts.append(rng.choice(pieces))
            elif kind < 0.8:
                parts.append(rng.choice(by_category[rng.choice(sorted(by_category))]))
            else:
                parts.append(rng.choice(" \n'1aAé中") * rng.randint(1, 9))
        yield "".join(parts)


def main():
    here = Path(__file__).parent
    escape = str.maketrans({"\n": r"\n", "\r": r"\r"})
    lines = [text.translate(escape) for text in TEXTS]
    for name, expressions in FAMILIES.items():
        lines.append(name)
        lines += [lengths(text, expressions) for text in TEXTS]
    (here / "splits.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        texts = list(random_texts(4000, random.Random(7)))
        (folder / "texts").write_bytes(b"\xff".join(text.encode() for text in texts))
        with open(folder / "lengths", "w") as out:
            for name, expressions in FAMILIES.items():
                for text in texts:
                    print(name, lengths(text, expressions), file=out)
        print(*FAMILIES)


main()
