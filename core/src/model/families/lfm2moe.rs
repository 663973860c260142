//! LFM2's mixtures of experts (arXiv:2511.23404): LFM2 whose layers after the first ones have experts, with logistic scores and a bias in their choice.

use super::super::config::{Config, ExpertScores, FeedForward};
use super::super::keys::Keys;
use super::{Architecture, experts, lfm2};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "lfm2moe",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..lfm2::FAMILY
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = lfm2::config(keys)?;
    let experts = experts(keys, ExpertScores::Sigmoid)?;
    let dense = keys
        .nonzero_length(key::LEADING_DENSE_BLOCK_COUNT)?
        .unwrap_or(0);
    for layer in config.layers.iter_mut().skip(dense) {
        layer.feed_forward = FeedForward::Experts(experts.clone());
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::lfm2;
    use crate::gguf::names::key;
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Lfm2MoeForCausalLM"],
        model_type: "lfm2_moe",
        defaults: &[
            ("norm_eps", 1e-5),
            ("rope_theta", 1_000_000.0),
            ("conv_L_cache", 3.0),
            ("num_dense_layers", 2.0),
        ],
        keys,
        layers,
        feed_forward: stated,
        ..lfm2::FAMILY.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        const SIGMOID: usize = 2;
        lfm2::folder::keys(fields, shape, entries)?;
        expert_keys(fields, shape, entries, true)?;
        entries.number(key::EXPERT_GATING_FUNC, SIGMOID)?;
        entries.own(
            key::LEADING_DENSE_BLOCK_COUNT,
            fields.number("num_dense_layers")?,
        );
        // The converter leaves it out.
        match fields.opt_float("routed_scaling_factor")? {
            Some(scale) if scale != 1.0 => entries.float(key::EXPERT_WEIGHTS_SCALE, scale),
            _ => {}
        }
        Ok(())
    }

    /// Experts after the first layers.
    fn layers(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
        let dense = fields.number("num_dense_layers")? as usize;
        let mut all = lfm2::folder::layers(fields, layers)?;
        for [_, feed_forward] in all.iter_mut().skip(dense) {
            *feed_forward = Kind::Experts;
        }
        Ok(all)
    }
}
