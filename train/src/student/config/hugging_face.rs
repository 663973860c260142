//! `config.json` of a Hugging Face folder: read through the family's description, so that a field means what it means to the file that is made of
//! the folder, and written so that the description and transformers read it.

use anyhow::{Context, Result, bail, ensure};
use dram_core::gguf::names::tensor;
use dram_core::model::folder::{Entries, Family, Fields, Kind, Shape, same_for_all_lengths};
use dram_core::model::{HeadNorm, NormKind, Rotation};
use dram_files::write::Head;
use serde_json::{Value as Json, json};

use super::{Biases, Config};
use crate::student::layout;

impl Config {
    /// Reads `config.json` of a Hugging Face folder.
    ///
    /// # Errors
    /// When a field is missing, asks for something that this decoder does not do, or the family is none of [`families`].
    pub fn from_hugging_face(json: &Json) -> Result<Self> {
        let (fields, family) = Fields::of(complete(json))?;
        supported(family)?;
        let shape = fields.shape(family)?;
        // The lengths are looked at before anything is made of them.
        let sizes = Config {
            family,
            vocabulary: shape.vocabulary,
            embedding_length: shape.width,
            layers: shape.layers.len(),
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            feed_forward_length: shape.feed_forward,
            context_length: shape.context,
            ..Config::default()
        };
        sizes.check().context("config.json")?;
        let read = described(&fields, family, &shape)?;
        let head_length = read.heads().map(|heads| heads.key_length);
        ensure!(
            head_length == Some(shape.head_dim),
            "config.json: head_dim = {}; a head of the {} family has hidden_size / num_attention_heads = {} dimensions",
            shape.head_dim,
            family.name,
            head_length.unwrap_or_default()
        );
        let mut config = Config::of(family, &read).context("config.json")?;
        config.vocabulary = shape.vocabulary;
        let tied = fields["tie_word_embeddings"].as_bool();
        config.tied_embeddings = tied.unwrap_or(family.tied);
        config.options.biases = Biases {
            qkv: family.has_bias(tensor::ATTN_Q, &fields),
            output: family.has_bias(tensor::ATTN_OUTPUT, &fields),
            feed_forward: family.has_bias(tensor::FFN_UP, &fields),
        };
        config.rope_factors = rope_factors(fields.rope().full.json(), &config)?;
        config.check().context("config.json")?;
        Ok(config)
    }

    /// A decoder of the family that GGUF calls `architecture`, with the lengths, the base and the epsilon of `shape`, and what the family has of its own
    /// as a folder that does not say has it.
    ///
    /// # Errors
    /// When the family is none of [`families`], or the numbers contradict each other.
    pub fn of_family(architecture: &str, shape: Config) -> Result<Self> {
        let Some(family) = families().find(|family| family.name == architecture) else {
            bail!(
                "architecture {architecture:?} is not known; known are {}",
                names().join(", ")
            );
        };
        let mut config = Config { family, ..shape };
        if let Some(share) = default_of(family, "partial_rotary_factor") {
            config.options.rotated = Some((config.head_dim as f64 * share) as usize / 2 * 2);
        }
        config.check()?;
        config.check_file()?;
        let mut json = config.to_hugging_face();
        // What the family sees by default, its description says.
        for field in ["sliding_window", "layer_types"] {
            json[field].take();
        }
        Self::from_hugging_face(&json)
    }

    /// The `config.json` that [`Config::from_hugging_face`] and transformers read.
    pub fn to_hugging_face(&self) -> Json {
        let (family, o) = (self.family, &self.options);
        let (class, model_type) = self.class();
        let mut json = json!({
            "architectures": [class],
            "model_type": model_type,
            "vocab_size": self.vocabulary,
            "hidden_size": self.embedding_length,
            "intermediate_size": self.feed_forward_length,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context_length,
            "rope_theta": self.rope_base,
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied_embeddings,
            "hidden_act": family.activations[0],
            "attention_bias": o.biases.output,
            "mlp_bias": o.biases.feed_forward,
            "torch_dtype": "float32",
            // Not transformers' defaults, which are Llama 2's.
            "bos_token_id": null,
            "eos_token_id": null,
            "pad_token_id": null,
        });
        match self.rope_factors[..] {
            [] => {}
            [factor, ref others @ ..] if others.iter().all(|f| *f == factor) => {
                json["rope_scaling"] = json!({ "rope_type": "linear", "factor": factor });
            }
            // Any factors at all, the same for short and long texts.
            _ => {
                json["rope_scaling"] = json!({
                    "rope_type": "longrope",
                    "short_factor": self.rope_factors,
                    "long_factor": self.rope_factors,
                    "factor": 1.0,
                    "attention_factor": 1.0,
                    "original_max_position_embeddings": self.context_length,
                });
            }
        }
        let mut set = |field: &str, value: Json| json[field] = value;
        if family.activations[0] != "silu" {
            set("hidden_activation", json!(family.activations[0]));
        }
        if o.norm == NormKind::Layer || default_of(family, "layer_norm_eps").is_some() {
            set("layer_norm_eps", json!(self.norm_eps));
        }
        if family.name == "stablelm" {
            set("use_qkv_bias", json!(o.biases.qkv));
            set("use_parallel_residual", json!(o.parallel));
            set("qk_layernorm", json!(o.head_norm == Some(HeadNorm::Own)));
        }
        if default_of(family, "partial_rotary_factor").is_some() || o.rotated.is_some() {
            let share = self.rotated() as f64 / self.head_dim as f64;
            set("partial_rotary_factor", json!(share));
        }
        if default_of(family, "original_max_position_embeddings").is_some() {
            let context = json!(self.context_length);
            set("original_max_position_embeddings", context);
        }
        if default_of(family, "query_pre_attn_scalar").is_some() {
            let scalar = self.attention_scale().powi(-2).round();
            set("query_pre_attn_scalar", json!(scalar as u64));
        }
        let says = default_of(family, "rope_local_base_freq").is_some();
        let own = |base: &f32| says || *base != self.rope_base;
        if let Some(base) = o.local_rope_base.filter(own) {
            set("rope_local_base_freq", json!(base));
        }
        if let Some(cap) = o.attention_cap {
            set("attn_logit_softcapping", json!(cap));
        }
        if let Some(cap) = o.logit_cap {
            set("final_logit_softcapping", json!(cap));
        }
        if family.name == "granite" {
            set("attention_multiplier", json!(self.attention_scale()));
            set("embedding_multiplier", json!(o.embedding_scale));
            set("residual_multiplier", json!(o.residual_scale));
            set("logits_scaling", json!(1.0 / o.logit_scale));
        }
        if let Some(window) = o.scopes.iter().find_map(|scope| scope.window) {
            let kind = |seen: Option<usize>| match seen {
                Some(_) => "sliding_attention",
                None => "full_attention",
            };
            let kinds: Vec<&str> = o.scopes.iter().map(|scope| kind(scope.window)).collect();
            set("sliding_window", json!(window));
            set("layer_types", json!(kinds));
        }
        if o.scopes
            .iter()
            .any(|scope| scope.rotation == Rotation::None)
        {
            let rotates = |scope: &super::LayerScope| u8::from(scope.rotation != Rotation::None);
            let rotating: Vec<u8> = o.scopes.iter().map(rotates).collect();
            set("no_rope_layers", json!(rotating));
        }
        json
    }

    /// The class and the type by which transformers knows it: a window makes another model of two families.
    fn class(&self) -> (&'static str, &'static str) {
        let windowed = self
            .options
            .scopes
            .iter()
            .any(|scope| scope.window.is_some());
        match self.family.name {
            "llama" if windowed => ("MistralForCausalLM", "mistral"),
            "olmo2" if windowed => ("Olmo3ForCausalLM", "olmo3"),
            _ => (self.family.classes[0], self.family.model_type),
        }
    }

    /// Lengths that the shapes of the family's weights are made of.
    pub(in crate::student) fn shape(&self) -> Shape {
        Shape {
            vocabulary: self.vocabulary,
            width: self.embedding_length,
            layers: vec![[Kind::Attention, Kind::Dense]; self.layers],
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            feed_forward: self.feed_forward_length,
            context: self.context_length,
            token_types: 1,
            ..Shape::default()
        }
    }
}

/// The families that the decoder computes: those whose layers are attention and a dense feed-forward part.
pub fn families() -> impl Iterator<Item = Family> {
    Family::all().filter(|family| layout::places(*family))
}

fn names() -> Vec<&'static str> {
    families().map(|family| family.name).collect()
}

/// Refuses other families.
pub(super) fn supported(family: Family) -> Result<()> {
    ensure!(
        layout::places(family),
        "the training decoder does not compute the {} family; it computes {}",
        family.name,
        names().join(", ")
    );
    Ok(())
}

/// What old folders of Llama and Mistral leave out.
fn complete(json: &Json) -> Json {
    let mut json = json.clone();
    if json["architectures"].is_null() && json["text_config"].is_null() {
        match json["model_type"].as_str() {
            None => json["model_type"] = json!("llama"),
            Some("mistral") => json["architectures"] = json!(["MistralForCausalLM"]),
            Some(_) => {}
        }
    }
    if matches!(json["model_type"].as_str(), Some("llama" | "mistral")) {
        for (field, value) in [
            ("max_position_embeddings", json!(2048)),
            ("rms_norm_eps", json!(1e-6)),
        ] {
            if json[field].is_null() {
                json[field] = value;
            }
        }
    }
    json
}

/// What the runtime reads in a file that is made of such a folder.
fn described(fields: &Fields, family: Family, shape: &Shape) -> Result<dram_core::Config> {
    let mut entries = Entries::new(family.name);
    (family.keys)(fields, shape, &mut entries)?;
    entries.set("tokenizer.ggml.tokens", vec![String::new()]); // how many there are, `shape` says
    let mut head = Head::default();
    let entries = entries.into_entries();
    for (key, value) in &entries {
        head.put(key, value.get());
    }
    // Of some families the tensors' names say something too.
    let mut tensors = Vec::new();
    for (number, layer) in shape.layers.iter().enumerate() {
        let parts = family.groups(*layer).flat_map(|group| group.parts);
        let parts = parts.filter(|part| part.need.holds(fields));
        tensors.extend(parts.map(|part| format!("blk.{number}.{}", tensor::weight(part.to))));
    }
    Ok(family.config(&head.outline("config.json", &tensors)?)?)
}

/// The value of a field that the family's folders may leave out.
fn default_of(family: Family, field: &str) -> Option<f64> {
    let defaults = family.defaults.iter();
    defaults
        .copied()
        .find_map(|(name, value)| (name == field).then_some(value))
}

/// The divisors that a `rope_scaling` entry stands for.
fn rope_factors(rope: &Json, config: &Config) -> Result<Vec<f32>> {
    let kind = rope["rope_type"]
        .as_str()
        .or(rope["type"].as_str())
        .unwrap_or("default");
    let number = |key: &str| {
        rope[key]
            .as_f64()
            .with_context(|| format!("config.json: rope scaling {kind:?} has no number {key:?}"))
    };
    match kind {
        "default" => Ok(Vec::new()),
        "linear" => Ok(vec![number("factor")? as f32; config.rotated() / 2]),
        "factors" => {
            serde_json::from_value(rope["factors"].clone()).context("config.json: rope factors")
        }
        "longrope" if same_for_all_lengths(rope) => {
            serde_json::from_value(rope["short_factor"].clone())
                .context("config.json: rope factors")
        }
        // Llama 3.1: short wavelengths stay, long ones are stretched by `factor`, those between are blended.
        "llama3" => {
            let (factor, low, high) = (
                number("factor")?,
                number("low_freq_factor")?,
                number("high_freq_factor")?,
            );
            let original = number("original_max_position_embeddings")?;
            Ok(config
                .rope_frequencies()
                .iter()
                .map(|f| {
                    let turns = original * f / (2.0 * std::f64::consts::PI);
                    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
                })
                .collect())
        }
        other => bail!(
            "config.json: rope scaling {other:?} is not known; known are default, linear, llama3"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_json_round_trip_and_refusals() {
        let config = Config {
            rope_factors: vec![1.5; 16],
            kv_heads: 2,
            ..Config::default()
        };
        let json = config.to_hugging_face();
        assert_eq!(json["rope_scaling"]["rope_type"], "linear");
        assert_eq!(Config::from_hugging_face(&json).unwrap(), config);
        let config = Config {
            rope_factors: (1..=16).map(|i| i as f32 / 3.0).collect(),
            ..config
        };
        let json = config.to_hugging_face();
        assert_eq!(json["rope_scaling"]["rope_type"], "longrope");
        assert_eq!(Config::from_hugging_face(&json).unwrap(), config);
        for (key, value, word) in [
            ("num_key_value_heads", json!(3), "key-value heads"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("vocab_size", json!(-1), "vocab_size"),
            ("architectures", json!(["Lfm2ForCausalLM"]), "olmo2"),
            ("architectures", json!(["GPT2LMHeadModel"]), "GPT2"),
            ("num_hidden_layers", json!(1u64 << 40), "layers"),
            (
                "rope_scaling",
                json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
                "yarn",
            ),
        ] {
            let mut bad = json.clone();
            bad[key] = value;
            let message = format!("{:#}", Config::from_hugging_face(&bad).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }
}
