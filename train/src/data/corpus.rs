//! Documents of plain text, and their token ids: encoded in parallel piece by piece, and kept in a cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dram_core::tokenizer::Pretokenizer;
use dram_files::tokenizer::token_type;
use rayon::prelude::*;

use super::TextTokenizer;
use super::cache::{self, Cache};
use super::text::{read_text, split_text};

/// Bytes of text that are encoded at once by one thread.
const PIECE: usize = 1 << 18;
/// Pieces in memory at once as lists of their own.
const GROUP: usize = 32;

/// Texts one after another.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Documents {
    text: String,
    /// Document i is `text[ends[i - 1]..ends[i]]`.
    ends: Vec<usize>,
}

impl Documents {
    /// Reads a file as one document, or a folder with a document in every file, in the order of their names. Where there is a `separator`, it ends
    /// documents inside files; it is no part of them.
    ///
    /// # Errors
    /// Names the file that cannot be read or is not UTF-8, and where.
    pub fn read(path: &Path, separator: Option<&str>) -> Result<Self> {
        let mut out = Documents::default();
        let paths = if path.is_dir() {
            files(path)?
        } else {
            vec![path.to_owned()]
        };
        for path in paths {
            let text = read_text(&[&path])?;
            match separator.filter(|separator| !separator.is_empty()) {
                Some(separator) => text.split(separator).for_each(|part| out.push(part)),
                None if out.text.is_empty() => out.take(text),
                None => out.push(&text),
            }
        }
        Ok(out)
    }

    fn take(&mut self, text: String) {
        if !text.is_empty() {
            self.ends = vec![text.len()];
            self.text = text;
        }
    }

    fn push(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
    }

    /// (training part, validation part), as [`split_text`] cuts; a document may lie in both.
    ///
    /// # Errors
    /// When `fraction` is not within 0..1.
    pub fn split(mut self, fraction: f64) -> Result<(Self, Self)> {
        let at = split_text(&self.text, fraction)?.0.len();
        let rest = self.text.split_off(at);
        let whole = self.ends.partition_point(|&end| end <= at);
        let ends = self.ends.split_off(whole);
        if self.ends.last().is_none_or(|&end| end < at) && at > 0 {
            self.ends.push(at);
        }
        let ends = ends.into_iter().map(|end| end - at).collect();
        Ok((self, Documents { text: rest, ends }))
    }

    /// All of them without what is between.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.text[start..end])
    }

    /// What decides the token ids: the texts, and where they end.
    pub(crate) fn fingerprint(&self) -> String {
        let text = crate::checkpoint::fingerprint(&self.text);
        if self.ends.len() < 2 {
            return text;
        }
        text + &crate::checkpoint::fingerprint(&format!("{:?}", self.ends))
    }

    /// Token ids of all documents, each between the tokens that the tokenizer's rule puts around a text: BOS before it, EOS after it. Where the rule
    /// knows neither, several documents are separated by EOS. Spellings of special tokens in the text become these tokens where `specials` is set.
    ///
    /// The ids of a long text are kept in the cache folder, where there is one.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, tokenizer: &TextTokenizer, specials: bool) -> Result<Vec<u32>> {
        let cache = Cache::usual().filter(|_| self.text.len() >= cache::MIN);
        self.encode_with(tokenizer, specials, cache.as_ref())
    }

    pub(crate) fn encode_with(
        &self,
        tokenizer: &TextTokenizer,
        specials: bool,
        cache: Option<&Cache>,
    ) -> Result<Vec<u32>> {
        let key = cache.map(|cache| (cache, self.key(tokenizer, specials)));
        if let Some((cache, key)) = &key
            && let Some(ids) = cache.load(key, tokenizer.len())
        {
            return Ok(ids);
        }
        let ids = self.encode_now(tokenizer, specials)?;
        if let Some((cache, key)) = &key {
            // A full disk is no reason to stop: the ids are here.
            let _ = cache.store(key, &ids);
        }
        Ok(ids)
    }

    /// Differs where ids may.
    fn key(&self, tokenizer: &TextTokenizer, specials: bool) -> String {
        format!(
            "{}-{}-{}-{specials}",
            self.fingerprint(),
            self.text.len(),
            tokenizer.fingerprint()
        )
    }

    fn encode_now(&self, tokenizer: &TextTokenizer, specials: bool) -> Result<Vec<u32>> {
        let vocabulary = tokenizer.vocabulary();
        let bos = vocabulary.bos.filter(|_| vocabulary.add_bos);
        let eos = vocabulary.eos.filter(|_| vocabulary.add_eos);
        let several = self.ends.len() > 1;
        let between = vocabulary
            .eos
            .filter(|_| several && bos.is_none() && eos.is_none());
        let mut ids = Vec::new();
        let size = if cuts(tokenizer) { PIECE } else { usize::MAX };
        for (index, document) in self.iter().enumerate() {
            if index > 0 {
                ids.extend(between);
            }
            ids.extend(bos.filter(|_| !(specials && begins_with(tokenizer, document, bos))));
            encode_document(tokenizer, document, specials, size, &mut ids)?;
            ids.extend(eos.filter(|eos| ids.last() != Some(eos)));
        }
        Ok(ids)
    }
}

/// Whether a document spells the token `id` out at its beginning.
fn begins_with(tokenizer: &TextTokenizer, document: &str, id: Option<u32>) -> bool {
    let token = id.and_then(|id| tokenizer.vocabulary().tokens.get(id as usize));
    token.is_some_and(|token| document.starts_with(token.as_str()))
}

/// Appends the ids of `text`, which are those of one call with all of it, encoded in pieces of about `size` bytes.
fn encode_document(
    tokenizer: &TextTokenizer,
    text: &str,
    specials: bool,
    size: usize,
    ids: &mut Vec<u32>,
) -> Result<()> {
    let pieces = pieces(text, size);
    if let [only] = pieces[..] {
        ids.extend(tokenizer.encode(only, specials)?);
        return Ok(());
    }
    let runtime = tokenizer.runtime();
    let mut done = 0;
    for (number, group) in pieces.chunks(GROUP).enumerate() {
        let encoded: Vec<Vec<u32>> = group
            .par_iter()
            .enumerate()
            .map(|(index, piece)| match (number, index) {
                (0, 0) => runtime.encode(piece, specials),
                _ => runtime.encode_rest(piece, specials),
            })
            .collect();
        done += group.iter().map(|piece| piece.len()).sum::<usize>();
        let new: usize = encoded.iter().map(Vec::len).sum();
        if number == 0 {
            // What the rest will need, with some room.
            ids.reserve(new + (text.len() / done + 1) * new / 16 * 17);
        }
        encoded.into_iter().for_each(|part| ids.extend(part));
    }
    Ok(())
}

/// Cuts `text` into pieces of at least `size` bytes at places where no token lies across, if [`cuts`] says so: after a line break that stands alone
/// between something that is no white space and a letter or digit.
fn pieces(text: &str, size: usize) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while rest.len() > size {
        let mut from = size;
        let cut = loop {
            let Some(found) = rest.as_bytes()[from..].iter().position(|&b| b == b'\n') else {
                break None;
            };
            let at = from + found;
            // A line break is one byte, so both halves are text.
            let before = rest[..at].chars().next_back();
            let after = rest[at + 1..].chars().next();
            if before.is_some_and(|c| !c.is_whitespace())
                && after.is_some_and(char::is_alphanumeric)
            {
                break Some(at + 1);
            }
            from = at + 1;
        };
        let Some(cut) = cut else {
            break;
        };
        let (piece, more) = rest.split_at(cut);
        out.push(piece);
        rest = more;
    }
    out.push(rest);
    out
}

/// Whether a line break between two words always lies between two tokens: where the pre-tokenizer cuts there, and, without one, where no token holds a
/// line break before a letter or digit.
fn cuts(tokenizer: &TextTokenizer) -> bool {
    let vocabulary = tokenizer.vocabulary();
    let across = |token: &str| {
        let mut last = None;
        token
            .chars()
            .any(|c| last.replace(c) == Some('\n') && c.is_alphanumeric())
    };
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.types);
    // Tokens of a byte-level BPE are written in another alphabet; those that are looked for in the text itself are not.
    let plain = |kind: i32| kind != token_type::NORMAL || vocabulary.model == "llama";
    if tokens
        .into_iter()
        .any(|(token, kind)| plain(*kind) && across(token))
    {
        return false;
    }
    let pre = match &*vocabulary.model {
        "llama" | "bert" => return true,
        "gpt2" => vocabulary.pre.as_deref().and_then(Pretokenizer::named),
        "gemma4" => Pretokenizer::named("gemma4"),
        // A unigram model's rules for characters may make anything of a line break.
        _ => None,
    };
    pre.is_some_and(|pre| cuts_lines(&pre))
}

fn cuts_lines(pre: &Pretokenizer) -> bool {
    ["x\ny", ".\ny", "1\n1", "。\n東", "x y.\nz z"]
        .iter()
        .all(|probe| {
            let (mut at, mut found) = (0, false);
            pre.split(probe, &mut |word| {
                at += word.len();
                found |= probe[..at].ends_with('\n');
            });
            found
        })
}

/// The files of a folder, by name; those that begin with a dot are none.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let at = || folder.display().to_string();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(at)? {
        let entry = entry.with_context(at)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    ensure!(!files.is_empty(), "{}: no file in the folder", at());
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
