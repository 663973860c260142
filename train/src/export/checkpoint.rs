//! Models to export or to hold a file against: a Hugging Face folder or a GGUF file of a family that the decoder computes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dram_core::Model;
use dram_files::tokenizer::{Vocabulary, same_tokens, vocabulary_of_folder, vocabulary_of_gguf};

use super::{Export, Gate, Limits, Parity, import, scheme_of, verify};
use crate::data::Batch;
use crate::student::{Decoder, QuantMode, Scheme};
use crate::teacher::Trained;

/// A model and its tokenizer.
pub struct Checkpoint {
    pub name: String,
    pub decoder: Decoder,
    pub vocabulary: Vocabulary,
}

impl Checkpoint {
    /// Opens a Hugging Face folder or a GGUF file, whose blocks are dequantised. `tokenizer`, a folder with a
    /// `tokenizer.json` or a GGUF file, is for folders that have none of their own.
    ///
    /// # Errors
    /// When files are missing, malformed, of another family, or the tokenizer has more tokens than the model.
    pub fn open(path: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        ensure!(path.exists(), "{}: no such file or folder", path.display());
        let name = path
            .file_stem()
            .map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
        if path.is_file() {
            let model = Model::open(path)?;
            let (config, parameters) = import(model.gguf(), model.config())?;
            let vocabulary = match tokenizer {
                Some(source) => vocabulary_from(source, config.vocabulary)?,
                None => vocabulary_of_gguf(model.gguf())?,
            };
            return Ok(Self {
                name: model.info().name.clone(),
                decoder: Decoder::new(config, parameters)?,
                vocabulary,
            });
        }
        let decoder = Decoder::from_hugging_face(path)?;
        let rows = decoder.config().vocabulary;
        let source = tokenizer_beside(path, tokenizer)?;
        Ok(Self {
            name,
            vocabulary: vocabulary_from(&source, rows)?,
            decoder,
        })
    }

    /// Rounds to `scheme` and writes `path`. With a `gate`, the runtime must agree with this model rounded by training's code.
    ///
    /// # Errors
    /// As [`Export::unverified`] and [`Export::verified`].
    pub fn export(
        &mut self,
        scheme: Scheme,
        path: &Path,
        gate: Option<(&[Batch], usize)>,
    ) -> Result<Option<Parity>> {
        self.decoder.set_scheme(Some(scheme))?;
        let export = Export {
            name: &self.name,
            config: self.decoder.config(),
            weights: self.decoder.parameters(),
            scheme: &scheme,
            vocabulary: &self.vocabulary,
            metadata: Vec::new(),
        };
        let Some((batches, threads)) = gate else {
            export.unverified(path)?;
            return Ok(None);
        };
        let reference = Trained::new(&*self.name, &self.decoder, QuantMode::On, threads)?;
        let gate = Gate {
            reference: &reference,
            batches,
            limits: Limits::default(),
            workers: threads,
        };
        export.verified(path, &gate).map(Some)
    }

    /// Holds the file at `gguf` against this model, rounded by training's code to the formats that the file has.
    ///
    /// # Errors
    /// When the file is refused, has another shape or vocabulary, or mixes formats. The figures may still be bad: see
    /// [`Parity::check`].
    pub fn verify(&mut self, gguf: &Path, batches: &[Batch], threads: usize) -> Result<Parity> {
        {
            let model = Model::open(gguf)?;
            let (file, ours) = (
                import(model.gguf(), model.config())?.0,
                self.decoder.config(),
            );
            ensure!(
                file == *ours,
                "{} and {} are different models: {file:?} and {ours:?}",
                gguf.display(),
                self.name
            );
            let tokens = vocabulary_of_gguf(model.gguf())?.tokens;
            same_tokens(
                &tokens,
                &self.vocabulary.tokens,
                "the file",
                "the checkpoint",
            )?;
            let scheme = scheme_of(model.gguf(), ours)?;
            self.decoder.set_scheme(Some(scheme))?;
        }
        let reference = Trained::new(&*self.name, &self.decoder, QuantMode::On, threads)?;
        verify(gguf, &reference, batches, threads)
    }
}

fn vocabulary_from(source: &Path, rows: usize) -> Result<Vocabulary> {
    if source.is_dir() {
        return vocabulary_of_folder(source, rows);
    }
    let mut vocabulary = vocabulary_of_gguf(&dram_core::gguf::File::open(source)?)?;
    vocabulary
        .fit(rows)
        .with_context(|| format!("{}", source.display()))?;
    Ok(vocabulary)
}

/// The folder's own tokenizer, or the one named, or that of the only GGUF file beside the folder, which is how runs lay them out.
fn tokenizer_beside(folder: &Path, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if folder.join("tokenizer.json").is_file() {
        return Ok(folder.to_owned());
    }
    let parent = folder
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let files =
        std::fs::read_dir(parent).with_context(|| format!("reading {}", parent.display()))?;
    let mut found: Vec<PathBuf> = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => bail!(
            "{}: no tokenizer.json; name a folder or GGUF file that has the tokenizer",
            folder.display()
        ),
    }
}
