//! Qwen 3's mixtures of experts (arXiv:2505.09388): Qwen 3 with experts in every layer, whose softmax is normalised over those that a token takes.

use super::super::config::{Config, ExpertScores, HeadNorm};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, experts, with_experts};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen3moe",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let config = Config {
        head_norm: Some(HeadNorm::Shared),
        ..decoder(keys, Pairs::Halves)?
    };
    Ok(with_experts(config, experts(keys, ExpertScores::Softmax)?))
}
