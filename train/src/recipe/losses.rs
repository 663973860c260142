//! `[losses]`: what is minimised. A loss's settings are checked where it is defined, in [`crate::loss`].

use std::collections::BTreeMap;

use crate::loss::LossConfig;

/// The losses of a recipe that names none.
pub(super) fn default(with_teacher: bool) -> BTreeMap<String, LossConfig> {
    let losses: &[(&str, f32)] = match with_teacher {
        false => &[("cross_entropy", 1.0)],
        true => &[("cross_entropy", 0.3), ("forward_kl", 1.0)],
    };
    losses
        .iter()
        .map(|(name, weight)| ((*name).into(), LossConfig::new(*weight)))
        .collect()
}
