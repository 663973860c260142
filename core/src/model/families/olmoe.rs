//! OLMoE (arXiv:2409.02060): experts in every layer, whose scores are not normalised over those that a token takes; all heads of a token's queries or keys are
//! normalised together.

use super::super::config::{Config, ExpertScores, Experts, HeadNorm};
use super::super::keys::Keys;
use super::{Architecture, LLAMA, decoder, experts, with_experts};
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "olmoe",
    pairs: Pairs::Halves,
    config,
    #[cfg(feature = "folders")]
    folder: super::NO_FOLDER,
    ..LLAMA
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    if let Some(clamp) = keys.nonzero(key::CLAMP_KQV)? {
        let key = keys.name(key::CLAMP_KQV);
        return Err(keys.bad(&key, "0 or absent".into(), clamp));
    }
    let config = Config {
        head_norm: Some(HeadNorm::Whole),
        ..decoder(keys)?
    };
    let experts = Experts {
        normalized: false,
        ..experts(keys, ExpertScores::Softmax)?
    };
    Ok(with_experts(config, experts))
}
