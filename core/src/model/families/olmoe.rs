//! OLMoE (arXiv:2409.02060): experts in every layer, whose scores are not normalised over those that a token takes; all heads of a token's queries or keys are
//! normalised together.

use super::super::config::{Config, ExpertScores, Experts, HeadNorm};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, experts, with_experts};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "olmoe",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    if let Some(clamp) = keys.nonzero("attention.clamp_kqv")? {
        let key = keys.name("attention.clamp_kqv");
        return Err(keys.bad(&key, "0 or absent".into(), clamp));
    }
    let config = Config {
        head_norm: Some(HeadNorm::Whole),
        ..decoder(keys, Pairs::Halves)?
    };
    let experts = Experts {
        normalized: false,
        ..experts(keys, ExpertScores::Softmax)?
    };
    Ok(with_experts(config, experts))
}
