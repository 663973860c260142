//! `tokenizer.model`: SentencePiece's protocol buffer: its pieces, the kind of model, and for a unigram model how it normalises text.
//!
//! The message is described in SentencePiece's `sentencepiece_model.proto`, the encoding in the Protocol Buffers documentation.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::Entries;
use super::unigram::Normalizer;
use crate::tokenizer::{Vocabulary, token_type};

/// Longer than any vocabulary; such a file is something else.
const LARGEST: u64 = 1 << 28;

/// One field of a message.
enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
    /// Eight bytes, which nothing here is.
    Fixed64,
}

/// Reads the tokens of `path`, at most `rows`.
///
/// # Errors
/// When the file is malformed or another kind of model than BPE or unigram, or has more tokens than `rows`.
pub(super) fn read(path: &Path, rows: usize, keys: &mut Entries) -> Result<Vocabulary> {
    let at = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(at)?.len();
    ensure!(
        size < LARGEST,
        "{}: {size} bytes are no SentencePiece model",
        at()
    );
    let (vocabulary, normalizer) =
        parse(&std::fs::read(path).with_context(at)?, rows).with_context(at)?;
    if let Some(normalizer) = normalizer {
        normalizer.set(keys);
    }
    Ok(vocabulary)
}

/// The tokens, and of a unigram model how text is normalised.
fn parse(bytes: &[u8], rows: usize) -> Result<(Vocabulary, Option<Normalizer>)> {
    let mut vocabulary = Vocabulary {
        model: "llama".into(),
        pre: Some("default".into()),
        ..Vocabulary::default()
    };
    // TrainerSpec.ModelType: 1 is a unigram model, which is what a file without the field has.
    let mut kind = 1;
    let mut normalizer = Normalizer {
        charsmap: Vec::new(),
        adds_space: true,
        merges_spaces: true,
    };
    each(bytes, &mut |number, field| {
        match (number, field) {
            (1, Field::Bytes(piece)) => {
                ensure!(
                    vocabulary.tokens.len() < rows,
                    "more than {rows} tokens, but the model has {rows} rows of embeddings"
                );
                let (text, score, kind) = read_piece(piece)
                    .with_context(|| format!("piece {}", vocabulary.tokens.len()))?;
                vocabulary.tokens.push(text);
                vocabulary.scores.push(score);
                vocabulary.types.push(kind);
            }
            (2, Field::Bytes(trainer)) => each(trainer, &mut |number, field| {
                if let (3, Field::Varint(value)) = (number, field) {
                    kind = value;
                }
                Ok(())
            })?,
            (3, Field::Bytes(spec)) => each(spec, &mut |number, field| {
                match (number, field) {
                    (2, Field::Bytes(map)) => normalizer.charsmap = map.to_vec(),
                    (3, Field::Varint(flag)) => normalizer.adds_space = flag != 0,
                    (4, Field::Varint(flag)) => normalizer.merges_spaces = flag != 0,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    ensure!(
        !vocabulary.tokens.is_empty(),
        "no pieces; expected a SentencePiece model"
    );
    match kind {
        2 => Ok((vocabulary, None)),
        1 => {
            vocabulary.model = "t5".into();
            Ok((vocabulary, Some(normalizer)))
        }
        other => {
            bail!("SentencePiece model type {other}; the runtime reads unigram (1) and BPE (2)")
        }
    }
}

/// SentencePiece numbers the types of pieces as GGUF does.
fn read_piece(bytes: &[u8]) -> Result<(String, f32, i32)> {
    let (mut text, mut score, mut kind) = (None, 0.0, token_type::NORMAL);
    each(bytes, &mut |number, field| {
        match (number, field) {
            (1, Field::Bytes(piece)) => {
                text = Some(std::str::from_utf8(piece).context("no UTF-8")?.to_owned())
            }
            (2, Field::Fixed32(bits)) => score = f32::from_le_bytes(bits),
            (3, Field::Varint(value)) => kind = i32::try_from(value).unwrap_or(0),
            _ => {}
        }
        Ok(())
    })?;
    ensure!((1..=6).contains(&kind), "type {kind}; expected 1 to 6");
    ensure!(!score.is_nan(), "its score is not a number");
    Ok((text.context("no text")?, score, kind))
}

/// Calls `take` with each field of a message.
fn each<'a>(bytes: &'a [u8], take: &mut dyn FnMut(u64, Field<'a>) -> Result<()>) -> Result<()> {
    const BAD: &str = "expected a SentencePiece model; the file is truncated or something else";
    let mut rest = bytes;
    while !rest.is_empty() {
        let tag = varint(&mut rest).context(BAD)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut rest).context(BAD)?),
            1 => rest.split_off(..8).map(|_| Field::Fixed64).context(BAD)?,
            2 => {
                let length = usize::try_from(varint(&mut rest).context(BAD)?)?;
                Field::Bytes(rest.split_off(..length).context(BAD)?)
            }
            5 => Field::Fixed32(
                rest.split_off(..4)
                    .and_then(|four| four.try_into().ok())
                    .context(BAD)?,
            ),
            _ => bail!(BAD),
        };
        take(tag >> 3, field)?;
    }
    Ok(())
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any damage is an error or another vocabulary, never a panic.
    #[test]
    fn damaged_models_are_refused() {
        let bytes = include_bytes!("../../../../tests/golden/convert/spm/tokenizer.model");
        let whole = parse(bytes, 400).unwrap().0;
        assert_eq!(
            (whole.tokens.len(), &*whole.tokens[0], whole.types[0]),
            (380, "<unk>", token_type::UNKNOWN)
        );
        assert!(
            parse(bytes, 379)
                .unwrap_err()
                .to_string()
                .contains("379 rows")
        );
        for end in 0..bytes.len() {
            let _ = parse(&bytes[..end], 400).is_ok_and(|(v, _)| v.tokens.len() <= 380);
        }
        let mut damaged = bytes.to_vec();
        for at in 0..damaged.len() {
            damaged[at] ^= 0xff;
            let _ = parse(&damaged, 400);
            damaged[at] ^= 0xff;
        }
        // A length that points far behind the end.
        assert!(
            parse(
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
                400
            )
            .is_err()
        );
        assert!(parse(&[0xff; 20], 400).is_err());
        assert!(parse(b"{\"model\":{}}", 400).is_err());
        let unigram = [&bytes[..bytes.len().min(40)], &[]].concat();
        assert!(
            parse(&unigram[..0], 400)
                .unwrap_err()
                .to_string()
                .contains("no pieces")
        );
    }
}
