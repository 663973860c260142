//! The training decoder's logits against Hugging Face transformers', from Hugging Face folders and from GGUF files.
//! `tests/golden/make_llama.py` made the values.

use dram_tests::golden::{compare, goldens};
use dram_train::student::{Decoder, OutputSpec, QuantMode};
use dram_train::teacher;

#[test]
fn decoder_equals_transformers() {
    for golden in goldens() {
        let name = &golden.shape.name;
        let folder = tempfile::tempdir().unwrap();
        golden.shape.write_hugging_face(folder.path()).unwrap();
        let decoder = Decoder::from_hugging_face(folder.path()).unwrap();
        let outputs = OutputSpec {
            positions: golden.positions.clone(),
            hidden_layers: Vec::new(),
        };
        let run = |decoder: &Decoder| {
            let prepared = decoder.prepare(QuantMode::Off, 1).unwrap();
            prepared
                .forward(&golden.ids, golden.ids.len(), &outputs)
                .unwrap()
                .logits
        };
        let (apart, top) = compare(&run(&decoder), &golden.plain);
        println!("{name:<16} off by {apart:.1e}");
        assert!(
            apart < 1e-5,
            "{name}: logits off by {apart:e} of the largest"
        );
        assert_eq!(top, golden.positions.len(), "{name}: another top token");

        // The same model from a GGUF file, where rows lie in another order.
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, golden.shape.bytes()).unwrap();
        let teacher = teacher::open(&path, 1).unwrap();
        let (apart, _) = compare(
            &run(teacher.decoder().expect("a small file is decoded")),
            &golden.plain,
        );
        assert!(
            apart < 1e-5,
            "{name}: from GGUF, logits off by {apart:e} of the largest"
        );
    }
}
