//! Hugging Face folders: `config.json` beside `model.safetensors` (or shards named by `model.safetensors.index.json`).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors::MmapedSafetensors};
use dram_core::model::folder;
use dram_files::folder::weight_files;
use dram_files::write_beside;
use serde_json::Value as Json;

use super::{Config, Decoder, Layout};

impl Config {
    /// The longest sequence of the model in a Hugging Face folder or a GGUF file, in tokens.
    ///
    /// # Errors
    /// As [`Decoder::load`], weights aside.
    pub fn context_length_of(path: &Path) -> Result<usize> {
        if path.is_dir() {
            Ok(read_config(path)?.context_length)
        } else {
            Ok(dram_core::Model::open(path)?.config().context_length)
        }
    }
}

fn read_config(folder: &Path) -> Result<Config> {
    let text = fs::read_to_string(folder.join("config.json")).with_context(|| {
        format!(
            "{}: cannot read config.json; expected a Hugging Face model folder",
            folder.display()
        )
    })?;
    let json: Json =
        serde_json::from_str(&text).with_context(|| format!("{}/config.json", folder.display()))?;
    Config::from_hugging_face(&json).with_context(|| folder.display().to_string())
}

impl Decoder {
    /// Loads a Hugging Face folder, or a GGUF file (dequantised).
    ///
    /// # Errors
    /// When files are missing or malformed, or hold another kind of model.
    pub fn load(path: &Path) -> Result<Self> {
        if path.is_dir() {
            Self::from_hugging_face(path)
        } else {
            Self::from_gguf(path)
        }
    }

    /// # Errors
    /// When `config.json` or a tensor is missing, malformed, or of another shape.
    pub fn from_hugging_face(folder: &Path) -> Result<Self> {
        let mut config = read_config(folder)?;
        let files = weight_files(folder)?;
        // SAFETY: safetensors are read once, here, and checked by candle; a file that changes meanwhile is outside what we promise.
        let tensors = unsafe { MmapedSafetensors::multi(&files) }
            .with_context(|| folder.display().to_string())?;
        // Some folders leave out the flag and the tensor.
        config.tied_embeddings |= tensors.get(folder::OUTPUT).is_err();
        let layout = Layout::new(&config);
        let mut parameters = vec![0f32; layout.total];
        for p in &layout.parameters {
            let tensor = tensors
                .load(&p.name, &Device::Cpu)
                .with_context(|| format!("{}: tensor {}", folder.display(), p.name))?;
            let expected = if p.rows == 1 && tensor.rank() == 1 {
                vec![p.cols]
            } else {
                vec![p.rows, p.cols]
            };
            ensure!(
                tensor.dims() == expected,
                "{}: tensor {}: expected shape {expected:?}, got {:?}",
                folder.display(),
                p.name,
                tensor.dims()
            );
            let values = tensor
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            parameters[p.range.clone()].copy_from_slice(&values);
        }
        Decoder::new(config, parameters)
    }

    /// # Errors
    /// When the runtime refuses the file, or it holds something that the decoder does not do.
    pub fn from_gguf(path: &Path) -> Result<Self> {
        let model = dram_core::Model::open(path)?;
        let (config, parameters) = crate::export::import(model.gguf(), model.config())?;
        Decoder::new(config, parameters)
    }

    /// Writes `config.json` and `model.safetensors` (f32) into `folder`, making it if need be.
    ///
    /// # Errors
    /// When the disk does not take them. Files there before stay whole until the new ones are.
    pub fn save_hugging_face(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut tensors = HashMap::new();
        for p in &self.layout.parameters {
            let values = &self.parameters[p.range.clone()];
            let shape = if p.role == super::Role::Norm {
                vec![p.cols]
            } else {
                vec![p.rows, p.cols]
            };
            tensors.insert(
                p.name.clone(),
                Tensor::from_slice(values, shape, &Device::Cpu)?,
            );
        }
        write_beside(&folder.join("model.safetensors"), |path| {
            Ok(candle_core::safetensors::save(&tensors, path)?)
        })?;
        let json = serde_json::to_string_pretty(&self.config.to_hugging_face())?;
        write_beside(&folder.join("config.json"), |path| {
            Ok(fs::write(path, json + "\n")?)
        })
    }
}
