//! Holds the finished file against the folder: the runtime opens it, and cuts texts into the same tokens as the `tokenizers` crate.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dram_core::{Model, Tokenizer as Runtime};
use tokenizers::Tokenizer;

use crate::Rng;
use crate::tokenizer::pre::probes;

/// Samples of the vocabulary's own words.
const WORDS: usize = 1000;

/// What was compared.
#[derive(Debug, Default)]
pub struct Verified {
    /// Texts with the same tokens.
    pub texts: usize,
    /// Added tokens beside which texts are cut otherwise than by the `tokenizers` crate.
    pub apart: Vec<String>,
}

/// The runtime's own checks: every key and tensor of the family is there and has its shape.
///
/// # Errors
/// What the runtime says.
pub(super) fn opens(gguf: &Path) -> Result<Model> {
    Model::open(gguf).context("the runtime does not open the file")
}

/// Compares tokens. Special tokens inside a text are reported and not refused: what happens to white space beside them is in no GGUF key.
///
/// # Errors
/// With the first text that has other tokens.
pub(super) fn tokens(model: &Model, json: &Path) -> Result<Verified> {
    let mut theirs = Tokenizer::from_file(json).map_err(|e| anyhow!("{}: {e}", json.display()))?;
    // Batches of fixed length are the program's affair.
    theirs.with_padding(None);
    theirs
        .with_truncation(None)
        .map_err(|e| anyhow!("{}: {e}", json.display()))?;
    let ours = model.tokenizer();
    let mut verified = Verified::default();
    for text in probes().into_iter().chain(words(&theirs)) {
        let (got, expected) = (ours.encode(&text, true), encode(&theirs, &text, false)?);
        if got != expected {
            bail!("{}", difference(ours, &text, &got, &expected));
        }
        verified.texts += 1;
    }
    // With what goes around a text.
    let text = "Hello world";
    let (got, expected) = (
        ours.encode_with_ends(text, true),
        encode(&theirs, text, true)?,
    );
    let plain = encode(&theirs, text, false)?;
    // A post-processor that adds nothing leaves it to the program, which the folder's tokenizer_config.json tells.
    ensure!(
        got == expected || expected == plain,
        "around a text: {}",
        difference(ours, text, &got, &expected)
    );
    let mut added: Vec<_> = theirs.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    for (_, token) in added {
        let text = format!("one {0} two{0}three", token.content);
        if ours.encode(&text, true) != encode(&theirs, &text, false)? {
            verified.apart.push(token.content);
        }
    }
    Ok(verified)
}

fn encode(tokenizer: &Tokenizer, text: &str, ends: bool) -> Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, ends)
        .map_err(|e| anyhow!("tokenizer.json cannot encode {text:?}: {e}"))?;
    Ok(encoding.get_ids().to_vec())
}

/// Runs of tokens as text: what a vocabulary was made for, in scripts of its own.
fn words(tokenizer: &Tokenizer) -> Vec<String> {
    let mut rng = Rng::new(&[0x70c5]);
    let size = tokenizer.get_vocab_size(true).max(1);
    let special = tokenizer.get_added_tokens_decoder();
    let one = |rng: &mut Rng| {
        let ids = (0..3).map(|_| rng.below(size) as u32);
        let ids: Vec<u32> = ids.filter(|id| !special.contains_key(id)).collect();
        tokenizer.decode(&ids, true).ok()
    };
    let decoded = (0..WORDS).filter_map(|_| one(&mut rng));
    // Half a character is no text, and normalisers change letters that stand for others.
    let plain = |text: &String| {
        !text.contains('\u{fffd}') && !text.is_empty() && is_normal(tokenizer, text)
    };
    decoded.filter(plain).collect()
}

/// Whether normalisation leaves the letters as they are. The runtime takes BPE's text as it is, as llama.cpp does.
fn is_normal(tokenizer: &Tokenizer, text: &str) -> bool {
    use tokenizers::{NormalizedString, Normalizer as _, NormalizerWrapper};
    match tokenizer.get_normalizer() {
        Some(nfc @ NormalizerWrapper::NFC(_)) => {
            let mut normal = NormalizedString::from(text);
            nfc.normalize(&mut normal).is_ok() && normal.get() == text
        }
        _ => true,
    }
}

fn difference(ours: &Runtime, text: &str, got: &[u32], expected: &[u32]) -> String {
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let some = |ids: &[u32]| {
        let ids = &ids[at.min(ids.len())..(at + 6).min(ids.len())];
        format!(
            "{ids:?} {:?}",
            ids.iter().map(|&id| ours.decode(&[id])).collect::<Vec<_>>()
        )
    };
    format!(
        "the runtime cuts {text:?} otherwise than tokenizer.json: from token {at} on expected {}, got {}. Nothing was written; --no-verify writes the \
         file all the same, --pre NAME forces another pre-tokenizer",
        some(expected),
        some(got)
    )
}
