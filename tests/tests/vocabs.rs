//! Token ids of known vocabularies, as their models' own reference tokenizers give them. The files lie in `../shared/vocabs` beside the
//! repository and are not part of it: where they are absent the test says so, and fails if `DRAM_REQUIRE_SHARED` is set.

use dram_core::Tokenizer;
use dram_core::gguf::File;
use dram_tests::expected::compare;
use std::path::Path;
use std::time::Instant;

/// Vocabularies whose every expected id must come out.
const NAMES: [&str; 6] = [
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "llama-spm",
    "phi-3",
    "bert-bge",
];

#[test]
fn known_vocabularies_give_their_reference_ids() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vocabs");
    if !folder.is_dir() {
        assert!(
            std::env::var_os("DRAM_REQUIRE_SHARED").is_none(),
            "expected vocabularies in {}",
            folder.display()
        );
        println!("not run: no vocabularies in {}", folder.display());
        return;
    }
    for name in NAMES {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        // BERT's normalizer loses case, accents and white space.
        let compared = compare(&path, name != "bert-bge");
        assert!(compared.wrong.is_empty(), "{name}: {:#?}", compared.wrong);
        println!("{name}: {} texts", compared.texts);
    }
}

/// Ten megabytes of mixed text through every vocabulary: what comes back, and in what time.
#[test]
fn ten_megabytes_come_back() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let (plays, vocabs) = (
        shared.join("data/tinyshakespeare.txt"),
        shared.join("vocabs"),
    );
    if !(plays.is_file() && vocabs.is_dir()) {
        assert!(
            std::env::var_os("DRAM_REQUIRE_SHARED").is_none(),
            "expected {} and {}",
            plays.display(),
            vocabs.display()
        );
        println!(
            "not run: no text or no vocabularies in {}",
            shared.display()
        );
        return;
    }
    let text = mixed(std::fs::read_to_string(plays).unwrap(), 10 << 20);
    for name in NAMES {
        let path = vocabs.join(format!("ggml-vocab-{name}.gguf"));
        let tokenizer = Tokenizer::from_gguf(&File::open(path).unwrap()).unwrap();
        let start = Instant::now();
        let ids = tokenizer.encode(&text, false);
        let encoded = start.elapsed();
        let back = tokenizer.decode(&ids);
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name}: {} tokens, {:.1} MB/s in, {seconds:.1} s both ways",
            ids.len(),
            text.len() as f64 / 1e6 / encoded.as_secs_f64()
        );
        // Two seconds; what is quadratic in a long run of one character takes minutes.
        assert!(seconds < 60.0, "{name}: {seconds} s");
        if name == "bert-bge" {
            // WordPiece keeps neither case, accents nor white space, and unknown words are [UNK]: what comes back is the same to it.
            let again = tokenizer.encode(&back, true);
            assert_eq!(again.len(), ids.len());
            assert!(again == ids, "{name}: other tokens the second time");
        } else {
            let differs = back.bytes().zip(text.bytes()).position(|(a, b)| a != b);
            assert!(back == text, "{name}: differs at byte {differs:?}");
        }
    }
}

/// `text` and more of other kinds, mixed line by line up to `bytes`: scripts, emoji, code, any code points at all, and runs of one character.
fn mixed(mut text: String, bytes: usize) -> String {
    const SCRIPTS: [&str; 12] = [
        "Съешь же ещё этих мягких французских булок, да выпей чаю",
        "いろはにほへと ちりぬるを 色は匂へど散りぬるを、東京都。",
        "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。",
        "키스의 고유조건은 입술끼리 만나야 하고",
        "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
        "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה",
        "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
        "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
        "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
        "Pchnąć w tę łódź jeża lub ośm skrzyń fig; Zażółć gęślą jaźń",
        "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது எங்கும் காணோம்",
        "e\u{301}a\u{30a}o\u{308} \u{1d4d7}\u{1d4ee} ﬁ ½ Ⅷ ™ \u{feff}\u{200b}\u{2028}",
    ];
    const EMOJI: [&str; 6] = [
        "\u{1f600}",
        "👩\u{200d}👩\u{200d}👧\u{200d}👦",
        "🇺🇳🇯🇵",
        "👍🏽",
        "❤\u{fe0f}\u{200d}🔥",
        "☃",
    ];
    const CODE: [&str; 6] = [
        "    for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; } // Σ",
        "\t\tif err != nil {\r\n\t\t\treturn fmt.Errorf(\"%w: %s\", err, name)\r\n\t\t}",
        "let x: Vec<_> = text.split(\"\\n\").filter(|l| !l.is_empty()).collect();",
        "SELECT * FROM \"t\" WHERE id IN (1, 22, 333, 4444) AND name LIKE '%o''brien%';",
        "{\"a\": [1.5e-3, null, true], \"\\u00e9\": \"https://example.org/?q=1&r=%20\"}",
        "def f(x, *, y=None):\n        return {**x, 'y': y}  # TODO",
    ];
    let mut rng = dram_files::Rng::new(&[10]);
    while text.len() < bytes {
        match rng.below(40) {
            0 => {
                let one = *rng.pick(&[" ", "\n", "a", "=", "\u{1f600}", "的", "0"]);
                text.push_str(&one.repeat(1 + rng.below(4000)));
            }
            1..=4 => (0..1 + rng.below(60)).for_each(|_| text.push(any(&mut rng))),
            5..=9 => (0..1 + rng.below(8)).for_each(|_| text.push_str(rng.pick::<&str>(&EMOJI))),
            10..=19 => text.push_str(rng.pick::<&str>(&CODE)),
            20..=24 => text.push_str(&awkward(&mut rng)),
            _ => text.push_str(rng.pick::<&str>(&SCRIPTS)),
        }
        text.push_str(rng.pick::<&str>(&["\n", " ", "", "\n\n"]));
    }
    for one in ["a", " ", "\n"] {
        text.push_str(&one.repeat(1 << 18));
    }
    text
}

/// Any code point but SentencePiece's mark for a space, which comes back as a space.
fn any(rng: &mut dram_files::Rng) -> char {
    loop {
        let most = *rng.pick(&[0x80, 0x800, 0x1_0000, 0x11_0000]);
        match char::from_u32(rng.below(most) as u32) {
            Some(c) if c != '\u{2581}' => return c,
            _ => {}
        }
    }
}

/// Letters, digits, marks, spaces of all kinds and line breaks in no sensible order.
fn awkward(rng: &mut dram_files::Rng) -> String {
    const PIECES: [&str; 44] = [
        "the",
        "Hello",
        "don't",
        "WE'LL",
        "'s",
        "'S",
        "'re",
        "'",
        "''",
        "\"",
        " ",
        " ",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{2003}",
        "\u{3000}",
        "\u{85}",
        "1",
        "23",
        "4567",
        "Ⅷ",
        "½",
        "٣٤",
        "é",
        "e\u{301}",
        "ß",
        "東京",
        "привет",
        "नमस्ते",
        "\u{1f600}",
        "👩\u{200d}👧",
        "!",
        "?!",
        "...",
        "$",
        "_",
        "<|end|>",
        "ſ",
    ];
    (0..1 + rng.below(14)).map(|_| *rng.pick(&PIECES)).collect()
}
