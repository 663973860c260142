//! Gemma 4's text decoder, without experts: Gemma 3's norms and windows, where layers that see everything have heads of their own length. The last layers
//! may read the KV cache of an earlier one of their kind, and layers may get an input of their own (per-layer embeddings), both as in Gemma 3n.

use super::super::config::{Activation, Config, HeadNorm, Heads, Rope, Rotation, Scope};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, gemma2, rms_and_rope, shape_of};
use crate::Result;
use crate::gguf::names::tensor::weight;
use crate::gguf::names::{key, tensor};

pub(super) const FAMILY: Architecture = Architecture {
    name: "gemma4",
    config,
    names: &NAMES,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..gemma2::FAMILY
};

const NAMES: Names = Names {
    output_scale: Some(tensor::LAYER_OUTPUT_SCALE),
    ..gemma2::NAMES
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let kv_heads = keys.lengths(key::HEAD_COUNT_KV)?; // [layers]
    if let Some(other) = kv_heads.iter().find(|n| **n == 0) {
        let key = keys.name(key::HEAD_COUNT_KV);
        return Err(keys.bad(&key, "numbers from 1".into(), other));
    }
    let mut config = rms_and_rope(keys, shape_of(keys, kv_heads.first().copied())?)?;
    config.activation = Activation::GeluGated;
    config.embedding_scale = (config.embedding_length as f32).sqrt();
    config.head_norm = Some(HeadNorm::Shared);
    config.value_norm = true;
    config.attention_scale = 1.0;
    config.logit_cap = keys.nonzero(key::LOGIT_CAP)?;
    config.per_layer_input = keys.nonzero_length(key::EMBEDDING_LENGTH_PER_LAYER)?;

    let local = keys.local_layers(config.layers.len(), 6)?;
    let window = keys.length(key::SLIDING_WINDOW)?;
    let own = keys.opt_length(key::KEY_LENGTH_LOCAL)?;
    let lengths = [own, keys.opt_length(key::VALUE_LENGTH_LOCAL)?];
    for (number, scope) in config.scopes_mut().enumerate() {
        scope.heads = heads(keys, scope.heads, kv_heads[number])?;
        if local[number] {
            scope.window = Some(window);
            scope.rotation = Rotation::Local;
            scope.heads.key_length = lengths[0].unwrap_or(scope.heads.key_length);
            scope.heads.value_length = lengths[1].unwrap_or(scope.heads.value_length);
        }
    }
    share_caches(keys, &mut config)?;
    tie_values(keys, &mut config)?;
    config.local_rope = Some(local_rope(keys, &config)?);
    Ok(config)
}

fn heads(keys: &Keys<'_>, heads: Heads, kv: usize) -> Result<Heads> {
    if heads.queries.is_multiple_of(kv) {
        return Ok(Heads { kv, ..heads });
    }
    let expected = format!("divisors of the {} query heads", heads.queries);
    Err(keys.bad(&keys.name(key::HEAD_COUNT_KV), expected, kv))
}

/// The last layers read the cache of the last one before them that has one and sees as much.
fn share_caches(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    let layers = config.layers.len();
    let shared = keys.nonzero_length(key::SHARED_KV_LAYERS)?.unwrap_or(0);
    let scopes: Vec<Scope> = config.scopes().copied().collect();
    let own = layers.saturating_sub(shared);
    for (number, scope) in config.scopes_mut().enumerate().skip(own) {
        let same = |other: &Scope| other.window == scope.window && other.heads == scope.heads;
        let Some(layer) = scopes[..own].iter().rposition(same) else {
            let expected = format!(
                "less: layer {number} would have no layer with its heads and window to share with"
            );
            return Err(keys.bad(&keys.name(key::SHARED_KV_LAYERS), expected, shared));
        };
        scope.cache_of = Some(layer);
    }
    Ok(())
}

/// Layers without a matrix for values take the keys.
fn tie_values(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    for (number, scope) in config.scopes_mut().enumerate() {
        let has = |name| {
            let name = format!("blk.{number}.{}", weight(name));
            keys.file.get_tensor(&name).is_some()
        };
        if scope.cache_of.is_some() || has(tensor::ATTN_V) || has(tensor::ATTN_QKV) {
            continue;
        }
        let Heads {
            key_length,
            value_length,
            ..
        } = scope.heads;
        if key_length != value_length {
            let key = keys.name(key::VALUE_LENGTH);
            let expected = format!("{key_length}: layer {number} takes its keys as values");
            return Err(keys.bad(&key, expected, value_length));
        }
        scope.tied_values = true;
    }
    Ok(())
}

/// The rotation of layers that see a window.
fn local_rope(keys: &Keys<'_>, config: &Config) -> Result<Rope> {
    let mut local = config.scopes().filter(|scope| scope.window.is_some());
    let length = local.next().map_or(2, |scope| scope.heads.key_length);
    let dimensions = keys.opt_length(key::ROPE_DIMENSION_COUNT_LOCAL)?;
    let dimensions = dimensions.unwrap_or(length);
    if !dimensions.is_multiple_of(2) || dimensions > length {
        let key = keys.name(key::ROPE_DIMENSION_COUNT_LOCAL);
        let expected = format!("an even number up to the head's length {length}");
        return Err(keys.bad(&key, expected, dimensions));
    }
    Ok(Rope {
        dimensions,
        ..config.rope.local(keys, 10_000.0)?
    })
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::gemma2;
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;
    use serde_json::Value as Json;

    const INPUT: &str = "hidden_size_per_layer_input";

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"],
        model_type: "gemma4_text",
        defaults: &[
            ("vocab_size", 262_144.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 1e-6),
            ("sliding_window", 512.0),
            (INPUT, 256.0),
            ("num_kv_shared_layers", 0.0),
        ],
        keys,
        top: &[
            matrix(
                "embed_tokens",
                tensor::TOKEN_EMBD,
                Dim::Vocabulary,
                Dim::Width,
            ),
            matrix(
                "embed_tokens_per_layer",
                tensor::PER_LAYER_TOKEN_EMBD,
                Dim::Vocabulary,
                Dim::LayerInputs,
            )
            .when_any(INPUT),
            matrix(
                "per_layer_model_projection",
                tensor::PER_LAYER_MODEL_PROJ,
                Dim::LayerInputs,
                Dim::Width,
            )
            .when_any(INPUT),
            vector(
                "per_layer_projection_norm",
                tensor::PER_LAYER_PROJ_NORM,
                Dim::LayerInput,
            )
            .when_any(INPUT),
            vector("norm", tensor::OUTPUT_NORM, Dim::Width),
        ],
        layers,
        layer_shape,
        parts: PARTS,
        unused: &[
            "vision_tower.",
            "audio_tower.",
            "embed_vision.",
            "embed_audio.",
            "multi_modal_projector.",
        ],
        shifted_norms: false,
        pre: "gemma4",
        ..gemma2::FAMILY.folder
    };

    const PARTS: &[Group] = &[
        GEMMA_NORMS,
        POST_NORMS,
        FEED_FORWARD,
        every(&[
            matrix("self_attn.q_proj", tensor::ATTN_Q, Dim::Queries, Dim::Width),
            matrix(
                "self_attn.o_proj",
                tensor::ATTN_OUTPUT,
                Dim::Width,
                Dim::Queries,
            ),
            vector("self_attn.q_norm", tensor::ATTN_Q_NORM, Dim::Head),
            buffer("layer_scalar", tensor::LAYER_OUTPUT_SCALE, Dim::One),
            matrix(
                "per_layer_input_gate",
                tensor::PER_LAYER_INP_GATE,
                Dim::LayerInput,
                Dim::Width,
            )
            .when_any(INPUT),
            matrix(
                "per_layer_projection",
                tensor::PER_LAYER_PROJ,
                Dim::Width,
                Dim::LayerInput,
            )
            .when_any(INPUT),
            vector(
                "post_per_layer_input_norm",
                tensor::PER_LAYER_POST_NORM,
                Dim::Width,
            )
            .when_any(INPUT),
        ]),
        only(
            Kind::Attention,
            &[
                matrix("self_attn.k_proj", tensor::ATTN_K, Dim::Keys, Dim::Width),
                matrix("self_attn.v_proj", tensor::ATTN_V, Dim::Keys, Dim::Width),
                vector("self_attn.k_norm", tensor::ATTN_K_NORM, Dim::Head),
            ],
        ),
        only(
            Kind::TiedAttention,
            &[
                matrix("self_attn.k_proj", tensor::ATTN_K, Dim::Keys, Dim::Width),
                vector("self_attn.k_norm", tensor::ATTN_K_NORM, Dim::Head),
            ],
        ),
        // Published checkpoints still have what layers once had that read another one's cache.
        only(
            Kind::SharedAttention,
            &[
                skipped("self_attn.k_proj"),
                skipped("self_attn.v_proj"),
                skipped("self_attn.k_norm"),
            ],
        ),
    ];

    /// Which layers see a window.
    fn local(fields: &Fields, layers: usize) -> Result<Vec<bool>> {
        let stated = fields.local_layers(layers)?;
        Ok(stated.unwrap_or_else(|| (1..=layers).map(|layer| layer % 6 != 0).collect()))
    }

    /// A layer without a window, as `per_layer_config` has it in newer folders.
    fn global<'a>(fields: &'a Fields, local: &[bool], name: &str) -> &'a Json {
        let number = local.iter().position(|local| !local).unwrap_or_default();
        &fields["per_layer_config"][number.to_string()][name]
    }

    /// The heads' length in layers without a window.
    fn global_head(fields: &Fields, local: &[bool]) -> Result<usize> {
        match global(fields, local, "head_dim").as_u64() {
            Some(length @ 2..=MAX_LENGTH) => Ok(length as usize),
            _ if fields["global_head_dim"].is_null() => Ok(512),
            _ => fields.length("global_head_dim"),
        }
    }

    /// Key and value heads in layers without a window, where these have another number.
    fn global_kv_heads(fields: &Fields, local: &[bool]) -> Result<Option<usize>> {
        match global(fields, local, "num_key_value_heads").as_u64() {
            Some(heads @ 1..=MAX_LENGTH) => Ok(Some(heads as usize)),
            _ if !fields.flag("attention_k_eq_v") => Ok(None),
            _ if fields["num_global_key_value_heads"].is_null() => Ok(None),
            _ => fields.length("num_global_key_value_heads").map(Some),
        }
    }

    /// Layers before this one have keys and values of their own.
    fn own(fields: &Fields, layers: usize) -> Result<usize> {
        let shared = fields.number("num_kv_shared_layers")? as usize;
        match layers.checked_sub(shared) {
            Some(own @ 1..) => Ok(own),
            _ => refuse(format!(
                "num_kv_shared_layers is {shared} of {layers} layers"
            )),
        }
    }

    fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        ensure!(
            !fields.flag("enable_moe_block"),
            "enable_moe_block: Gemma 4 with experts is not supported"
        );
        let (local, own) = (local(fields, layers)?, own(fields, layers)?);
        let tied = fields.flag("attention_k_eq_v");
        let mixer = |layer: usize| match layer {
            layer if layer >= own => Kind::SharedAttention,
            layer if tied && !local[layer] => Kind::TiedAttention,
            _ => Kind::Attention,
        };
        Ok((0..layers)
            .map(|layer| [mixer(layer), Kind::Dense])
            .collect())
    }

    fn layer_shape(fields: &Fields, shape: &Shape, number: usize) -> Result<Shape> {
        let layers = shape.layers.len();
        let mut shape = shape.clone();
        let local = local(fields, layers)?;
        if !local[number] {
            shape.head_dim = global_head(fields, &local)?;
            shape.kv_heads = global_kv_heads(fields, &local)?.unwrap_or(shape.kv_heads);
        }
        if fields.flag("use_double_wide_mlp") && number >= own(fields, layers)? {
            shape.feed_forward *= 2;
        }
        Ok(shape)
    }

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            fields["use_bidirectional_attention"] != "all",
            "use_bidirectional_attention is \"all\"; the runtime's {} sees only what stands before",
            entries.architecture()
        );
        let layers = shape.layers.len();
        let local = local(fields, layers)?;
        decoder(fields, shape, entries)?;
        if let Some(cap) = fields.opt_float("final_logit_softcapping")? {
            entries.float(key::LOGIT_CAP, cap);
        }
        entries.own(key::SLIDING_WINDOW, fields.number("sliding_window")?);
        let shared = layers - own(fields, layers)?;
        entries.number(key::SHARED_KV_LAYERS, shared)?;
        entries.number(key::EMBEDDING_LENGTH_PER_LAYER, shape.layer_input)?;
        let global = global_head(fields, &local)?;
        entries.number(key::KEY_LENGTH, global)?;
        entries.number(key::VALUE_LENGTH, global)?;
        entries.number(key::KEY_LENGTH_LOCAL, shape.head_dim)?;
        entries.number(key::VALUE_LENGTH_LOCAL, shape.head_dim)?;
        entries.number(key::ROPE_DIMENSION_COUNT, global)?;
        entries.number(key::ROPE_DIMENSION_COUNT_LOCAL, shape.head_dim)?;
        let each = |length: fn(&Shape) -> usize| -> Result<Vec<i32>> {
            let of = |number| Ok(length(&layer_shape(fields, shape, number)?) as i32);
            (0..layers).map(of).collect() // at most twice `MAX_LENGTH`
        };
        if fields.flag("use_double_wide_mlp") {
            entries.own(key::FEED_FORWARD_LENGTH, each(|shape| shape.feed_forward)?);
        }
        if global_kv_heads(fields, &local)?.is_some() {
            entries.own(key::HEAD_COUNT_KV, each(|shape| shape.kv_heads)?);
        }
        entries.own(key::SLIDING_WINDOW_PATTERN, local);
        Ok(())
    }
}
