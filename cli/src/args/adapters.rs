//! LoRA adapters: `run`, `chat`, `logits` and `eval`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use dram_core::{Adapter, Model};

/// Adapters to add to the model.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LoraArgs {
    /// Apply a LoRA adapter in GGUF, times SCALE (default 1); may be repeated
    #[arg(long = "lora", value_name = "FILE[:SCALE]")]
    files: Vec<Lora>,
}

/// An adapter's file and its scale.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lora {
    file: PathBuf,
    scale: f32,
}

impl FromStr for Lora {
    type Err = Infallible;

    /// What follows the last colon is the scale if it is a number, and otherwise a part of the name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let scaled = text
            .rsplit_once(':')
            .and_then(|(file, scale)| Some((file, scale.parse().ok()?)));
        let (file, scale) = scaled.unwrap_or((text, 1.0));
        Ok(Lora {
            file: file.into(),
            scale,
        })
    }
}

impl LoraArgs {
    /// The adapters, checked against `model`.
    pub(crate) fn open(&self, model: &Model) -> Result<Vec<(Adapter, f32)>> {
        open_adapters(&self.files, model)
    }

    /// What a table says of them.
    pub(crate) fn note(&self) -> Option<String> {
        let name = |lora: &Lora| format!("{} times {}", lora.file.display(), lora.scale);
        let names: Vec<String> = self.files.iter().map(name).collect();
        (!names.is_empty()).then(|| format!("with the adapters {}", names.join(", ")))
    }
}

pub(crate) fn open_adapters(files: &[Lora], model: &Model) -> Result<Vec<(Adapter, f32)>> {
    let open = |Lora { file, scale }: &Lora| Ok((model.adapter(file)?, *scale));
    files.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_told_from_a_name() {
        let read = |text: &str| {
            let Ok(Lora { file, scale }) = text.parse();
            (file.display().to_string(), scale)
        };
        assert_eq!(read("a.gguf"), ("a.gguf".into(), 1.0));
        assert_eq!(read("a.gguf:-0.5"), ("a.gguf".into(), -0.5));
        assert_eq!(read("C:\\a.gguf"), ("C:\\a.gguf".into(), 1.0));
        assert_eq!(read("C:\\a.gguf:2"), ("C:\\a.gguf".into(), 2.0));
    }
}
