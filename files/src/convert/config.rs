//! `config.json`: what a family's folder says of its shape, with the family's defaults for what it leaves out.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value as Json, json};

use super::families::{FAMILIES, Family};
use super::layers::Layer;
use super::parts::Kind;
use crate::folder::read_json;

/// No dimension of a model is longer; products of two fit 64 bits with room to spare.
pub(super) const LONGEST: u64 = 1 << 28;

/// The fields of `config.json`; those of `text_config`, where there is one, come first.
pub(super) struct Fields(pub(super) Json);

/// Lengths that the shapes of weights are made of.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) vocabulary: usize,
    pub(super) width: usize,
    pub(super) layers: Vec<Layer>,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) feed_forward: usize,
    pub(super) context: usize,
    pub(super) token_types: usize,
    /// Experts, and the inner length of one; 0 where there are none.
    pub(super) experts: usize,
    pub(super) expert_length: usize,
    /// Positions that a short convolution sees; 0 where there are none.
    pub(super) kernel: usize,
}

/// RoPE as newer folders keep it in `rope_parameters` and older ones beside `rope_scaling`.
pub(super) struct Rope {
    /// Of layers that see everything.
    pub(super) full: Fields,
    /// The base of layers that see a window, where they have their own.
    pub(super) local_base: Option<f64>,
}

impl Fields {
    /// Reads the folder's `config.json` and finds its family.
    ///
    /// # Errors
    /// When the file is missing or malformed, of an unknown architecture (the known ones are listed), or the weights are quantised already.
    pub(super) fn read(folder: &Path) -> Result<(Fields, &'static Family)> {
        let path = folder.join("config.json");
        ensure!(
            path.is_file(),
            "{}: no config.json; expected a Hugging Face model folder",
            folder.display()
        );
        let mut json = read_json(&path)?;
        let class = json["architectures"][0].as_str().map(str::to_owned);
        if let Some(text) = json["text_config"].as_object().cloned()
            && let Some(fields) = json.as_object_mut()
        {
            fields.extend(text);
        }
        let kind = json["model_type"].as_str();
        let family = match &class {
            Some(class) => FAMILIES.iter().find(|f| f.classes.contains(&&**class)),
            None => FAMILIES.iter().find(|f| Some(f.model_type) == kind),
        };
        let Some(family) = family else {
            let known: Vec<_> = FAMILIES.iter().flat_map(|f| f.classes).copied().collect();
            bail!(
                "{}: {} is not known; known are {}",
                path.display(),
                class
                    .as_deref()
                    .or(kind)
                    .unwrap_or("a model without \"architectures\""),
                known.join(", ")
            );
        };
        ensure!(
            json["quantization_config"].is_null(),
            "{}: the weights are quantised ({}); expected a folder in f32, f16 or bf16",
            path.display(),
            json["quantization_config"]["quant_method"]
        );
        if let Some(fields) = json.as_object_mut() {
            for &(key, value) in family.defaults {
                let whole = value.fract() == 0.0 && !key.contains("theta");
                let value = if whole {
                    json!(value as u64)
                } else {
                    json!(value)
                };
                let field = fields.entry(key).or_insert(Json::Null);
                if field.is_null() {
                    *field = value;
                }
            }
        }
        let fields = Fields(json);
        let activation = ["hidden_activation", "hidden_act"]
            .into_iter()
            .find_map(|key| fields.0[key].as_str());
        ensure!(
            activation.is_none_or(|name| family.activations.contains(&name)),
            "config.json: activation {:?}; the runtime's {} has {:?}",
            activation.unwrap_or_default(),
            family.name,
            family.activations[0]
        );
        Ok((fields, family))
    }

    /// A whole number, if it is there.
    pub(super) fn opt_number(&self, key: &str) -> Result<Option<u32>> {
        match &self.0[key] {
            Json::Null => Ok(None),
            value => {
                let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
                let number = number.with_context(|| {
                    format!("config.json: {key}: expected a whole number, got {value}")
                })?;
                Ok(Some(number))
            }
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<u32> {
        self.opt_number(key)?
            .with_context(|| format!("config.json: {key} is missing"))
    }

    /// A finite number, if it is there.
    pub(super) fn opt_float(&self, key: &str) -> Result<Option<f64>> {
        match &self.0[key] {
            Json::Null => Ok(None),
            value => {
                let number = value.as_f64().filter(|x| x.is_finite());
                let number = number.with_context(|| {
                    format!("config.json: {key}: expected a number, got {value}")
                })?;
                Ok(Some(number))
            }
        }
    }

    pub(super) fn float(&self, key: &str) -> Result<f64> {
        self.opt_float(key)?
            .with_context(|| format!("config.json: {key} is missing"))
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.0[key] == true
    }

    /// A number that can be a dimension.
    pub(super) fn length(&self, key: &str) -> Result<usize> {
        let value = u64::from(self.number(key)?);
        ensure!(
            (1..=LONGEST).contains(&value),
            "config.json: {key} = {value}: expected 1 to {LONGEST}"
        );
        Ok(value as usize)
    }

    pub(super) fn shape(&self, family: &Family) -> Result<Shape> {
        let or = |key: &str, default: usize| {
            if self.0[key].is_null() {
                Ok(default)
            } else {
                self.length(key)
            }
        };
        let (width, heads) = (
            self.length("hidden_size")?,
            self.length("num_attention_heads")?,
        );
        let head_dim = or("head_dim", width / heads)?;
        ensure!(
            !self.0["head_dim"].is_null() || width.is_multiple_of(heads),
            "config.json: hidden_size {width} does not divide into {heads} heads"
        );
        let kv_heads = or("num_key_value_heads", heads)?;
        ensure!(
            heads.is_multiple_of(kv_heads) && head_dim > 0,
            "config.json: {heads} heads, {kv_heads} key-value heads of {head_dim} values"
        );
        let layers = (family.layers)(self, self.length("num_hidden_layers")?)?;
        let has = |kind| layers.iter().flatten().any(|other| *other == kind);
        let of = |kind, key: &str| if has(kind) { self.length(key) } else { Ok(0) };
        let experts = ["num_local_experts", "num_experts"]
            .into_iter()
            .find(|key| !self.0[*key].is_null());
        Ok(Shape {
            vocabulary: self.length("vocab_size")?,
            width,
            heads,
            kv_heads,
            head_dim,
            feed_forward: (family.feed_forward)(self)?,
            context: self.length("max_position_embeddings")?,
            token_types: or("type_vocab_size", 1)?,
            experts: of(Kind::Experts, experts.unwrap_or("num_experts"))?,
            expert_length: of(Kind::Experts, "moe_intermediate_size")?,
            kernel: of(Kind::ShortConv, "conv_L_cache")?,
            layers,
        })
    }

    pub(super) fn rope(&self) -> Rope {
        let found = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|key| self.0[*key].is_object());
        let mut full = found.map_or_else(|| json!({}), |key| self.0[key].clone());
        let mut local = json!({});
        if full["full_attention"].is_object() || full["sliding_attention"].is_object() {
            local = full["sliding_attention"].take();
            full = full["full_attention"].take();
        }
        // Older folders keep these beside the scaling; what lies inside counts.
        for (inside, outside) in [
            ("rope_theta", "rope_theta"),
            ("rope_type", "type"),
            ("partial_rotary_factor", "partial_rotary_factor"),
            (
                "original_max_position_embeddings",
                "original_max_position_embeddings",
            ),
        ] {
            if full[inside].is_null() {
                full[inside] = if outside == "type" {
                    full["type"].clone()
                } else {
                    self.0[outside].clone()
                };
            }
        }
        let local_base = local["rope_theta"]
            .as_f64()
            .or(self.0["rope_local_base_freq"].as_f64());
        Rope {
            full: Fields(full),
            local_base,
        }
    }

    /// Which layers see only a window, where the folder says so.
    pub(super) fn local_layers(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        if let Some(types) = self.0["layer_types"].as_array() {
            ensure!(
                types.len() == layers,
                "config.json: layer_types has {} entries for {layers} layers",
                types.len()
            );
            return Ok(Some(
                types.iter().map(|t| t == "sliding_attention").collect(),
            ));
        }
        let period = ["sliding_window_pattern", "_sliding_window_pattern"]
            .into_iter()
            .find_map(|key| self.0[key].as_u64());
        Ok(period.filter(|&n| n > 0).map(|period| {
            (1..=layers as u64)
                .map(|layer| layer % period != 0)
                .collect()
        }))
    }
}
