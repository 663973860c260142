//! GGUF's names of what models have in common, spelt once for those who read files and those who write them.

/// Keys of the metadata, behind the architecture's name and a dot.
pub mod key {
    pub const BLOCK_COUNT: &str = "block_count";
    /// Layers at the end that predict tokens after the next one.
    pub const NEXTN_PREDICT_LAYERS: &str = "nextn_predict_layers";
    pub const CONTEXT_LENGTH: &str = "context_length";
    pub const EMBEDDING_LENGTH: &str = "embedding_length";
    /// Length of each layer's own input of a token.
    pub const EMBEDDING_LENGTH_PER_LAYER: &str = "embedding_length_per_layer_input";
    pub const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
    pub const VOCAB_SIZE: &str = "vocab_size";
    pub const POOLING_TYPE: &str = "pooling_type";
    pub const HIDDEN_ACTIVATION: &str = "hidden_activation";
    pub const CLASSIFIER_POOLING_TYPE: &str = "classifier.pooling_type";
    pub const CLASSIFIER_LABELS: &str = "classifier.output_labels";

    pub const HEAD_COUNT: &str = "attention.head_count";
    pub const HEAD_COUNT_KV: &str = "attention.head_count_kv";
    pub const KEY_LENGTH: &str = "attention.key_length";
    pub const VALUE_LENGTH: &str = "attention.value_length";
    /// Of layers that see a window.
    pub const KEY_LENGTH_LOCAL: &str = "attention.key_length_swa";
    pub const VALUE_LENGTH_LOCAL: &str = "attention.value_length_swa";
    /// Layers at the end that read the KV cache of an earlier one.
    pub const SHARED_KV_LAYERS: &str = "attention.shared_kv_layers";
    pub const LAYER_NORM_EPSILON: &str = "attention.layer_norm_epsilon";
    pub const RMS_NORM_EPSILON: &str = "attention.layer_norm_rms_epsilon";
    pub const CLAMP_KQV: &str = "attention.clamp_kqv";
    pub const CAUSAL: &str = "attention.causal";
    pub const SLIDING_WINDOW: &str = "attention.sliding_window";
    pub const SLIDING_WINDOW_PATTERN: &str = "attention.sliding_window_pattern";
    pub const ATTENTION_SCALE: &str = "attention.scale";
    pub const ATTENTION_CAP: &str = "attn_logit_softcapping";
    pub const USE_PARALLEL_RESIDUAL: &str = "use_parallel_residual";

    pub const EMBEDDING_SCALE: &str = "embedding_scale";
    pub const RESIDUAL_SCALE: &str = "residual_scale";
    pub const LOGIT_SCALE: &str = "logit_scale";
    pub const LOGIT_CAP: &str = "final_logit_softcapping";

    pub const ROPE_DIMENSION_COUNT: &str = "rope.dimension_count";
    /// Of layers that see a window.
    pub const ROPE_DIMENSION_COUNT_LOCAL: &str = "rope.dimension_count_swa";
    pub const ROPE_DIMENSION_SECTIONS: &str = "rope.dimension_sections";
    pub const ROPE_FREQ_BASE: &str = "rope.freq_base";
    /// Of layers that see a window.
    pub const ROPE_FREQ_BASE_LOCAL: &str = "rope.freq_base_swa";
    pub const ROPE_SCALING_TYPE: &str = "rope.scaling.type";
    pub const ROPE_SCALING_FACTOR: &str = "rope.scaling.factor";
    /// For Granite, whether there is rotation at all.
    pub const ROPE_SCALING_FINETUNED: &str = "rope.scaling.finetuned";
    pub const ROPE_ATTENTION_FACTOR: &str = "rope.scaling.attn_factor";
    pub const ROPE_ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";
    pub const YARN_EXT_FACTOR: &str = "rope.scaling.yarn_ext_factor";
    pub const YARN_ATTN_FACTOR: &str = "rope.scaling.yarn_attn_factor";
    pub const YARN_BETA_FAST: &str = "rope.scaling.yarn_beta_fast";
    pub const YARN_BETA_SLOW: &str = "rope.scaling.yarn_beta_slow";

    pub const EXPERT_COUNT: &str = "expert_count";
    pub const EXPERT_USED_COUNT: &str = "expert_used_count";
    pub const EXPERT_FEED_FORWARD_LENGTH: &str = "expert_feed_forward_length";
    pub const EXPERT_SHARED_FEED_FORWARD_LENGTH: &str = "expert_shared_feed_forward_length";
    pub const EXPERT_GATING_FUNC: &str = "expert_gating_func";
    pub const EXPERT_WEIGHTS_NORM: &str = "expert_weights_norm";
    pub const EXPERT_WEIGHTS_SCALE: &str = "expert_weights_scale";
    pub const LEADING_DENSE_BLOCK_COUNT: &str = "leading_dense_block_count";
    /// Positions that a short convolution sees.
    pub const SHORTCONV_L_CACHE: &str = "shortconv.l_cache";

    pub const FULL_ATTENTION_INTERVAL: &str = "full_attention_interval";
    pub const RECURRENT_LAYERS: &str = "attention.recurrent_layers";
    pub const SSM_CONV_KERNEL: &str = "ssm.conv_kernel";
    pub const SSM_GROUP_COUNT: &str = "ssm.group_count";
    pub const SSM_INNER_SIZE: &str = "ssm.inner_size";
    pub const SSM_STATE_SIZE: &str = "ssm.state_size";
    pub const SSM_TIME_STEP_RANK: &str = "ssm.time_step_rank";
}

/// Tensors, without the `.weight` or `.bias` at their end; those of a layer stand behind `blk.`, the layer's number and a dot.
pub mod tensor {
    pub const TOKEN_EMBD: &str = "token_embd";
    pub const TOKEN_EMBD_NORM: &str = "token_embd_norm";
    pub const TOKEN_TYPES: &str = "token_types";
    pub const POSITION_EMBD: &str = "position_embd";
    /// Each layer's own input of a token.
    pub const PER_LAYER_TOKEN_EMBD: &str = "per_layer_token_embd";
    pub const PER_LAYER_MODEL_PROJ: &str = "per_layer_model_proj";
    pub const PER_LAYER_PROJ_NORM: &str = "per_layer_proj_norm";
    pub const OUTPUT: &str = "output";
    pub const OUTPUT_NORM: &str = "output_norm";
    /// What an encoder multiplies the vector of a text with.
    pub const DENSE_2: &str = "dense_2";
    pub const DENSE_3: &str = "dense_3";
    /// What a reranker makes a score with.
    pub const CLS: &str = "cls";
    pub const CLS_OUTPUT: &str = "cls.output";
    /// Factors that the frequencies of rotation are divided by.
    pub const ROPE_FREQS: &str = "rope_freqs";
    pub const ROPE_FACTORS_SHORT: &str = "rope_factors_short";
    pub const ROPE_FACTORS_LONG: &str = "rope_factors_long";

    pub const ATTN_NORM: &str = "attn_norm";
    pub const ATTN_QKV: &str = "attn_qkv";
    pub const ATTN_Q: &str = "attn_q";
    pub const ATTN_K: &str = "attn_k";
    pub const ATTN_V: &str = "attn_v";
    pub const ATTN_Q_NORM: &str = "attn_q_norm";
    pub const ATTN_K_NORM: &str = "attn_k_norm";
    pub const ATTN_OUTPUT: &str = "attn_output";
    pub const ATTN_OUTPUT_NORM: &str = "attn_output_norm";
    pub const POST_ATTENTION_NORM: &str = "post_attention_norm";

    pub const SHORTCONV_IN_PROJ: &str = "shortconv.in_proj";
    pub const SHORTCONV_CONV: &str = "shortconv.conv";
    pub const SHORTCONV_OUT_PROJ: &str = "shortconv.out_proj";

    pub const ATTN_GATE: &str = "attn_gate";
    pub const SSM_A: &str = "ssm_a";
    pub const SSM_ALPHA: &str = "ssm_alpha";
    pub const SSM_BETA: &str = "ssm_beta";
    pub const SSM_CONV1D: &str = "ssm_conv1d";
    pub const SSM_D: &str = "ssm_d";
    pub const SSM_DT: &str = "ssm_dt";
    pub const SSM_IN: &str = "ssm_in";
    pub const SSM_NORM: &str = "ssm_norm";
    pub const SSM_OUT: &str = "ssm_out";

    pub const FFN_NORM: &str = "ffn_norm";
    pub const FFN_GATE: &str = "ffn_gate";
    pub const FFN_UP: &str = "ffn_up";
    pub const FFN_DOWN: &str = "ffn_down";
    pub const POST_FFW_NORM: &str = "post_ffw_norm";
    pub const LAYER_OUTPUT_NORM: &str = "layer_output_norm";
    /// Multiplies the residual stream after the layer.
    pub const LAYER_OUTPUT_SCALE: &str = "layer_output_scale";
    /// How a layer takes up its own input of a token.
    pub const PER_LAYER_INP_GATE: &str = "inp_gate";
    pub const PER_LAYER_PROJ: &str = "proj";
    pub const PER_LAYER_POST_NORM: &str = "post_norm";

    /// The experts' router.
    pub const FFN_GATE_INP: &str = "ffn_gate_inp";
    /// Added to the router's scores where experts are chosen.
    pub const EXP_PROBS_B: &str = "exp_probs_b";
    pub const FFN_GATE_EXPS: &str = "ffn_gate_exps";
    pub const FFN_UP_EXPS: &str = "ffn_up_exps";
    pub const FFN_DOWN_EXPS: &str = "ffn_down_exps";
    /// Of the expert that all tokens take.
    pub const FFN_GATE_INP_SHEXP: &str = "ffn_gate_inp_shexp";
    pub const FFN_GATE_SHEXP: &str = "ffn_gate_shexp";
    pub const FFN_UP_SHEXP: &str = "ffn_up_shexp";
    pub const FFN_DOWN_SHEXP: &str = "ffn_down_shexp";

    /// `attn_q` → `attn_q.weight`
    #[must_use]
    pub fn weight(name: &str) -> String {
        format!("{name}.weight")
    }
}
