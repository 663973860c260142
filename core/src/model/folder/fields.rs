//! `config.json`: what a family's folder says of its shape, with the family's defaults for what it leaves out.

use std::ops::Index;

use serde_json::{Value as Json, json};

use super::{Error, Family, Kind, Layer, Result, ensure, refuse};

/// No dimension of a model is longer; products of two fit 64 bits with room to spare.
pub const MAX_LENGTH: u64 = 1 << 28;

/// The fields of `config.json`; those of `text_config`, where there is one, come first.
pub struct Fields {
    json: Json,
    /// What an error says before a field's name.
    place: &'static str,
}

/// Lengths that the shapes of weights are made of.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    pub vocabulary: usize,
    pub width: usize,
    pub layers: Vec<Layer>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward: usize,
    pub context: usize,
    pub token_types: usize,
    /// Experts, and the inner length of one; 0 where there are none.
    pub experts: usize,
    pub expert_length: usize,
    /// Inner length of the expert that all tokens take; 0 where there is none.
    pub shared_length: usize,
    /// Length of each layer's own input of a token; 0 where there is none.
    pub layer_input: usize,
    /// Positions that a convolution sees; 0 where there are none.
    pub kernel: usize,
    /// A delta net's heads of keys and of values, and the length of one; 0 where there is none.
    pub delta_key_heads: usize,
    pub delta_value_heads: usize,
    pub delta_head: usize,
    /// A state space's heads, groups of them, the length of a state, and that of all heads' values; 0 where there is none.
    pub state_heads: usize,
    pub state_groups: usize,
    pub state_length: usize,
    pub state_values: usize,
    /// What a classifier tells apart.
    pub labels: usize,
}

/// RoPE as newer folders keep it in `rope_parameters` and older ones beside `rope_scaling`.
pub struct RopeFields {
    /// Of layers that see everything.
    pub full: Fields,
    /// The base of layers that see a window, where they have their own.
    pub local_base: Option<f64>,
}

impl Fields {
    /// The fields of `config.json` as they stand, with no family's defaults.
    #[must_use]
    pub fn plain(json: Json) -> Fields {
        Fields { json, place: "" }
    }

    /// The fields of a folder's `config.json`, with the defaults of its family.
    ///
    /// # Errors
    /// When the architecture is unknown (the known ones are listed), or the weights are quantised already.
    pub fn of(mut json: Json) -> Result<(Fields, Family)> {
        let class = json["architectures"][0].as_str().map(str::to_owned);
        if let Some(text) = json["text_config"].as_object().cloned()
            && let Some(fields) = json.as_object_mut()
        {
            fields.extend(text);
        }
        let kind = json["model_type"].as_str();
        let own = Fields::plain(json.clone());
        let family = match &class {
            Some(class) => {
                let mut all = Family::all().filter(|f| f.classes.contains(&&**class));
                all.find(|f| (f.accepts)(&own))
            }
            None => Family::all().find(|f| Some(f.model_type) == kind),
        };
        let Some(family) = family else {
            let mut known: Vec<_> = Family::all().flat_map(|f| f.classes).copied().collect();
            known.sort_unstable();
            known.dedup();
            return refuse(format!(
                "{} is not known; known are {}",
                class
                    .as_deref()
                    .or(kind)
                    .unwrap_or("a model without \"architectures\""),
                known.join(", ")
            ));
        };
        ensure!(
            json["quantization_config"].is_null(),
            "the weights are quantised ({}); expected a folder in f32, f16 or bf16",
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
        let fields = Fields::plain(json);
        let activation = ["hidden_activation", "hidden_act"]
            .into_iter()
            .find_map(|key| fields[key].as_str());
        ensure!(
            activation.is_none_or(|name| family.activations.contains(&name)),
            "activation {:?}; the runtime's {} has {:?}",
            activation.unwrap_or_default(),
            family.name,
            family.activations[0]
        );
        Ok((fields, family))
    }

    /// All of them.
    #[must_use]
    pub fn json(&self) -> &Json {
        &self.json
    }

    fn wrong(&self, why: String) -> Error {
        Error(format!("{}{why}", self.place))
    }

    /// A whole number, if it is there.
    pub fn opt_number(&self, key: &str) -> Result<Option<u32>> {
        match &self[key] {
            Json::Null => Ok(None),
            value => {
                let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
                let wrong = || self.wrong(format!("{key}: expected a whole number, got {value}"));
                number.ok_or_else(wrong).map(Some)
            }
        }
    }

    /// A whole number.
    pub fn number(&self, key: &str) -> Result<u32> {
        self.opt_number(key)?
            .ok_or_else(|| self.wrong(format!("{key} is missing")))
    }

    /// A finite number, if it is there.
    pub fn opt_float(&self, key: &str) -> Result<Option<f64>> {
        match &self[key] {
            Json::Null => Ok(None),
            value => {
                let number = value.as_f64().filter(|x| x.is_finite());
                let wrong = || self.wrong(format!("{key}: expected a number, got {value}"));
                number.ok_or_else(wrong).map(Some)
            }
        }
    }

    /// A finite number.
    pub fn float(&self, key: &str) -> Result<f64> {
        self.opt_float(key)?
            .ok_or_else(|| self.wrong(format!("{key} is missing")))
    }

    /// Whether it is true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self[key] == true
    }

    /// Whether it is a number above 0.
    #[must_use]
    pub fn any(&self, key: &str) -> bool {
        self[key].as_u64().is_some_and(|n| n > 0)
    }

    /// A number that can be a dimension.
    pub fn length(&self, key: &str) -> Result<usize> {
        let value = u64::from(self.number(key)?);
        ensure!(
            (1..=MAX_LENGTH).contains(&value),
            "{key} = {value}: expected 1 to {MAX_LENGTH}"
        );
        Ok(value as usize)
    }

    /// The lengths that a family's weights have by these fields.
    ///
    /// # Errors
    /// Names a field that is missing or contradicts others.
    pub fn shape(&self, family: Family) -> Result<Shape> {
        let or = |key: &str, default: usize| {
            if self[key].is_null() {
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
            !self["head_dim"].is_null() || width.is_multiple_of(heads),
            "hidden_size {width} does not divide into {heads} heads"
        );
        let kv_heads = or("num_key_value_heads", heads)?;
        ensure!(
            heads.is_multiple_of(kv_heads) && head_dim > 0,
            "{heads} heads, {kv_heads} key-value heads of {head_dim} values"
        );
        let layers = (family.layers)(self, self.length("num_hidden_layers")?)?;
        let has = |kind| layers.iter().flatten().any(|other| *other == kind);
        let of = |kind, key: &str| if has(kind) { self.length(key) } else { Ok(0) };
        let experts = ["num_local_experts", "num_experts"]
            .into_iter()
            .find(|key| !self[*key].is_null());
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
            expert_length: of(Kind::Experts, family.expert_length)?,
            shared_length: match self.opt_number(family.shared_length)? {
                Some(1..) if has(Kind::Experts) => self.length(family.shared_length)?,
                _ => 0,
            },
            layer_input: self.opt_number("hidden_size_per_layer_input")?.unwrap_or(0) as usize,
            kernel: of(Kind::DeltaNet, "linear_conv_kernel_dim")?
                + of(Kind::StateSpace, "mamba_d_conv")?
                + of(Kind::ShortConv, "conv_L_cache")?,
            delta_key_heads: of(Kind::DeltaNet, "linear_num_key_heads")?,
            delta_value_heads: of(Kind::DeltaNet, "linear_num_value_heads")?,
            delta_head: of(Kind::DeltaNet, "linear_value_head_dim")?,
            state_heads: of(Kind::StateSpace, "mamba_n_heads")?,
            state_groups: of(Kind::StateSpace, "mamba_n_groups")?,
            state_length: of(Kind::StateSpace, "mamba_d_state")?,
            state_values: of(Kind::StateSpace, "mamba_expand")? * width,
            labels: self["id2label"]
                .as_object()
                .map_or(2, |labels| labels.len()),
            layers,
        })
    }

    /// Whether the folder's class classifies texts, as rerankers do.
    #[must_use]
    pub fn classifies(&self) -> bool {
        let class = self["architectures"][0].as_str();
        class.is_some_and(|class| class.ends_with("ForSequenceClassification"))
    }

    /// The rotary embedding.
    #[must_use]
    pub fn rope(&self) -> RopeFields {
        let found = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|key| self[*key].is_object());
        let mut full = found.map_or_else(|| json!({}), |key| self[key].clone());
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
                    self[outside].clone()
                };
            }
        }
        let local_base = local["rope_theta"]
            .as_f64()
            .or(self["rope_local_base_freq"].as_f64());
        RopeFields {
            full: Fields {
                json: full,
                place: "RoPE: ",
            },
            local_base,
        }
    }

    /// Which layers see only a window, where the folder says so.
    pub fn local_layers(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        if let Some(types) = self["layer_types"].as_array() {
            ensure!(
                types.len() == layers,
                "layer_types has {} entries for {layers} layers",
                types.len()
            );
            return Ok(Some(
                types.iter().map(|t| t == "sliding_attention").collect(),
            ));
        }
        let period = ["sliding_window_pattern", "_sliding_window_pattern"]
            .into_iter()
            .find_map(|key| self[key].as_u64());
        Ok(period.filter(|&n| n > 0).map(|period| {
            (1..=layers as u64)
                .map(|layer| layer % period != 0)
                .collect()
        }))
    }
}

impl Index<&str> for Fields {
    type Output = Json;

    /// The field as it stands; null where there is none.
    fn index(&self, key: &str) -> &Json {
        &self.json[key]
    }
}

/// Whether a `longrope` entry has the same factors for short and long texts, and scales nothing else.
#[must_use]
pub fn same_for_all_lengths(rope: &Json) -> bool {
    rope["short_factor"] == rope["long_factor"] && rope["attention_factor"] == 1.0
}

/// What kind of scaling a folder asks for.
#[must_use]
pub fn rope_type(rope: &Fields) -> &str {
    rope["rope_type"].as_str().unwrap_or("default")
}
