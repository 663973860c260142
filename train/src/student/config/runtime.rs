//! The shape that the runtime reads in a file, as the decoder's.

use anyhow::{Context, Result, ensure};
use dram_core::model::folder::Family;
use dram_core::model::{Activation, FeedForward, Mixer};

use super::hugging_face::supported;
use super::{Config, LayerScope, Options};

impl Config {
    /// The decoder of a file that the runtime reads so. What the metadata does not say is left as in [`Config::default`]: factors of the rotary
    /// frequencies, biases, whether the embeddings are the output matrix.
    ///
    /// # Errors
    /// When it has something that the decoder does not do.
    pub(crate) fn of(family: Family, c: &dram_core::Config) -> Result<Self> {
        supported(family)?;
        let mut scopes = Vec::with_capacity(c.layers.len());
        for layer in &c.layers {
            let (Mixer::Attention(scope), FeedForward::Dense { .. }) =
                (layer.mixer, &layer.feed_forward)
            else {
                anyhow::bail!("a layer without attention or without a dense feed-forward part");
            };
            ensure!(
                Some(&scope.heads) == c.heads() && scope.cache_of.is_none() && !scope.tied_values,
                "layers with heads of several kinds, or without keys and values of their own"
            );
            scopes.push(LayerScope {
                window: scope.window,
                rotation: scope.rotation,
            });
        }
        let heads = c.heads().context("no layers")?;
        let ropes = [Some(&c.rope), c.local_rope.as_ref()].into_iter().flatten();
        for rope in ropes {
            ensure!(
                rope.yarn.is_none() && rope.attention_factor == 1.0,
                "RoPE scaled as YaRN (yarn) or LongRoPE do; the decoder has none, linear scaling, and Llama 3's"
            );
        }
        let local = c.local_rope.as_ref();
        ensure!(
            local.is_none_or(|rope| rope.scale == 1.0),
            "scaled RoPE in layers that see a window"
        );
        ensure!(
            heads.key_length == heads.value_length && !c.value_norm && c.per_layer_input.is_none(),
            "heads of {} keys and {} values; the decoder has one length for both, and neither norms of values nor inputs of layers",
            heads.key_length,
            heads.value_length
        );
        ensure!(
            c.causal
                && c.pooling.is_none()
                && !c.gated_attention
                && c.activation != Activation::Gelu,
            "an encoder, gated attention or an activation without a gate, which the decoder does not compute"
        );
        if scopes.iter().all(|scope| *scope == LayerScope::ALL) {
            scopes.clear();
        }
        let usual = 1.0 / (heads.key_length as f32).sqrt();
        Ok(Config {
            family,
            vocabulary: c.vocabulary,
            embedding_length: c.embedding_length,
            layers: c.layers.len(),
            heads: heads.queries,
            kv_heads: heads.kv,
            head_dim: heads.key_length,
            feed_forward_length: c.feed_forward_length(),
            context_length: c.context_length,
            rope_base: c.rope.base,
            rope_factors: Vec::new(),
            norm_eps: c.norm_epsilon,
            tied_embeddings: true,
            options: Options {
                norm: c.norm,
                head_norm: c.head_norm,
                parallel: c.parallel,
                activation: c.activation,
                rotated: (c.rope.dimensions != heads.key_length).then_some(c.rope.dimensions),
                local_rope_base: local.map(|rope| rope.base),
                scopes,
                embedding_scale: c.embedding_scale,
                residual_scale: c.residual_scale,
                logit_scale: c.logit_scale,
                attention_scale: (c.attention_scale != usual).then_some(c.attention_scale),
                attention_cap: c.attention_cap,
                logit_cap: c.logit_cap,
                ..Options::default()
            },
        })
    }
}
