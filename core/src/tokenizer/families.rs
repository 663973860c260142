//! The known pre-tokenizers, by the names that `tokenizer.ggml.pre` has for them.
//!
//! The names are llama.cpp's (`src/llama-vocab.cpp`), and so is what else follows from them. The expressions are those of the models' own
//! `tokenizer.json`, with which they were trained; llama.cpp's differ where its regex engine knows no `\p{Lu}` or `(?i:…)`. Where there are
//! several, each cuts the pieces that the one before it left, at its matches and between them.

/// One way of cutting.
pub(super) struct Family {
    /// The names in `tokenizer.ggml.pre`.
    pub(super) names: &'static [&'static str],
    pub(super) cuts: &'static [Cut],
    /// A word that is a token is taken whole, whatever the merges say.
    pub(super) whole_words: bool,
    /// Whether prompts begin with BOS where the file does not say.
    pub(super) adds_bos: bool,
    /// Tokens are written as they are, with U+2581 for a space, instead of in GPT-2's byte alphabet.
    pub(super) plain: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Cut {
    At(&'static str),
    /// `\s+$`, which as an expression would look at each space of a run anew.
    SpaceAtEnd,
    /// `(?=(\d{3})+(?!\d))`: before groups of three, counted from the right; what is left over stays with what stands before.
    BeforeThrees,
    /// Numbers in groups of three from the right; of two kinds.
    ThreesFromRight(Numbers),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Numbers {
    /// Runs of `\p{N}`.
    All,
    /// `\d{1,3}(?=(?:\d{3})*\b)`: runs of `\d` that end a word.
    AtWordEnd,
}

const GPT2: Cut =
    Cut::At(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+");
const DIGIT: Cut = Cut::At(r"\p{N}");
const DIGITS: Cut = Cut::At(r"\p{N}+");
const THREE_DIGITS: Cut = Cut::At(r"\p{N}{1,3}");
const THREE_ASCII_DIGITS: Cut = Cut::At("[0-9][0-9][0-9]");
const LINE_BREAK: Cut = Cut::At(r"[\r\n]");
const LINES: Cut = Cut::At(r"[^\n]+|[\n]+");
const CJK: Cut = Cut::At("[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+");
const HAN_KANA: Cut = Cut::At("[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+");
const SENTENCES: Cut =
    Cut::At(" ?[^(\\s|.,!?\u{2026}\u{3002}\u{ff0c}\u{3001}\u{964}\u{6d4}\u{60c})]+");
const LLAMA3: Cut = Cut::At(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: Cut = Cut::At(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const GPT4O: Cut = Cut::At(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const DEEPSEEK3: Cut = Cut::At(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
);

const PLAIN: Family = Family {
    names: &[],
    cuts: &[],
    whole_words: false,
    adds_bos: false,
    plain: false,
};

/// The known ones.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        names: &["default"],
        cuts: &[
            Cut::At(r"[\p{P}$+<=>^~|]+"),
            GPT2,
            DIGITS,
            THREE_ASCII_DIGITS,
        ],
        ..PLAIN
    },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        cuts: &[GPT2],
        ..PLAIN
    },
    Family {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        cuts: &[DIGIT, GPT2],
        ..PLAIN
    },
    Family {
        names: &["falcon"],
        cuts: &[Cut::At(r"[\p{P}$+<=>^~|`]+"), GPT2, THREE_ASCII_DIGITS],
        ..PLAIN
    },
    Family {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        cuts: &[LLAMA3],
        whole_words: true,
        adds_bos: true,
        ..PLAIN
    },
    Family {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        cuts: &[LLAMA3],
        ..PLAIN
    },
    Family {
        names: &["glm4", "glm5"],
        cuts: &[LLAMA3],
        whole_words: true,
        ..PLAIN
    },
    Family {
        names: &["minicpm5"],
        cuts: &[
            THREE_DIGITS,
            Cut::At(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
        ],
        whole_words: true,
        ..PLAIN
    },
    Family {
        names: &["jais-2"],
        cuts: &[Cut::At(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        )],
        ..PLAIN
    },
    Family {
        names: &[
            "qwen2",
            "stablelm2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        cuts: &[QWEN2],
        ..PLAIN
    },
    Family {
        names: &["qwen35"],
        cuts: &[Cut::At(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Family {
        names: &["laguna"],
        cuts: &[LINES, QWEN2],
        ..PLAIN
    },
    Family {
        names: &["ufakzeka"],
        cuts: &[Cut::At(
            r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Family {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        cuts: &[Cut::At(
            r"(?i:'s|'d|'m|'t|'ll|'ve|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Family {
        names: &["seed-coder"],
        cuts: &[Cut::At(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Family {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        cuts: &[GPT4O],
        ..PLAIN
    },
    Family {
        names: &["granite-embed-multi-97m"],
        cuts: &[GPT4O],
        whole_words: true,
        ..PLAIN
    },
    Family {
        names: &["tiny_aya", "cohere2moe"],
        cuts: &[Cut::ThreesFromRight(Numbers::AtWordEnd), GPT4O],
        ..PLAIN
    },
    Family {
        names: &["kimi-k2"],
        cuts: &[Cut::At(
            r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Family {
        names: &["exaone-moe"],
        cuts: &[Cut::At(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Family {
        names: &["superbpe"],
        cuts: &[DIGITS, Cut::BeforeThrees],
        ..PLAIN
    },
    Family {
        names: &["tekken"],
        cuts: &[Cut::At(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        whole_words: true,
        adds_bos: true,
        ..PLAIN
    },
    Family {
        names: &["youtu"],
        cuts: &[
            Cut::At(
                "[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+|[\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            ),
            Cut::At(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
        ],
        whole_words: true,
        ..PLAIN
    },
    Family {
        names: &["deepseek-llm"],
        cuts: &[
            LINE_BREAK,
            Cut::At(
                "\\s?[A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+",
            ),
            Cut::At(
                "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
            ),
            Cut::SpaceAtEnd,
            CJK,
            DIGITS,
        ],
        ..PLAIN
    },
    Family {
        names: &["deepseek-coder"],
        cuts: &[
            LINE_BREAK,
            Cut::At(r"\s?\p{L}+"),
            Cut::At(r"\s?\p{P}+"),
            CJK,
            DIGIT,
        ],
        ..PLAIN
    },
    Family {
        names: &["spark2_5"],
        cuts: &[
            THREE_DIGITS,
            HAN_KANA,
            Cut::At(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##,
            ),
            DIGIT,
        ],
        ..PLAIN
    },
    Family {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        cuts: &[THREE_DIGITS, HAN_KANA, DEEPSEEK3],
        ..PLAIN
    },
    Family {
        names: &["afmoe"],
        cuts: &[
            Cut::ThreesFromRight(Numbers::All),
            Cut::At(
                "[\u{4e00}-\u{9fff}\u{3400}-\u{4dbf}\u{8c48}-\u{faff}\u{3040}-\u{309f}\u{30a0}-\u{30ff}\u{ff65}-\u{ff9f}\u{2f00}-\u{2fdf}\u{e40}-\u{e7f}\u{e80}-\u{eff}\u{1780}-\u{17ff}\u{1000}-\u{109f}\u{aa60}-\u{aa7f}\u{a9e0}-\u{a9ff}\u{ac00}-\u{d7af}\u{1100}-\u{11ff}]+",
            ),
            DEEPSEEK3,
        ],
        ..PLAIN
    },
    Family {
        names: &["bloom", "poro-chat", "gpt3-finnish"],
        cuts: &[SENTENCES],
        ..PLAIN
    },
    Family {
        names: &["viking"],
        cuts: &[SENTENCES, DIGIT],
        ..PLAIN
    },
    Family {
        names: &["chameleon"],
        cuts: &[
            Cut::At("<sentinel:[0-9]+>"),
            Cut::At("IMGIMG[A-I]{1,4}Z"),
            Cut::At(r"[\t\n]|    |  "),
            DIGIT,
            Cut::At(r"[\p{P}!-/:-@\[-`{-~]"),
            GPT2,
        ],
        adds_bos: true,
        ..PLAIN
    },
    Family {
        names: &["gemma4", "granite-embed-multi-311m"],
        cuts: &[LINES],
        adds_bos: true,
        plain: true,
        ..PLAIN
    },
    Family {
        names: &["sarvam-moe"],
        cuts: &[LINES],
        plain: true,
        ..PLAIN
    },
];
