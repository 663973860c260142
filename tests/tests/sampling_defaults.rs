//! How a model is sampled where nobody says how.

use dram_core::{Error, Model, OpenOptions, Sampling, SamplingSource, gguf};
use dram_tests::gguf::Value;
use dram_tests::toy::Shape;

fn model(name: &str, keys: &[(&str, Value)]) -> Model {
    let mut file = Shape::default().gguf();
    file.set("general.name", Value::Str(name.into()));
    for (key, value) in keys {
        file.set(&format!("general.sampling.{key}"), value.clone());
    }
    let file = gguf::File::from_bytes("toy.gguf", file.bytes()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

#[test]
fn the_file_says_it_then_the_family_then_what_is_usual() {
    let (sampling, source) = model("toy", &[]).default_sampling().unwrap();
    let usual = Sampling {
        temperature: 0.7,
        ..Sampling::default()
    };
    assert_eq!((sampling, source), (usual, SamplingSource::Usual));

    let (sampling, source) = model("SmolLM2 135M", &[]).default_sampling().unwrap();
    assert_eq!(source, SamplingSource::Family("SmolLM 2"));
    assert_eq!(
        (sampling.temperature, sampling.top_p, sampling.min_p),
        (0.2, 0.9, 0.0)
    );

    // What the file says goes before; what it leaves open is the family's. llama.cpp's types, and others that it reads.
    let keys = [
        ("temp", Value::F32(0.25)),
        ("top_k", Value::I32(-1)),
        ("min_p", Value::Str("0.125".into())),
        ("penalty_last_n", Value::I32(-1)),
        ("penalty_repeat", Value::F32(1.5)),
        ("xtc_probability", Value::F32(0.5)),
        ("xtc_threshold", Value::F32(0.25)),
    ];
    let (sampling, source) = model("SmolLM2 135M", &keys).default_sampling().unwrap();
    assert_eq!(source, SamplingSource::File);
    sampling.validate().unwrap();
    assert_eq!((sampling.temperature, sampling.top_k), (0.25, 0));
    assert_eq!((sampling.top_p, sampling.min_p), (0.9, 0.125));
    assert_eq!(
        (sampling.xtc.probability, sampling.xtc.threshold),
        (0.5, 0.25)
    );
    let penalties = sampling.penalties;
    assert_eq!((penalties.repetition, penalties.window), (1.5, usize::MAX));

    let exact = model("toy", &[("temp", Value::F32(0.0))]).default_sampling();
    assert_eq!(exact.unwrap().0, Sampling::greedy());
}

#[test]
fn what_is_no_number_is_an_error_that_names_the_key() {
    for value in [
        Value::Str("warm".into()),
        Value::F32(f32::NAN),
        Value::Bool(true),
    ] {
        let error = model("toy", &[("temp", value)])
            .default_sampling()
            .unwrap_err();
        assert!(
            matches!(&error, Error::BadKey { key, .. } if key == "general.sampling.temp"),
            "{error}"
        );
    }
}
