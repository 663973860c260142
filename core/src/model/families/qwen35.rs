//! Qwen 3.5, text: gated delta nets (arXiv:2412.06464), and gated attention in every fourth layer.

use super::super::config::{Config, DeltaNet, HeadNorm, Mixer};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder};
use crate::Result;
use crate::gguf::names::{key, tensor};
use crate::kernels::{MAX_DELTA_COLS, Pairs};

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen35",
    pairs: Pairs::Halves,
    config,
    names: &Names {
        feed_forward_norm: Some(tensor::POST_ATTENTION_NORM),
        ..Names::LLAMA
    },
    #[cfg(feature = "folders")]
    folder: super::NO_FOLDER,
};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = Config {
        head_norm: Some(HeadNorm::Shared),
        gated_attention: true,
        ..decoder(keys)?
    };
    let net = delta_net(keys)?;
    let recurrent = keys.flags(key::RECURRENT_LAYERS)?;
    let every = keys.opt_length(key::FULL_ATTENTION_INTERVAL)?.unwrap_or(4);
    for (number, layer) in config.layers.iter_mut().enumerate() {
        let is_recurrent = match &recurrent {
            Some(layers) => layers[number],
            None => (number + 1) % every != 0,
        };
        if is_recurrent {
            layer.mixer = Mixer::DeltaNet(net);
        }
    }
    Ok(config)
}

fn delta_net(keys: &Keys<'_>) -> Result<DeltaNet> {
    let key_length = keys.length(key::SSM_STATE_SIZE)?;
    let key_heads = keys.length(key::SSM_GROUP_COUNT)?;
    let value_heads = keys.length(key::SSM_TIME_STEP_RANK)?;
    let inner = keys.length(key::SSM_INNER_SIZE)?;
    if key_length > MAX_DELTA_COLS {
        let key = keys.name(key::SSM_STATE_SIZE);
        return Err(keys.bad(&key, format!("at most {MAX_DELTA_COLS}"), key_length));
    }
    if !value_heads.is_multiple_of(key_heads) {
        let key = keys.name(key::SSM_TIME_STEP_RANK);
        let expected = format!("a multiple of the {key_heads} key heads");
        return Err(keys.bad(&key, expected, value_heads));
    }
    if inner != value_heads * key_length {
        let key = keys.name(key::SSM_INNER_SIZE);
        let expected = format!("{value_heads} heads of {key_length}");
        return Err(keys.bad(&key, expected, inner));
    }
    Ok(DeltaNet {
        kernel: keys.kernel(key::SSM_CONV_KERNEL)?,
        key_heads,
        value_heads,
        key_length,
        value_length: key_length,
    })
}
