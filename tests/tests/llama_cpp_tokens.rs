//! Token ids against llama.cpp, for every pre-tokenizer that it knows, with vocabularies in which every cut shows. `cargo xtask peers` builds
//! llama.cpp's Python package and runs this with it.

use dram_core::Tokenizer;
use dram_core::gguf::File;
use dram_tests::expected::compare;
use dram_tests::gguf::Value;
use dram_tests::merges::{Writing, vocabulary};
use dram_tests::toy::splitmix;
use dram_tests::unigram;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TEXTS: &[&str] = &[
    "Hello, world! It's 12345 o'clock; don't you've we'll I'm he'd they're",
    "HELLO DON'T WE'LL you’re l’été 'S 'Re 'lL'ſ",
    "hello-world_foo.bar/baz\\qux a+b=c <tag attr=\"x\">y</tag> $5.00 10% #1 @me",
    "1 22 333 4444 55555 666666 1234567 12,345.67 ½ Ⅷ ٣٤٥٦٧ ²³ 1a2b3c 0x1F 3.14e-10",
    "  two   three    four\ttab\t\ttabs\n\nnewlines\r\n\r\ncrlf \n mixed  \n  \n end  ",
    "\u{a0}nbsp\u{a0}\u{a0} \u{2003}em\u{3000}wide\u{85}nel\u{200b}zw\u{feff}bom\u{2028}ls",
    "Жизнь прожить – не поле перейти. Съешь ЖЕ ещё 5 булок",
    "東京都は日本の首都です。カタカナとひらがな、漢字！２０２４年",
    "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。123個",
    "안녕하세요 세계 ㄱㄴㄷ 키스의 고유조건",
    "مرحبا بالعالم، كيف حالك؟ ۱۲۳ עִבְרִית שלום",
    "हिन्दी में पाठ। বাংলা ভাষা தமிழ் ไทยภาษา ភាសាខ្មែរ မြန်မာ",
    "e\u{301}te\u{301} a\u{30a} o\u{308}\u{323} ÀÉÎ àéî ÇA ça ǅungla ﬁne straße",
    "😀😁 👩\u{200d}👩\u{200d}👧 👍🏽🇺🇳 ❤\u{fe0f}text🚀rocket ☃!",
    "fn main() {\n    let x = vec![1, 2, 3];\n\tprintln!(\"{}\", x);\n}\n",
    "CamelCaseWord XMLHttpRequest iPhone eBay McDonald snake_case SCREAMING_CASE",
    "...!!??---===***~~~```||| (a)[b]{c} «d» “e” ‘f’ …—–",
    "a.b,c?d!e…f。g，h、i।j۔k،l|m(n)o",
    "I a m   s p a c e d\u{301} o\u{301} ut",
    "\n",
    "\n\n\n",
    " ",
    "    ",
    "\t",
    "\r\n",
    " \n",
    "\n ",
    "a",
    " a",
    "a ",
    "'",
    "''",
    " '",
    "''s",
    "🦙",
    " 🦙 ",
    "                                                                                                       x",
    "ⅣⅤ ǄǅǆǇ ªº ʰʱ ͡a ੴ ௧௨௩ ㊀ ① Ⓐ € £ ¥ ₿ ± × ÷ ≤ ∑ √ ∞ ← ↑ →",
    "\u{1}\u{2}ctrl\u{7f} \u{ad}soft \u{e000}private \u{10ffff} \u{378}unassigned",
    "Türkçe'nin İstanbul'da 3'te ATATÜRK'ün l'homme O'Neill rock'n'roll",
    "IMGIMGABZ <sentinel:12> <|im_start|>user",
    "Àb Éc aÀ bÉ 你好World世界 Hello你好 ЖurnaL 東Tokyo京",
    "/path/to/file\n//comment\n!\n/ a/\n\n.\r\n",
];

const PIECES: &[&str] = &[
    "the",
    "Hello",
    "don't",
    "WE'LL",
    "'s",
    "'RE",
    "'",
    "\"",
    " ",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    "1",
    "23",
    "4567",
    "½",
    "٣٤",
    "é",
    "e\u{301}",
    "É",
    "東京",
    "の",
    "привет",
    "МИР",
    "नमस्ते",
    "😀",
    "!",
    "?!",
    "...",
    "$",
    "_",
    "/",
    "’",
    "ß",
    "한국",
    "aB",
    "XYz",
    ",",
    "。",
];

const WITH_SPECIAL: [&str; 3] = [
    "<s>begin <s> space<|im_end|>\n<tool>x <tool>  y<mask> z",
    "two  <mask>w<mask>\n<|fim_pad|>       <s>",
    "<s><s>Hello<tool>",
];

fn texts() -> Vec<String> {
    let mut texts: Vec<String> = TEXTS.iter().map(|&text| text.into()).collect();
    for seed in 0..250 {
        let count = 1 + splitmix(seed, 0) % 12;
        let piece = |i| PIECES[(splitmix(seed, i) % PIECES.len() as u64) as usize];
        texts.push((1..=count).map(piece).collect());
    }
    texts
}

/// Runs peers/llama_tokens.py.
fn llama(files: &[PathBuf], texts: &[String]) -> Vec<Json> {
    let python = std::env::var_os("DRAM_PEERS_PYTHON")
        .expect("DRAM_PEERS_PYTHON names no Python with llama-cpp-python: run `cargo xtask peers`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/llama_tokens.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({ "files": files, "texts": texts }).to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(asked.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "llama_tokens.py: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names that llama.cpp's src/llama-vocab.cpp compares `tokenizer.ggml.pre` with, at the version that xtask pins.
const NAMES: &str = "a.x-4.0 afmoe bailingmoe bailingmoe2 bloom chameleon chatglm-bpe codeshell cohere2moe command-r dbrx deepseek-coder \
    deepseek-llm deepseek-r1-qwen deepseek-v3 default exaone exaone-moe exaone4 f2llmv2 falcon falcon-h1 falcon3 gemma4 gigachat glm4 glm5 \
    gpt-2 gpt-4o gpt3-finnish granite-docling granite-embed-multi-311m granite-embed-multi-97m grok-2 hunyuan hunyuan-dense hy_v4 jais jais-2 \
    jina-de jina-es jina-v1-en jina-v2-code jina-v2-de jina-v2-es jina-v5-nano joyai-llm kanana2 kimi-k2 kormo laguna lfm2 llada-moe llama-bpe \
    llama-v3 llama3 llama4 megrez mellum mellum2 midm-2.0 minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral poro-chat qwen2 \
    qwen35 refact roberta-bpe sarvam-moe seed-coder smaug-bpe smollm solar-open spark2_5 stablelm2 starcoder superbpe talkie tekken tiny_aya \
    trillion ufakzeka viking youtu";

/// Whether llama.cpp cuts this text otherwise than the model's own expression, which Dram follows: its engine knows no `\p{Lu}`, takes `\s`
/// and `\d` as ASCII's, and leaves text before a number together with its first digits.
fn engine_differs(name: &str, text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let asian = |c: char| matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3000}'..='\u{9fff}' | '\u{ac00}'..='\u{d7ff}');
    let strange = chars.iter().any(|&c| !c.is_ascii() && !asian(c));
    let camel = chars
        .windows(2)
        .any(|w| w[0].is_alphabetic() && !w[0].is_uppercase() && w[1].is_uppercase());
    let wide = |test: &dyn Fn(char) -> bool| chars.iter().any(|&c| !c.is_ascii() && test(c));
    let spaced = |number: &[char]| {
        number[0].is_whitespace() && number[1].is_whitespace() && number[2].is_numeric()
    };
    let glued = |pair: &[char]| pair[0].is_numeric() && pair[1].is_alphabetic();
    match name {
        "tekken"
        | "gpt-4o"
        | "llama4"
        | "kanana2"
        | "talkie"
        | "minimax-m2"
        | "granite-embed-multi-97m" => strange,
        "kimi-k2" | "youtu" => strange || camel,
        "tiny_aya" | "cohere2moe" => {
            strange || camel || chars.windows(3).any(spaced) || chars.windows(2).any(glued)
        }
        "afmoe" => chars.windows(3).any(spaced),
        "deepseek-coder" | "deepseek-llm" => wide(&char::is_whitespace),
        "superbpe" => wide(&char::is_numeric),
        _ => false,
    }
}

/// Dram's ids, and a sentence for each text of which llama.cpp makes others.
fn differences(name: &str, tokenizer: &Tokenizer, texts: &[String], theirs: &Json) -> Vec<String> {
    let pieces = |ids: &[u32]| {
        let piece = |&id: &u32| tokenizer.decode(&[id]);
        ids.iter().map(piece).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        for (key, special) in [("plain", false), ("special", true)] {
            let ours = tokenizer.encode(text, special);
            let theirs: Vec<u32> = serde_json::from_value(theirs[key][i].clone()).unwrap();
            if ours != theirs {
                let (ours, theirs) = (pieces(&ours), pieces(&theirs));
                found.push(format!(
                    "{name}, {key}: {text:?}\n  ours   {ours:?}\n  theirs {theirs:?}"
                ));
            }
        }
    }
    found
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn every_pre_tokenizer_cuts_as_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts();
    let names: Vec<&str> = NAMES.split_whitespace().collect();
    let special = (
        &["<s>", "<|im_end|>", "<|fim_pad|>", "<mask>"][..],
        &["<tool>", "    "][..],
    );
    let bytes = vocabulary(&texts, Writing::Bytes, special.0, special.1);
    let plain = vocabulary(&texts, Writing::Plain, special.0, special.1);
    let mut paths = Vec::new();
    for name in &names {
        let is_plain = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"].contains(name);
        let mut file = if is_plain { &plain } else { &bytes }.clone();
        file.set("tokenizer.ggml.pre", Value::Str((*name).into()));
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, file.bytes()).unwrap();
        paths.push(path);
    }
    let mut texts = texts;
    texts.extend(WITH_SPECIAL.map(String::from));
    let theirs = llama(&paths, &texts);
    let mut wrong = Vec::new();
    for ((name, path), theirs) in names.iter().zip(&paths).zip(&theirs) {
        let tokenizer = Tokenizer::from_gguf(&File::open(path).unwrap()).unwrap();
        let kept = |i: &usize| !engine_differs(name, &texts[*i]);
        let kept: Vec<usize> = (0..texts.len()).filter(kept).collect();
        let pick = |key: &str| {
            kept.iter()
                .map(|&i| theirs[key][i].clone())
                .collect::<Vec<_>>()
        };
        let theirs_kept = json!({ "plain": pick("plain"), "special": pick("special") });
        let texts: Vec<String> = kept.iter().map(|&i| texts[i].clone()).collect();
        assert!(texts.len() > 60, "{name}: {} texts", texts.len());
        wrong.extend(differences(name, &tokenizer, &texts, &theirs_kept));
        assert_eq!(
            (&theirs["add_bos"], &theirs["add_eos"]),
            (&json!(tokenizer.add_bos()), &json!(tokenizer.add_eos())),
            "{name}"
        );
        // Without a key, llama.cpp takes the eleventh token for the end of a text.
        let ends: Vec<u32> = serde_json::from_value(theirs["ends"].clone()).unwrap();
        let ends: Vec<u32> = ends.into_iter().filter(|&id| id != 11).collect();
        let ours: Vec<u32> = (0..tokenizer.len() as u32)
            .filter(|&id| tokenizer.is_end(id))
            .collect();
        assert_eq!(ours, ends, "{name}");
        println!("{name}: {} texts", texts.len());
    }
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn sentence_piece_cuts_as_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let mut texts = texts();
    let plain = vocabulary(
        &texts,
        Writing::Plain,
        &[
            "<s>",
            "<|end|>",
            "<unk>",
            "<|endoftext|>",
            "<mask>",
            "<|im_end|>",
            "<|fim_pad|>",
            "</s>",
        ],
        &["<tool>", "    "],
    );
    let (more, unigrams) = unigram::goldens();
    texts.extend(WITH_SPECIAL.map(String::from));
    texts.extend(more);
    texts.retain(|text| !text.is_empty());
    let mut files = Vec::new();
    for (name, key, value) in [
        ("spm", "general.name", Value::Str("a".into())),
        (
            "spm without prefix",
            "tokenizer.ggml.add_space_prefix",
            Value::Bool(false),
        ),
        (
            "spm, Phi-3",
            "general.name",
            Value::Str("Phi-3 mini".into()),
        ),
    ] {
        let mut file = plain.clone();
        file.set("tokenizer.ggml.model", Value::Str("llama".into()));
        file.set(key, value);
        files.push((name, file));
    }
    for (golden, name) in
        unigrams
            .into_iter()
            .zip(["unigram", "unigram, all spaces", "unigram, no prefix"])
    {
        files.push((name, golden.file));
    }
    let mut paths = Vec::new();
    for (name, file) in &files {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, file.bytes()).unwrap();
        paths.push(path);
    }
    let theirs = llama(&paths, &texts);
    let mut wrong = Vec::new();
    for (((name, _), path), theirs) in files.iter().zip(&paths).zip(&theirs) {
        let tokenizer = Tokenizer::from_gguf(&File::open(path).unwrap()).unwrap();
        wrong.extend(differences(name, &tokenizer, &texts, theirs));
        let around: Vec<u32> = serde_json::from_value(theirs["around"].clone()).unwrap();
        assert_eq!(tokenizer.encode_with_ends("a", true), around, "{name}");
        println!("{name}: {} texts", texts.len());
    }
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

/// Every vocabulary with expected ids in llama.cpp's source, of which there are fifteen.
#[test]
#[ignore = "cargo xtask peers"]
fn vocabularies_of_the_source_give_their_expected_ids() {
    let source = std::env::var_os("DRAM_PEERS_SOURCE")
        .expect("DRAM_PEERS_SOURCE names no source of llama.cpp: run `cargo xtask peers`");
    let folder = Path::new(&source).join("models");
    let (mut vocabularies, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "inp") {
            continue;
        }
        let path = path.with_extension(""); // .gguf
        let name = path.file_stem().unwrap().to_string_lossy();
        let compared = compare(&path, !name.contains("bert"));
        println!("{name}: {} texts", compared.texts);
        vocabularies += 1;
        wrong.extend(compared.wrong.iter().map(|text| format!("{name}: {text}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(vocabularies >= 15, "{vocabularies} vocabularies");
}

/// The numbers that Dram writes into `general.file_type`, beside those of llama.cpp's llama.h.
#[test]
#[ignore = "cargo xtask peers"]
fn file_types_are_those_of_the_source() {
    let source = std::env::var_os("DRAM_PEERS_SOURCE")
        .expect("DRAM_PEERS_SOURCE names no source of llama.cpp: run `cargo xtask peers`");
    let header = Path::new(&source).join("include/llama.h");
    let header = std::fs::read_to_string(header).unwrap();
    for (ours, theirs, number) in dram_files::FILE_TYPES {
        let line = header.lines().find_map(|line| {
            let line = line.trim().strip_prefix("LLAMA_FTYPE_")?;
            let (name, rest) = line.split_once('=')?;
            (name.trim() == theirs).then(|| rest.split(',').next().unwrap_or_default().trim())
        });
        assert_eq!(line, Some(&*number.to_string()), "{ours}: {theirs}");
    }
}
