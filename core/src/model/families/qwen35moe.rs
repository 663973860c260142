//! Qwen 3.5's mixtures of experts: Qwen 3.5 with experts in every layer, and one that all tokens take, gated.

use super::super::config::{Config, ExpertScores, SharedExpert};
use super::super::keys::Keys;
use super::{Architecture, experts, qwen35, with_experts};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen35moe",
    config,
    ..qwen35::FAMILY
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut experts = experts(keys, ExpertScores::Softmax)?;
    experts.shared = Some(SharedExpert {
        length: keys.length(key::EXPERT_SHARED_FEED_FORWARD_LENGTH)?,
        gated: true,
    });
    Ok(with_experts(qwen35::config(keys)?, experts))
}
