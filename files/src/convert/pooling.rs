//! How a text's vector is made of its tokens', as sentence-transformers keeps it beside the model.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use dram_core::gguf::names::key;
use dram_core::model::folder::Entries;
use serde_json::Value as Json;

use crate::folder::read_json;

/// Sets `pooling_type` by `modules.json` and the pooling's own `config.json`, where they are.
pub(super) fn set(folder: &Path, keys: &mut Entries) -> Result<()> {
    let modules = folder.join("modules.json");
    if !modules.is_file() {
        return Ok(());
    }
    let modules = read_json(&modules)?;
    let is_pooling = |module: &&Json| {
        module["type"]
            .as_str()
            .is_some_and(|t| t.ends_with("Pooling"))
    };
    let Some(module) = modules
        .as_array()
        .and_then(|all| all.iter().find(is_pooling))
    else {
        return Ok(());
    };
    let path = module["path"].as_str().unwrap_or_default();
    ensure!(
        Path::new(path).file_name() == Some(path.as_ref()),
        "modules.json: path {path:?} leaves the folder"
    );
    let config = read_json(&folder.join(path).join("config.json"))?;
    let kinds = [
        ("mean_tokens", "mean", 1),
        ("cls_token", "cls", 2),
        ("lasttoken", "lasttoken", 3),
    ];
    let kind = kinds.iter().find(|(flag, name, _)| {
        config[format!("pooling_mode_{flag}")] == true || config["pooling_mode"] == *name
    });
    let Some((_, _, kind)) = kind else {
        bail!("{path}/config.json: known are pooling by mean, first (cls) and last token");
    };
    Ok(keys.number(key::POOLING_TYPE, *kind)?)
}
