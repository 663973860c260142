//! What sentence-transformers keeps beside a model: how a text's vector is made of its tokens', and what that is multiplied with.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use dram_core::gguf::names::{key, tensor};
use dram_core::model::folder::{Entries, MAX_LENGTH};
use serde_json::Value as Json;

use crate::folder::read_json;

/// What `modules.json` names.
#[derive(Default)]
pub(super) struct Modules {
    /// GGUF's number.
    pooling: Option<usize>,
    pub(super) dense: Vec<Dense>,
}

/// A matrix that a text's vector is multiplied with.
pub(super) struct Dense {
    /// Its folder.
    pub(super) path: String,
    /// GGUF's name of it.
    pub(super) to: &'static str,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Modules {
    /// Reads `modules.json` and each module's own `config.json`, where they are.
    ///
    /// # Errors
    /// When a file is no JSON, or names what the runtime does not have.
    pub(super) fn read(folder: &Path) -> Result<Modules> {
        let mut modules = Modules::default();
        let file = folder.join("modules.json");
        if !file.is_file() {
            return Ok(modules);
        }
        for module in read_json(&file)?.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default();
            let is_pooling = kind.ends_with("Pooling") && modules.pooling.is_none();
            if !is_pooling && !kind.ends_with("Dense") {
                continue;
            }
            let path = module["path"].as_str().unwrap_or_default();
            ensure!(
                Path::new(path).file_name() == Some(path.as_ref()),
                "modules.json: path {path:?} leaves the folder"
            );
            let config = read_json(&folder.join(path).join("config.json"))?;
            if is_pooling {
                modules.pooling = Some(pooling(path, &config)?);
            } else {
                let to = [tensor::DENSE_2, tensor::DENSE_3].get(modules.dense.len());
                let Some(to) = to else {
                    bail!("modules.json: expected at most two dense modules");
                };
                modules.dense.push(dense(path, &config, to)?);
            }
        }
        Ok(modules)
    }

    /// Sets their keys.
    pub(super) fn set(&self, keys: &mut Entries) -> Result<()> {
        if let Some(pooling) = self.pooling {
            keys.number(key::POOLING_TYPE, pooling)?;
        }
        for dense in &self.dense {
            keys.number(&format!("{}_feat_in", dense.to), dense.inputs)?;
            keys.number(&format!("{}_feat_out", dense.to), dense.outputs)?;
        }
        Ok(())
    }
}

fn pooling(path: &str, config: &Json) -> Result<usize> {
    let kinds = [
        ("mean_tokens", "mean", 1),
        ("cls_token", "cls", 2),
        ("lasttoken", "lasttoken", 3),
    ];
    let kind = kinds.iter().find(|(flag, name, _)| {
        config[format!("pooling_mode_{flag}")] == true || config["pooling_mode"] == *name
    });
    match kind {
        Some((_, _, kind)) => Ok(*kind),
        None => bail!("{path}/config.json: known are pooling by mean, first (cls) and last token"),
    }
}

fn dense(path: &str, config: &Json, to: &'static str) -> Result<Dense> {
    let activation = config["activation_function"].as_str().unwrap_or_default();
    ensure!(
        activation.ends_with(".Identity") && config["bias"] != true,
        "{path}/config.json: expected a dense module without a bias and an activation, got bias = {}, activation_function = {activation:?}",
        config["bias"]
    );
    let length = |name: &str| match config[name].as_u64() {
        Some(length @ 1..=MAX_LENGTH) => Ok(length as usize),
        _ => bail!(
            "{path}/config.json: {name}: expected a number from 1 to {MAX_LENGTH}, got {}",
            config[name]
        ),
    };
    Ok(Dense {
        path: path.to_owned(),
        to,
        inputs: length("in_features")?,
        outputs: length("out_features")?,
    })
}
