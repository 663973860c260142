//! Pre-tokenizers: between a `tokenizer.json` and the names that GGUF has for them.
//!
//! Expressions are written in many ways that cut alike, so a pre-tokenizer is known by what it does: it cuts the probes as one of the runtime's does.

use anyhow::{Result, anyhow};
use dram_core::tokenizer::Pretokenizer;
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use crate::Rng;

/// What is written without thinking, and what pre-tokenizers differ on.
const TEXTS: [&str; 12] = [
    "",
    "Hello, world! It's 7 o'clock; WE'LL see 'em, he'D don't.",
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 1,234.56",
    "def f(x):\n    return x * 2   # comment\n\n\n\tif a!=b:\r\n\t\tpass\r\n",
    "Größe naïve café; Привет, мир! CamelCaseWord XMLHttpRequest",
    "東京と京都で会いましょう。 한국어 텍스트 ภาษาไทย 中文，测试！",
    "नमस्ते दुनिया العربية ١٢٣ עברית ½ Ⅷ",
    "🚀 (normal) 😶\u{200d}🌫\u{fe0f} ✅ 👩\u{200d}👧 \u{1f1e9}\u{1f1ea}",
    "------======= ''''''```````\"\"\"\"......!!!!!!?????? $100 #tag @user a_b",
    "https://example.org/path?query=1&x=%20#end <b>html</b> {\"key\": [1, 2]}",
    "   three before,   three between, three after   ",
    " \n \n\n \t \u{a0} \u{3000} \u{2003}x\n",
];

/// Pieces that stand beside each other in every order; all are in Unicode's normal form C, as tokenizers that normalise leave them.
const PIECES: [&str; 60] = [
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
    "\r",
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
    "ſ",
    "/",
    "ABCdef",
    "X",
    "ǅ",
    "ʰ",
    "한글",
    "ㄅㄆ",
    "ไทย",
    "。",
    "，",
    "`",
    "^~",
    "<|",
    "\u{e9}\u{20dd}",
    "\\",
    "[x]",
    "IMGIMGABZ",
];

/// Texts to compare tokenizers on: the same at every call.
#[must_use]
pub fn probes() -> Vec<String> {
    let mut rng = Rng::new(&[0x7e47]);
    let random = (0..600).map(|_| {
        (0..1 + rng.below(14))
            .map(|_| *rng.pick(&PIECES))
            .collect::<String>()
    });
    TEXTS
        .iter()
        .map(ToString::to_string)
        .chain(random)
        .collect()
}

/// GGUF's name for the pre-tokenizer of a `tokenizer.json`; `None` where it cuts as none of the known ones. Of those that cut alike, one that treats
/// words that are tokens as `whole_words` says comes first.
///
/// # Errors
/// When the description is malformed.
pub fn recognise(description: &Value, whole_words: bool) -> Result<Option<&'static str>> {
    if description.is_null() || adds_space(description) {
        return Ok(None);
    }
    let theirs = words(description)?;
    let probes = probes();
    let alike = |ours: &Pretokenizer| {
        probes.iter().zip(&theirs).all(|(text, theirs)| {
            let (mut at, mut ends) = (0, Vec::with_capacity(theirs.len()));
            ours.split(text, &mut |word| {
                at += word.len();
                ends.push((at - word.len(), at));
            });
            ends == *theirs
        })
    };
    let found: Vec<Pretokenizer> = Pretokenizer::all()
        .filter(|ours| !ours.is_plain() && alike(ours))
        .collect();
    let best = found
        .iter()
        .find(|ours| ours.takes_whole_words() == whole_words)
        .or(found.first());
    Ok(best.map(|ours| ours.names()[0]))
}

/// Where the words of each probe begin and end.
fn words(description: &Value) -> Result<Vec<Vec<(usize, usize)>>> {
    let pre: PreTokenizerWrapper = serde_json::from_value(description.clone())
        .map_err(|e| anyhow!("the pre-tokenizer {description}: {e}"))?;
    let cut = |text: &String| {
        let mut pieces = PreTokenizedString::from(text.as_str());
        pre.pre_tokenize(&mut pieces)
            .map_err(|e| anyhow!("the pre-tokenizer: {e}"))?;
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits
            .into_iter()
            .map(|(_, offsets, _)| offsets)
            .filter(|(a, b)| a < b)
            .collect())
    };
    probes().iter().map(cut).collect()
}

/// A space before the text is nothing that GGUF's byte-level BPE knows.
fn adds_space(description: &Value) -> bool {
    let parts = description["pretokenizers"].as_array();
    description["type"] == "ByteLevel" && description["add_prefix_space"] == true
        || parts.is_some_and(|parts| parts.iter().any(adds_space))
}

/// The `pre_tokenizer` of a `tokenizer.json` that cuts as `pre` does.
#[must_use]
pub fn describe(pre: &Pretokenizer) -> Value {
    let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let splits = pre.expressions().into_iter().map(split);
    json!({ "type": "Sequence", "pretokenizers": splits.chain([bytes]).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way of cutting is known again among all of them.
    #[test]
    fn every_pretokenizer_is_recognised_by_what_it_does() {
        for pre in Pretokenizer::all().filter(|pre| !pre.is_plain()) {
            let found = recognise(&describe(&pre), pre.takes_whole_words()).unwrap();
            let found = found.unwrap_or_else(|| panic!("{:?}", pre.names()));
            // Written otherwise, these cut as Qwen 2's: `\s*[\r\n]` already takes all it can.
            let alike = if pre.names().contains(&"bailingmoe") {
                "qwen2"
            } else {
                pre.names()[0]
            };
            // Some rows of the table have the same cuts and differ in what else follows from the name.
            let (found, alike) = (
                Pretokenizer::named(found).unwrap(),
                Pretokenizer::named(alike).unwrap(),
            );
            assert_eq!(
                found.expressions(),
                alike.expressions(),
                "{:?}",
                pre.names()
            );
        }
    }

    #[test]
    fn other_spellings_are_known_and_other_ways_are_not() {
        let split = |pattern: &str| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let tiktoken = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
        assert_eq!(recognise(&split(tiktoken), false).unwrap(), Some("dbrx"));
        assert_eq!(
            recognise(&split(tiktoken), true).unwrap(),
            Some("llama-bpe")
        );
        let digits = json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true } ] });
        assert_eq!(recognise(&digits, false).unwrap(), Some("smollm"));
        let mut roberta = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        assert_eq!(recognise(&roberta, false).unwrap(), Some("gpt-2"));
        roberta["add_prefix_space"] = true.into();
        assert_eq!(recognise(&roberta, false).unwrap(), None);
        assert_eq!(
            recognise(&split(&tiktoken.replace("{1,3}", "{1,4}")), false).unwrap(),
            None
        );
        assert!(recognise(&json!({ "type": "Split", "pattern": 7 }), false).is_err());
    }
}
