//! Granite's mixtures of experts: Granite with experts in every layer, and in some models one that all tokens take.

use super::super::config::{Config, ExpertScores};
use super::super::keys::Keys;
use super::{Architecture, experts, granite, with_experts};
use crate::Result;

pub(super) const FAMILY: Architecture = Architecture {
    name: "granitemoe",
    config,
    #[cfg(feature = "folders")]
    folder: super::NO_FOLDER,
    ..granite::FAMILY
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let experts = experts(keys, ExpertScores::Softmax)?;
    Ok(with_experts(granite::config(keys)?, experts))
}
