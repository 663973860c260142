//! The measurement counts what it says it counts.

mod common;

use common::{Random, Shape, of_context};
use dram_core::Model;
use dram_core::latency::{LatencyOptions, measure};
use std::time::Instant;

#[test]
fn counts_and_rates_are_consistent() {
    let file = Random::new(Shape {
        format: "q8_0",
        ..Shape::default()
    })
    .to_file();
    let model = Model::open(file.path()).unwrap();
    let options = LatencyOptions {
        prompt: 64,
        generate: 24,
        depth: 100,
        threads: Some(2),
        repetitions: 3,
    };
    let mut calls = Vec::new();
    let start = Instant::now();
    let latency = measure(&model, &options, &mut |progress| {
        calls.push((progress.done, progress.of))
    })
    .unwrap();
    let wall = start.elapsed().as_secs_f64();
    assert_eq!(calls, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    assert_eq!(
        (latency.prefill_rates.len(), latency.decode_rates.len()),
        (3, 3)
    );
    assert_eq!(
        (latency.threads, latency.isa),
        (2, dram_core::kernels::selected().name())
    );
    assert_eq!(latency.memory, model.memory(of_context(188)));
    assert_eq!(
        latency.file_bytes,
        std::fs::metadata(file.path()).unwrap().len()
    );

    // The repetitions fit into the time that passed, and the summary lies among them.
    let spent: f64 = latency
        .prefill_rates
        .iter()
        .map(|rate| 64.0 / rate)
        .chain(latency.decode_rates.iter().map(|rate| 24.0 / rate))
        .sum();
    assert!(spent > 0.0 && spent <= wall, "{spent} s in {wall} s");
    assert!(
        latency.prefill_rates.contains(&latency.prefill)
            && latency.decode_rates.contains(&latency.decode)
    );
    assert!(latency.p50 <= latency.p95);
    assert!(
        latency.first_token.as_secs_f64()
            >= 64.0 / latency.prefill_rates.iter().copied().fold(0.0, f64::max)
    );
    if cfg!(target_os = "linux") {
        assert!(latency.resident.unwrap().mapped > 0);
    }
}

#[test]
fn what_cannot_be_measured_is_refused_and_what_is_not_asked_for_is_zero() {
    let file = Random::new(Shape::default()).to_file();
    let model = Model::open(file.path()).unwrap();
    let few = LatencyOptions {
        prompt: 8,
        generate: 4,
        depth: 0,
        threads: Some(1),
        repetitions: 1,
    };
    let refused = |options| {
        measure(&model, &options, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert!(refused(LatencyOptions { depth: 250, ..few }).contains("256"));
    assert!(
        refused(LatencyOptions {
            repetitions: 0,
            ..few
        })
        .contains("at least 1")
    );
    assert!(
        refused(LatencyOptions {
            prompt: 0,
            generate: 0,
            ..few
        })
        .contains("at least one token")
    );
    let no_prompt = measure(&model, &LatencyOptions { prompt: 0, ..few }, &mut |_| {}).unwrap();
    assert!(no_prompt.prefill == 0.0 && no_prompt.first_token.is_zero() && no_prompt.decode > 0.0);
    let no_decode = measure(&model, &LatencyOptions { generate: 0, ..few }, &mut |_| {}).unwrap();
    assert!(no_decode.decode == 0.0 && no_decode.p95.is_zero() && no_decode.prefill > 0.0);
}
