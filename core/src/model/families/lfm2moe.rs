//! LFM2's mixtures of experts (arXiv:2511.23404): LFM2 whose layers after the first ones have experts, with logistic scores and a bias in their choice.

use super::super::config::{Config, ExpertScores, FeedForward};
use super::super::keys::Keys;
use super::{Architecture, experts, lfm2};
use crate::Result;

pub(super) const FAMILY: Architecture = Architecture {
    name: "lfm2moe",
    config,
    names: &lfm2::NAMES,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = lfm2::config(keys)?;
    let experts = experts(keys, ExpertScores::Sigmoid)?;
    let dense = keys
        .nonzero_length("leading_dense_block_count")?
        .unwrap_or(0);
    for layer in config.layers.iter_mut().skip(dense) {
        layer.feed_forward = FeedForward::Experts(experts.clone());
    }
    Ok(config)
}
