use super::super::weights::Names;
use super::*;

/// Every norm that the runtime looks for is a weight of the folder, and every weight of the folder has a place.
#[test]
fn a_family_says_the_same_to_the_runtime_and_of_the_folder() {
    for architecture in ARCHITECTURES {
        let family = Family::of(architecture);
        let top = family.top.iter();
        let inside = family.parts.iter().flat_map(|group| group.parts);
        let written: Vec<&str> = top.chain(inside).map(|part| part.to).collect();
        let Names {
            token_types,
            positions,
            embedding_norm,
            output_norm,
            mixer_norm,
            mixer_post_norm,
            mixer_sum_norm,
            feed_forward_norm,
            feed_forward_post_norm,
            feed_forward_sum_norm,
            gate,
            output_scale,
            first_mixer_norm: _,
            norm_biases: _,
            unused: _,
        } = architecture.names;
        let read = [
            token_types,
            positions,
            embedding_norm,
            output_norm,
            mixer_norm,
            mixer_post_norm,
            mixer_sum_norm,
            feed_forward_norm,
            feed_forward_post_norm,
            feed_forward_sum_norm,
            output_scale,
        ];
        for name in read.into_iter().flatten() {
            assert!(written.contains(name), "{}: {name}", family.name);
        }
        let of_parts = [
            tensor::ATTN_Q_NORM,
            tensor::ATTN_K_NORM,
            tensor::SSM_NORM,
            tensor::PER_LAYER_PROJ_NORM,
            tensor::PER_LAYER_POST_NORM,
        ];
        for name in written.iter().filter(|name| name.ends_with("_norm")) {
            let known = read.contains(&&Some(name)) || of_parts.contains(name);
            assert!(known, "{}: {name}", family.name);
        }
        let has_experts_alone = !written.contains(&tensor::FFN_DOWN);
        let has_gate = written.contains(&tensor::FFN_GATE) || has_experts_alone;
        assert_eq!(gate.is_some(), has_gate, "{}", family.name);
    }
}

#[test]
fn classes_and_types_belong_to_one_family() {
    let mut types: Vec<&str> = Family::all().map(|family| family.model_type).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count);
    // What the families of one class are told apart by.
    let layers = [["attention", "attention"], ["mamba", "attention"]];
    let configs = layers.into_iter().flat_map(|layers| {
        let with =
            |experts| serde_json::json!({ "layer_types": layers, "num_local_experts": experts });
        [0, 8].map(|experts| Fields::plain(with(experts)))
    });
    for fields in configs {
        for class in Family::all().flat_map(|family| family.classes) {
            let all = || Family::all().filter(|family| family.classes.contains(class));
            let accepting = all().filter(|family| (family.accepts)(&fields)).count();
            let expected = usize::from(all().count() > 1)..=1;
            assert!(expected.contains(&accepting), "{class} {:?}", fields.json());
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let json = serde_json::json!({ "architectures": ["LlamaForCausalLM"], "rope_parameters": { "rope_theta": "x" } });
    let (fields, family) = Fields::of(json).unwrap();
    let error = fields.shape(family).unwrap_err().to_string();
    assert_eq!(error, "config.json: hidden_size is missing");
    let error = fields.rope().full.float("rope_theta").unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.json: RoPE: rope_theta: expected a number, got \"x\""
    );
}
