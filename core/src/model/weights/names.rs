//! What families call their tensors.

use crate::gguf::names::tensor;

/// What a family's tensors are called. GGUF's names are one list for all families, of which each has its own part: `None` is what it never has.
/// Parts of a layer are prefixed with `blk.`, the layer's number and a dot; matrices end in `.weight` and may have a `.bias` beside it, and norms are
/// the same.
pub(crate) struct Names {
    /// Added to every token's embedding: the first row of a table of token types, which a file may lack.
    pub(crate) token_types: Option<&'static str>,
    /// Added to every token's embedding: the position's row.
    pub(crate) positions: Option<&'static str>,
    /// Norm of the embeddings' sum.
    pub(crate) embedding_norm: Option<&'static str>,
    pub(crate) output_norm: Option<&'static str>,
    /// Norm of what the mixer reads.
    pub(crate) mixer_norm: Option<&'static str>,
    /// The first layer has it too.
    pub(crate) first_mixer_norm: bool,
    /// Norm of what the mixer adds.
    pub(crate) mixer_post_norm: Option<&'static str>,
    /// Norm of the residual stream after the mixer's result was added.
    pub(crate) mixer_sum_norm: Option<&'static str>,
    /// Norm of what the feed-forward part reads.
    pub(crate) feed_forward_norm: Option<&'static str>,
    /// Norm of what the feed-forward part adds.
    pub(crate) feed_forward_post_norm: Option<&'static str>,
    /// Norm of the residual stream after the feed-forward part was added.
    pub(crate) feed_forward_sum_norm: Option<&'static str>,
    /// The gate. Where a gated family has none, the first half of `ffn_up` is it.
    pub(crate) gate: Option<&'static str>,
    /// What multiplies the residual stream after a layer, which a file may lack.
    pub(crate) output_scale: Option<&'static str>,
    /// Norms that subtract the mean have a bias.
    pub(crate) norm_biases: bool,
    /// Parts of names of tensors that may lie in a file and change nothing.
    pub(crate) unused: &'static [&'static str],
}

impl Names {
    /// Llama's: norms before attention and the feed-forward part, and one at the end.
    pub(crate) const LLAMA: Names = Names {
        token_types: None,
        positions: None,
        embedding_norm: None,
        output_norm: Some(tensor::OUTPUT_NORM),
        mixer_norm: Some(tensor::ATTN_NORM),
        first_mixer_norm: true,
        mixer_post_norm: None,
        mixer_sum_norm: None,
        feed_forward_norm: Some(tensor::FFN_NORM),
        feed_forward_post_norm: None,
        feed_forward_sum_norm: None,
        gate: Some(tensor::FFN_GATE),
        output_scale: None,
        norm_biases: true,
        // Old converters wrote the inverse frequencies that everybody computes.
        unused: &["attn_rot_embd", tensor::ROPE_FREQS, "attn.rope.freqs"],
    };
}
