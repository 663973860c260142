//! Penalties and DRY.

use super::*;

#[test]
fn penalties_and_dry_give_the_figures_of_llama_cpp() {
    // As above.
    let fifths = [0.2f32; 5];
    let penalised = |repetition, presence, frequency| Sampling {
        penalties: Penalties {
            repetition,
            presence,
            frequency,
            window: 64,
        },
        ..open()
    };
    let repetition = penalised(50.0, 0.0, 0.0);
    assert_shares(&repetition, &fifths, &[0], &[0.0, 0.25, 0.25, 0.25, 0.25]);
    assert_shares(
        &repetition,
        &fifths,
        &[0, 1, 2, 0, 0],
        &[0.0, 0.0, 0.0, 0.5, 0.5],
    );
    let counted = penalised(1.0, 5.0, 5.0);
    assert_shares(
        &counted,
        &fifths,
        &[0],
        &[0.000011, 0.249997, 0.249997, 0.249997, 0.249997],
    );
    assert_shares(
        &counted,
        &fifths,
        &[0, 1, 2, 0, 0],
        &[0.0, 0.000023, 0.000023, 0.499977, 0.499977],
    );

    let dry = |multiplier, allowed_length, breaker: &str| Sampling {
        dry: Dry {
            multiplier,
            base: 1.1,
            allowed_length,
            breakers: vec![breaker.into()],
            ..Dry::default()
        },
        ..open()
    };
    let quarters = [0.25f32; 4];
    assert_shares(&dry(1.0, 2, "-"), &quarters, &[0, 1], &[0.25; 4]);
    assert_shares(
        &dry(1.0, 2, "-"),
        &quarters,
        &[0, 1, 2, 0, 1],
        &[0.296923, 0.296923, 0.109232, 0.296923],
    );
    assert_shares(&dry(1.0, 2, "d"), &fifths, &[0, 1, 3, 4, 0, 1], &[0.2; 5]);
    assert_shares(
        &dry(2.0, 2, "-"),
        &fifths,
        &[0, 1, 2, 0, 1],
        &[0.241818, 0.241818, 0.032727, 0.241818, 0.241818],
    );
    assert_shares(
        &dry(1.0, 4, "-"),
        &fifths,
        &[0, 1, 2, 3, 4, 0, 1],
        &[0.2; 5],
    );
}

#[test]
fn penalties_in_numbers() {
    // Token 0 came up twice, token 1 once, token 2 only before the window; logits 2, −2, 2, 2 become 2/4 − 2·0.25 − 0.5 = −0.5, −2·4 − 0.75 = −8.75, 2, 2.
    let options = Sampling {
        penalties: Penalties {
            repetition: 4.0,
            presence: 0.5,
            frequency: 0.25,
            window: 3,
        },
        ..open()
    };
    let mut sampler = sampler(&options, 4);
    let mut counts = [0usize; 4];
    for _ in 0..DRAWS {
        counts[sampler
            .sample(&[2.0, -2.0, 2.0, 2.0], None, &[2, 0, 1, 0], &no_text)
            .unwrap() as usize] += 1;
    }
    let weights = [-0.5f64, -8.75, 2.0, 2.0].map(f64::exp);
    let expected = DRAWS as f64 * weights[0] / weights.iter().sum::<f64>();
    assert!(
        (counts[0] as f64 - expected).abs() < 5.0 * expected.sqrt(),
        "{counts:?}, expected {expected}"
    );
    assert!(counts[1] <= 5, "{counts:?}");
}

#[test]
fn dry_agrees_with_trying_every_repetition() {
    // Greedy over equal logits: the first token without a penalty, or the one with the least, shows what was taken off.
    let mut rng = Rng::new(3);
    for round in 0..400 {
        let history: Vec<u32> = (0..rng.next_u64() % 60)
            .map(|_| (rng.next_u64() % 3) as u32)
            .collect();
        let breaker = if round % 2 == 0 { "-" } else { "cab" };
        let dry = Dry {
            multiplier: 0.5,
            allowed_length: 1 + round % 3,
            window: 40,
            breakers: vec![breaker.into()],
            ..Dry::default()
        };
        let window = &history[history.len().saturating_sub(40)..];
        let text: String = history
            .iter()
            .map(|&id| (b'a' + id as u8) as char)
            .collect();
        let since = (0..=history.len())
            .take_while(|&n| !text[..history.len() - n].ends_with(breaker))
            .count();
        let penalty = |id: u32| -> f64 {
            let longest = (1..window.len()).filter(|&at| window[at] == id).map(|at| {
                let same = |n: &usize| window[at - n..at] == window[window.len() - n..];
                (0..=at).take_while(same).last().unwrap().min(since)
            });
            longest
                .filter(|&n| n >= dry.allowed_length)
                .map(|n| 0.5 * 1.75f64.powi((n - dry.allowed_length) as i32))
                .fold(0.0, f64::max)
        };
        let bias = [(0, 0.3), (1, 0.2), (2, 0.1)];
        let expected = bias.map(|(id, bias)| f64::from(bias) - penalty(id));
        let best = (0..3)
            .max_by(|&a, &b| expected[a].total_cmp(&expected[b]))
            .unwrap();
        let options = Sampling {
            temperature: 0.0,
            logit_bias: bias.to_vec(),
            dry,
            ..open()
        };
        let mut sampler = sampler(&options, 3);
        history.iter().for_each(|&id| sampler.accept(id, &letters));
        let got = sampler.sample(&[0.0; 3], None, &history, &letters).unwrap();
        assert_eq!(got as usize, best, "{text}: {expected:?}");
    }
}
