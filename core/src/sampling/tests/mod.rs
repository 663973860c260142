use super::numbers::{exp, likeliest, ln, power};
use super::sampler::Sampler;
use super::*;

mod repetition;

fn no_text(_: u32, _: &mut Vec<u8>) {}

/// Tokens named a, b, c, …
fn letters(id: u32, out: &mut Vec<u8>) {
    out.push(b'a' + id as u8);
}

fn sampler(options: &Sampling, vocabulary: usize) -> Sampler {
    let mut sampler = Sampler::new(vocabulary, 64);
    sampler.start(options, vocabulary).unwrap();
    sampler
}

fn open() -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 7,
        ..Sampling::default()
    }
}

fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

const DRAWS: usize = 40_000;

/// How often each token comes out of many draws after `history`.
fn shares(options: &Sampling, probabilities: &[f32], history: &[u32]) -> Vec<f64> {
    let mut sampler = sampler(options, probabilities.len());
    history.iter().for_each(|&id| sampler.accept(id, &letters));
    let mut counts = vec![0usize; probabilities.len()];
    for _ in 0..DRAWS {
        counts[sampler
            .sample(&logits(probabilities), None, history, &letters)
            .unwrap() as usize] += 1;
    }
    counts.iter().map(|&n| n as f64 / DRAWS as f64).collect()
}

/// Shares of `expected`, five standard deviations to each side; what should never come never does.
fn assert_shares(options: &Sampling, probabilities: &[f32], history: &[u32], expected: &[f64]) {
    let got = shares(options, probabilities, history);
    for (got, expected) in got.iter().zip(expected) {
        let deviation = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
        assert!(
            (got - expected).abs() <= 5.0 * deviation + 1e-5,
            "{got:?}, expected {expected:?}"
        );
    }
}

fn over(sum: f64, parts: &[f64]) -> Vec<f64> {
    parts.iter().map(|part| part / sum).collect()
}

#[test]
fn the_generator_is_splitmix64() {
    // The published first outputs for seed 1234567.
    let mut rng = Rng::new(1_234_567);
    assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
    assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.next_f64())));
}

#[test]
fn own_functions_agree_with_libm() {
    for i in 0..2000 {
        let x = -f64::from(i) * 0.31;
        let (ours, libm) = (exp(x), x.exp());
        assert!(
            (ours - libm).abs() <= 1e-12 * libm,
            "x = {x}: {ours} {libm}"
        );
        let x = 1.0 + f64::from(i) * f64::from(i) * 0.037;
        for x in [x, 1.0 / x] {
            assert!(
                (ln(x) - x.ln()).abs() < 4e-15,
                "x = {x}: {} {}",
                ln(x),
                x.ln()
            );
        }
    }
    assert_eq!((exp(0.0), exp(f64::NEG_INFINITY), ln(1.0)), (1.0, 0.0, 0.0));
    assert_eq!(
        (power(1.75, 0), power(3.0, 5), power(2.0, 5000)),
        (1.0, 243.0, f64::INFINITY)
    );
}

#[test]
fn greedy_takes_the_first_of_equals_and_passes_over_nan() {
    let mut greedy = sampler(&Sampling::greedy(), 4);
    assert_eq!(
        greedy
            .sample(&[f32::NAN, 2.0, 3.0, 3.0], None, &[], &no_text)
            .unwrap(),
        2
    );
    assert!(greedy.sample(&[f32::NAN; 4], None, &[], &no_text).is_err());
}

#[test]
fn filters_give_the_figures_of_llama_cpp() {
    // Inputs and results from llama.cpp's tests/test-sampling.cpp (commit 07e4038), where a result lists what is left.
    let p = [0.1f32, 0.2, 0.3, 0.4];
    let is = |options: Sampling, expected: &[f64]| assert_shares(&options, &p, &[], expected);
    is(open(), &[0.1, 0.2, 0.3, 0.4]);
    is(Sampling { top_k: 1, ..open() }, &[0.0, 0.0, 0.0, 1.0]);
    is(
        Sampling { top_k: 3, ..open() },
        &[0.0, 0.22222, 0.33333, 0.44444],
    );
    is(
        Sampling {
            top_p: 0.69,
            ..open()
        },
        &[0.0, 0.0, 0.428571, 0.571429],
    );
    is(
        Sampling {
            top_p: 0.8,
            ..open()
        },
        &[0.0, 0.22222, 0.33333, 0.44444],
    );
    is(
        Sampling {
            min_p: 0.24,
            ..open()
        },
        &[0.1, 0.2, 0.3, 0.4],
    );
    is(
        Sampling {
            min_p: 0.26,
            ..open()
        },
        &over(0.9, &[0.0, 0.2, 0.3, 0.4]),
    );
    is(
        Sampling {
            min_p: 0.51,
            ..open()
        },
        &over(0.7, &[0.0, 0.0, 0.3, 0.4]),
    );
    is(
        Sampling {
            min_p: 0.76,
            ..open()
        },
        &[0.0, 0.0, 0.0, 1.0],
    );
    is(
        Sampling {
            temperature: 0.0,
            ..open()
        },
        &[0.0, 0.0, 0.0, 1.0],
    );
    let xtc = |probability, threshold| Sampling {
        xtc: Xtc {
            probability,
            threshold,
        },
        ..open()
    };
    is(xtc(1.0, 0.09), &[1.0, 0.0, 0.0, 0.0]);
    is(xtc(1.0, 0.19), &over(0.3, &[0.1, 0.2, 0.0, 0.0]));
    is(xtc(1.0, 0.29), &over(0.6, &[0.1, 0.2, 0.3, 0.0]));
    is(xtc(1.0, 0.39), &[0.1, 0.2, 0.3, 0.4]);
    let typical = Sampling {
        typical_p: 0.5,
        ..open()
    };
    assert_shares(
        &typical,
        &[0.97, 0.01, 0.01, 0.01],
        &[],
        &[1.0, 0.0, 0.0, 0.0],
    );
    assert_shares(
        &typical,
        &[0.4, 0.2, 0.2, 0.2],
        &[],
        &over(3.0, &[0.0, 1.0, 1.0, 1.0]),
    );
}

#[test]
fn top_k_and_the_likeliest_agree_with_sorting_everything() {
    let mut rng = Rng::new(3);
    for k in [1, 40, 300, 2999] {
        // Few different values, so that many are equal; what is no number, and what is impossible.
        let mut logits: Vec<f32> = (0..3000).map(|_| (rng.next_u64() % 500) as f32).collect();
        logits[700] = f32::NAN;
        logits[1300] = f32::NEG_INFINITY;
        let mut sorted: Vec<u32> = (0..3000).filter(|&id| logits[id as usize] >= 0.0).collect();
        sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize])); // stable: equals by id
        sorted.truncate(k);
        let mut sampler = sampler(&Sampling { top_k: k, ..open() }, logits.len());
        sampler.sample(&logits, None, &[], &no_text).unwrap();
        let left: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
        if k < sorted.len() {
            assert_eq!(left, sorted, "top {k}");
        }
        assert_eq!(likeliest(&logits), Some(sorted[0]));
    }
    assert_eq!(likeliest(&[f32::NAN, f32::NEG_INFINITY]), Some(1));
}

#[test]
fn typical_and_top_p_agree_with_sorting_everything() {
    let mut rng = Rng::new(11);
    for _ in 0..50 {
        let raw: Vec<f64> = (0..200).map(|_| rng.next_f64() * 8.0).collect();
        let logits: Vec<f32> = raw.iter().map(|&x| x as f32).collect();
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let p: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp() / total).collect();
        let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
        let kept = |key: &dyn Fn(usize) -> f64, mass: f64| -> Vec<u32> {
            let mut ids: Vec<usize> = (0..p.len()).collect();
            ids.sort_by(|&a, &b| key(a).total_cmp(&key(b)));
            let mut sum = 0.0;
            let count = ids
                .iter()
                .take_while(|&&id| {
                    let go_on = sum < mass;
                    sum += p[id];
                    go_on
                })
                .count();
            ids[..count].iter().map(|&id| id as u32).collect()
        };
        let typical = kept(&|id| (-p[id].ln() - entropy).abs(), 0.3);
        let top = kept(&|id| -p[id], 0.3);
        for (options, mut set) in [
            (
                Sampling {
                    typical_p: 0.3,
                    ..open()
                },
                typical,
            ),
            (
                Sampling {
                    top_p: 0.3,
                    ..open()
                },
                top,
            ),
        ] {
            let mut sampler = sampler(&options, logits.len());
            sampler.sample(&logits, None, &[], &no_text).unwrap();
            let mut left: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
            left.sort_unstable();
            set.sort_unstable();
            assert_eq!(left, set);
        }
    }
}

#[test]
fn steps_come_in_their_order() {
    // Top-p sees the probabilities renormalised over top-k's survivors: 0.5/0.75 = 0.67.
    let p = [0.125f32, 0.5, 0.0625, 0.25, 0.0625];
    let both = Sampling {
        top_k: 2,
        top_p: 0.6,
        ..open()
    };
    assert_shares(&both, &p, &[], &[0.0, 1.0, 0.0, 0.0, 0.0]);
    // A bias comes before top-k, and greedy takes what XTC leaves.
    let bias = vec![(1, f32::NEG_INFINITY), (2, 10.0)];
    let biased = Sampling {
        top_k: 1,
        logit_bias: bias,
        ..open()
    };
    assert_shares(&biased, &p, &[], &[0.0, 0.0, 1.0, 0.0, 0.0]);
    let xtc = Xtc {
        probability: 1.0,
        threshold: 0.1,
    };
    let excluded = Sampling {
        temperature: 0.0,
        xtc,
        ..open()
    };
    assert_shares(&excluded, &p, &[], &[1.0, 0.0, 0.0, 0.0, 0.0]);
    // XTC acts as often as it should: otherwise token 1 comes half the time.
    let sometimes = Sampling {
        xtc: Xtc {
            probability: 0.25,
            ..xtc
        },
        ..open()
    };
    let excluded = [0.5, 0.0, 0.25, 0.0, 0.25];
    let expected: Vec<f64> = p
        .iter()
        .zip(excluded)
        .map(|(&p, x)| 0.75 * f64::from(p) + 0.25 * x)
        .collect();
    assert_shares(&sometimes, &p, &[], &expected);
}

#[test]
fn a_seed_fixes_the_draws() {
    let logits: Vec<f32> = (0..500).map(|i| ((i * 37 % 101) as f32) * 0.03).collect();
    let draw = |seed| -> Vec<u32> {
        let options = Sampling {
            seed,
            temperature: 1.3,
            typical_p: 0.9,
            xtc: Xtc {
                probability: 0.5,
                threshold: 0.01,
            },
            ..Sampling::default()
        };
        let mut sampler = sampler(&options, logits.len());
        (0..64)
            .map(|_| sampler.sample(&logits, None, &[1, 2, 3], &no_text).unwrap())
            .collect()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn logprobs_are_those_of_the_model() {
    let mut rng = Rng::new(5);
    let mut logits: Vec<f32> = (0..300)
        .map(|_| rng.next_f64() as f32 * 20.0 - 10.0)
        .collect();
    (logits[7], logits[8], logits[9]) = (f32::NAN, f32::NEG_INFINITY, logits[10]);
    let total: f64 = logits
        .iter()
        .filter(|x| !x.is_nan())
        .map(|&x| f64::from(x).exp())
        .sum();
    let exact = |id: usize| f64::from(logits[id]) - total.ln();
    let mut ids: Vec<usize> = (0..300).filter(|&id| id != 7).collect();
    ids.sort_by(|&a, &b| exact(b).total_cmp(&exact(a)).then(a.cmp(&b)));

    let mut logprobs = Logprobs::with_capacity(2, 5);
    logprobs.push(&logits, 9);
    logprobs.push(&[f32::NAN, 1.0, f32::INFINITY, 2.0, 0.5], 2);
    assert!((f64::from(logprobs.chosen(0)) - exact(9)).abs() < 1e-5);
    assert_eq!(logprobs.top(0).len(), 5);
    for (got, &id) in logprobs.top(0).iter().zip(&ids) {
        assert_eq!(got.id as usize, id);
        assert!((f64::from(got.logprob) - exact(id)).abs() < 1e-5);
    }
    assert_eq!((logprobs.len(), logprobs.chosen(1)), (2, 0.0));
    assert_eq!(
        logprobs.top(1)[0],
        TokenLogprob {
            id: 2,
            logprob: 0.0
        }
    );
    assert!(
        logprobs.top(1)[1..]
            .iter()
            .all(|token| token.logprob == f32::NEG_INFINITY)
    );
    let mut everything = Logprobs::with_capacity(1, 3);
    everything.push(&[0.0, 2.0f32.ln(), 0.0], 0);
    let sum: f64 = everything
        .top(0)
        .iter()
        .map(|token| f64::from(token.logprob).exp())
        .sum();
    assert!((sum - 1.0).abs() < 1e-6 && everything.top(0)[0].id == 1);
}

#[test]
fn senseless_options_are_errors_that_say_the_range() {
    let changed = |change: &dyn Fn(&mut Sampling)| {
        let mut options = open();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    };
    for bad in [f32::NAN, f32::INFINITY, -0.1] {
        assert!(changed(&|s| s.temperature = bad).contains("≥ 0"));
        assert!(changed(&|s| s.dry.multiplier = bad).contains("≥ 0"));
        assert!(changed(&|s| s.dry.base = bad).contains("≥ 1"));
        assert!(changed(&|s| s.penalties.repetition = bad).contains("> 0"));
        assert!(changed(&|s| s.xtc.probability = bad).contains("[0, 1]"));
        assert!(changed(&|s| s.xtc.threshold = bad).contains("[0, 1]"));
        assert!(changed(&|s| s.min_p = bad).contains("[0, 1)"));
        assert!(changed(&|s| s.top_p = bad).contains("(0, 1]"));
        assert!(changed(&|s| s.typical_p = bad).contains("(0, 1]"));
    }
    assert!(changed(&|s| s.min_p = 1.0).contains("[0, 1)"));
    assert!(changed(&|s| s.top_p = 0.0).contains("(0, 1]"));
    assert!(changed(&|s| s.penalties.presence = f32::NAN).contains("finite"));
    assert!(changed(&|s| s.penalties.frequency = f32::INFINITY).contains("finite"));
    assert!(changed(&|s| s.logit_bias = vec![(3, f32::NAN)]).contains("token 3"));
    assert!(changed(&|s| s.dry.allowed_length = 0).contains("at least 1"));
    assert!(changed(&|s| s.dry.breakers.push(String::new())).contains("not empty"));
    let bias = |id, bias| Sampling {
        logit_bias: vec![(id, bias)],
        ..open()
    };
    assert!(
        Sampler::new(4, 8)
            .start(&bias(4, 1.0), 4)
            .unwrap_err()
            .to_string()
            .contains("below 4")
    );
    let banned = sampler(&bias(0, f32::NEG_INFINITY), 1).sample(&[1.0], None, &[], &no_text);
    assert!(banned.unwrap_err().to_string().contains("not banned"));
}
