//! From a Hugging Face folder to a GGUF file, with the names, shapes and keys that llama.cpp's converter writes.
//!
//! Weights go through one chunk of rows at a time. The finished file is opened with the runtime, and its tokens are compared with those of the
//! folder's own `tokenizer.json`, before it gets its name: a wrong tokenizer would look like a bad model.

mod card;
mod modules;
mod naming;
mod planner;
mod rerank;
mod rope;
mod source;
mod tensors;
mod tokenizer;
mod value_heads;
mod verify;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::File;
use dram_core::model::folder::{Entries, Family, Fields};
use dram_core::quant::{Format, format_by_name};

use crate::folder::read_json;
use crate::write::{Entry, Head, write_file};
use crate::{file_type, write_beside};
use modules::Modules;
use planner::EncoderHead;
use source::Source;
use tensors::Tensors;
pub use tokenizer::{tokenizer_keys, tokenizer_keys_of_json};
pub use verify::Verified;

/// A conversion to be made.
#[derive(Debug, Default)]
pub struct Convert<'a> {
    /// The type of matrices: `f32`, `f16`, `bf16`; `None` for the one that the folder's own have. Vectors are always f32.
    pub float: Option<&'a str>,
    /// The pre-tokenizer's name, where it is not to be recognised. Tokens are then not compared.
    pub pre: Option<&'a str>,
    /// `general.name`, where it is not to be the folder's.
    pub name: Option<&'a str>,
    /// A folder or GGUF file with the tokenizer, where the folder has none.
    pub tokenizer: Option<&'a Path>,
    /// Leaves out the comparison of tokens.
    pub unverified: bool,
}

/// A finished tensor, for progress.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    pub name: &'a str,
    pub bytes: usize,
    /// Of all tensors together.
    pub total: usize,
}

/// What was made.
#[derive(Debug)]
pub struct Converted {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// The type of matrices.
    pub float: &'static str,
    pub tensors: usize,
    pub parameters: usize,
    /// The kind of tokenizer, in words.
    pub tokenizer: String,
    pub tokens: usize,
    /// `None` where there was no `tokenizer.json` to compare with, or it was not wanted.
    pub verified: Option<Verified>,
}

impl Convert<'_> {
    /// Converts `folder` into the file `target`.
    ///
    /// # Errors
    /// When `config.json` is missing or of an unknown architecture, a tensor is missing, left over, truncated, of another shape or not finite, the
    /// tokenizer is unknown or does not fit, or the runtime does not read the result as the folder's own tokenizer does; `target` is then untouched.
    pub fn run(
        &self,
        folder: &Path,
        target: &Path,
        each: &mut dyn FnMut(Done<'_>),
    ) -> Result<Converted> {
        ensure!(folder.is_dir(), "{}: no such folder", folder.display());
        let (fields, family) = read_config(folder)?;
        let shape = fields.shape(family)?;
        let encoder = EncoderHead {
            labels: rerank::labels(folder, family, &fields)?,
            modules: Modules::read(folder)?,
        };
        let source = Source::open(folder, &family.left_out(&fields), &encoder.modules)?;
        let format = self.format(&source)?;
        let tensors = Tensors::plan(&source, family, &fields, &shape, &encoder, format)?;

        let mut keys = Entries::new(family.name);
        naming::sampling(folder, &mut keys);
        card::set(folder, tensors.parameters(), &mut keys);
        naming::name(folder, fields.json(), self.name, &tensors.size(), &mut keys);
        (family.keys)(&fields, &shape, &mut keys)?;
        encoder.modules.set(&mut keys)?;
        if encoder.labels.is_some() {
            rerank::set(&mut keys);
        }
        keys.set(
            "general.file_type",
            file_type(format.name).context("a format without a file type")?,
        );
        keys.set("general.quantization_version", 2u32);
        let named = self.tokenizer.unwrap_or(folder);
        let mut other = None;
        let kind = if named.is_file() {
            other = Some(tokens_of(named, shape.vocabulary)?);
            format!("from {}", named.display())
        } else {
            tokenizer::tokenizer(
                named,
                &fields,
                family,
                shape.vocabulary,
                self.pre,
                &mut keys,
            )?
        };

        let head = head(&keys.into_entries(), other.as_ref());
        let total = tensors
            .plans
            .iter()
            .try_fold(0usize, |sum, plan| sum.checked_add(plan.bytes().ok()?))
            .context("the file's size overflows")?;
        let mut verified = None;
        let mut tokens = 0;
        write_beside(target, |beside| {
            write_file(beside, &head, &tensors.plans, &mut |index, out| {
                tensors.payload(index, out)?;
                let plan = &tensors.plans[index];
                each(Done {
                    name: &plan.name,
                    bytes: plan.bytes()?,
                    total,
                });
                Ok(())
            })?;
            let model = verify::opens(beside)?;
            tokens = model.tokenizer().len();
            let json = named.join("tokenizer.json");
            if !self.unverified && self.pre.is_none() && json.is_file() {
                verified = Some(verify::tokens(&model, &json)?);
            }
            Ok(())
        })?;
        Ok(Converted {
            architecture: family.name,
            float: format.name,
            tensors: tensors.plans.len(),
            parameters: tensors.parameters(),
            tokenizer: kind,
            tokens,
            verified,
        })
    }

    fn format(&self, source: &Source) -> Result<&'static Format> {
        if let Some(name) = self.float {
            return match format_by_name(name) {
                Some(format) if !format.takes_int8() => Ok(format),
                _ => bail!(
                    "--type {name}: expected f32, f16, bf16 or auto; `dram quantize` makes blocks of the result"
                ),
            };
        }
        let matrix = source.iter().find(|(_, stored)| stored.shape.len() > 1);
        Ok(matrix
            .with_context(|| format!("{}: no matrix", source.place()))?
            .1
            .format)
    }
}

/// The folder's `config.json` and its family.
fn read_config(folder: &Path) -> Result<(Fields, Family)> {
    let path = folder.join("config.json");
    ensure!(
        path.is_file(),
        "{}: no config.json; expected a Hugging Face model folder",
        folder.display()
    );
    Fields::of(read_json(&path)?).with_context(|| folder.display().to_string())
}

/// The entries, and the tokenizer's keys of `other` where the folder has no tokenizer of its own.
fn head(entries: &[Entry], other: Option<&File>) -> Head {
    let mut head = Head::default();
    for (key, value) in entries {
        head.put(key, value.get());
    }
    for (key, value) in other.iter().flat_map(|file| file.metadata().iter()) {
        if key.starts_with("tokenizer.") {
            head.put(key, value);
        }
    }
    head
}

/// A GGUF file whose tokenizer is to be copied.
fn tokens_of(path: &Path, rows: usize) -> Result<File> {
    let file = File::open(path)?;
    let tokens = file.metadata().strings("tokenizer.ggml.tokens")?.len();
    ensure!(
        tokens == rows,
        "{}: {tokens} tokens, but the model has {rows} rows of embeddings: they do not belong together",
        path.display()
    );
    Ok(file)
}
