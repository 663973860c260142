//! Hugging Face folders: `config.json` beside `model.safetensors` (or shards named by `model.safetensors.index.json`).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, safetensors::MmapedSafetensors};
use dram_core::model::folder;
use dram_files::folder::weight_files;
use dram_files::write_beside;
use serde_json::Value as Json;

use super::{Config, Decoder, Layout, Parameter};

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
        let mut known = HashSet::new();
        for (name, shape, range, shift) in layout.parameters.iter().flat_map(stored) {
            let tensor = tensors
                .load(&name, &Device::Cpu)
                .with_context(|| format!("{}: tensor {name}", folder.display()))?;
            ensure!(
                tensor.dims() == shape,
                "{}: tensor {name}: expected shape {shape:?}, got {:?}",
                folder.display(),
                tensor.dims()
            );
            let values = tensor
                .to_dtype(DType::F32)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            parameters[range.clone()].copy_from_slice(&values);
            // Adding 0 would lose the sign of -0.
            if shift != 0.0 {
                parameters[range].iter_mut().for_each(|x| *x += shift);
            }
            known.insert(name);
        }
        let strange = |name: &String| {
            name.starts_with("model.layers.")
                && !name.ends_with(".rotary_emb.inv_freq")
                && !known.contains(name)
        };
        if let Some((name, _)) = tensors.tensors().iter().find(|(name, _)| strange(name)) {
            anyhow::bail!(
                "{}: tensor {name} is none of the {} family's by config.json: the decoder would leave out part of the model",
                folder.display(),
                config.family.name
            );
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
        for (name, shape, range, shift) in self.layout.parameters.iter().flat_map(stored) {
            let mut values = self.parameters[range].to_vec();
            if shift != 0.0 {
                values.iter_mut().for_each(|x| *x -= shift);
            }
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
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

/// A folder's tensors that make a parameter: name, shape, place in the flat buffer, and what is added to them.
fn stored(p: &Parameter) -> Vec<(String, Vec<usize>, Range<usize>, f32)> {
    let shift = if p.shifted { 1.0 } else { 0.0 };
    if !p.name.contains('*') {
        let shape = if p.is_vector() {
            vec![p.cols]
        } else {
            vec![p.rows, p.cols]
        };
        return vec![(p.name.clone(), shape, p.range.clone(), shift)];
    }
    let row = |row: usize| {
        let start = p.range.start + row * p.cols;
        let name = p.name.replace('*', &row.to_string());
        (name, vec![p.cols], start..start + p.cols, shift)
    };
    (0..p.rows).map(row).collect()
}
