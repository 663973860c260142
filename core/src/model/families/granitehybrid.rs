//! Granite 4's hybrids: Mamba-2's state spaces (arXiv:2405.21060) in most layers, attention without rotation in some; dense, or with experts.

use super::super::config::{Config, ExpertScores, Mixer, StateRule};
use super::super::keys::Keys;
use super::{
    Architecture, experts, granite, kv_heads_by_layer, linear_attention, rms_and_rope, shape_of,
    with_experts,
};
use crate::Result;
use crate::gguf::names::key;

pub(super) const FAMILY: Architecture = Architecture {
    name: "granitehybrid",
    config,
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
    ..granite::FAMILY
};

/// A layer with no heads of keys and values has a state space.
fn config(keys: &Keys<'_>) -> Result<Config> {
    let (heads, kv_heads) = kv_heads_by_layer(keys)?;
    let shape = shape_of(keys, kv_heads)?;
    let mut config = granite::with_scales(keys, rms_and_rope(keys, shape)?)?;
    let state_space = linear_attention(keys, StateRule::StateSpace)?;
    for (layer, heads) in config.layers.iter_mut().zip(heads) {
        if heads == 0 {
            layer.mixer = Mixer::LinearAttention(state_space);
        }
    }
    match keys.nonzero_length(key::EXPERT_COUNT)? {
        Some(_) => Ok(with_experts(config, experts(keys, ExpertScores::Softmax)?)),
        None => Ok(config),
    }
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::granite::folder::{FEED_FORWARD, HYBRID, is_hybrid, layers};
    use super::super::granitemoe::folder::{EXPERTS, SHARED_EXPERT};
    use super::super::{granite, granitemoe};
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &[HYBRID],
        accepts: is_hybrid,
        model_type: "granitemoehybrid",
        defaults: &[
            ("mamba_n_heads", 128.0),
            ("mamba_n_groups", 1.0),
            ("mamba_d_state", 256.0),
            ("mamba_d_conv", 4.0),
            ("mamba_expand", 2.0),
        ],
        keys,
        layers,
        feed_forward: granite::folder::feed_forward,
        parts: &[
            ATTENTION,
            STATE_SPACE,
            FEED_FORWARD,
            EXPERTS,
            SHARED_EXPERT,
            NORMS,
        ],
        ..granitemoe::FAMILY.folder
    };

    const STATE_SPACE: Group = only(
        Kind::StateSpace,
        &[
            negative_exp("mamba.A_log", tensor::SSM_A, Dim::StateHeads).column(),
            scalars("mamba.D", tensor::SSM_D, Dim::StateHeads).column(),
            kernels(
                "mamba.conv1d",
                tensor::SSM_CONV1D,
                Dim::StateConv,
                Dim::Kernel,
            ),
            bias("mamba.dt_bias", tensor::SSM_DT, Dim::StateHeads),
            matrix("mamba.in_proj", tensor::SSM_IN, Dim::StateInput, Dim::Width),
            grouped(
                "mamba.norm",
                tensor::SSM_NORM,
                Dim::StateValues,
                Dim::StateGroups,
            ),
            matrix(
                "mamba.out_proj",
                tensor::SSM_OUT,
                Dim::Width,
                Dim::StateValues,
            ),
        ],
    );

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        ensure!(
            !fields.flag("mamba_proj_bias"),
            "mamba_proj_bias = true; the runtime's {} has no such bias",
            entries.architecture()
        );
        match shape.experts {
            0 => granite::folder::keys(fields, shape, entries)?,
            _ => granitemoe::folder::keys(fields, shape, entries)?,
        }
        let heads = |[mixer, _]: &Layer| match mixer {
            Kind::Attention => shape.kv_heads as i32, // at most `MAX_LENGTH`
            _ => 0,
        };
        let heads: Vec<i32> = shape.layers.iter().map(heads).collect();
        entries.own(key::HEAD_COUNT_KV, heads);
        if fields["position_embedding_type"] != "rope" {
            entries.number(key::CONTEXT_LENGTH, 1 << 20)?; // as llama.cpp's converter: nothing bounds it
        }
        entries.number(key::SSM_CONV_KERNEL, shape.kernel)?;
        entries.number(key::SSM_STATE_SIZE, shape.state_length)?;
        entries.number(key::SSM_GROUP_COUNT, shape.state_groups)?;
        entries.number(key::SSM_INNER_SIZE, shape.state_values)?;
        entries.number(key::SSM_TIME_STEP_RANK, shape.state_heads)
    }
}
