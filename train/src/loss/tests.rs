//! Every loss against candle's autograd.

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::log_softmax;

use super::*;

const S: usize = 5;
const SIZES: Sizes = Sizes {
    vocabulary: 37,
    layers: 2,
    width: 12,
    teacher: Some((4, 20)),
    has_teacher: true,
};

fn normal(n: usize, std: f64, key: u64) -> Vec<f32> {
    let mut values = vec![0f32; n];
    fill_normal(&mut values, std, &mut Rng::new(&[key]));
    values
}

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!(
            (g - w).abs() < 2e-5 * scale,
            "{g} expected {w} (scale {scale})"
        );
    }
}

#[test]
fn values_and_gradients_equal_plain_forms() -> Result<()> {
    let cpu = &Device::Cpu;
    let (v, d, wide) = (SIZES.vocabulary, SIZES.width, 20);
    let t = 2.5f64;
    let (logits, teacher_logits) = (normal(S * v, 3.0, 1), normal(S * v, 3.0, 2));
    let hidden = [normal(S * d, 1.0, 3), normal(S * d, 1.0, 4)];
    let teacher_hidden = [normal(S * wide, 2.0, 5), normal(S * wide, 2.0, 6)];
    let labels = [3u32, 0, 36, 7, 7];

    for loss in LOSSES {
        let asked = LossConfig {
            weight: 0.7,
            temperature: t as f32,
            layers: Mapping::Pairs(vec![(2, 4), (1, 1)]),
        };
        let losses = Losses::new([(loss.name, &asked)], SIZES).unwrap();
        let extra = losses.initial_projections(9);
        let (hidden, teacher_hidden) = if loss.hidden {
            (&hidden[..], &teacher_hidden[..])
        } else {
            (&[][..], &[][..])
        };
        let scale = 1.0 / S as f32;
        let inputs = Inputs {
            logits: &logits,
            hidden,
            labels: &labels,
            teacher_logits: &teacher_logits,
            teacher_hidden,
            extra: &extra,
            scale,
        };
        let mut gradients = Gradients::default();
        let value = losses.run(&inputs, &mut gradients)[0];

        let x = Var::from_slice(&logits, (S, v), cpu)?;
        let states = hidden
            .iter()
            .map(|h| Var::from_slice(h, (S, d), cpu))
            .collect::<Result<Vec<_>>>()?;
        let targets = teacher_hidden
            .iter()
            .map(|h| Tensor::from_slice(h, (S, wide), cpu))
            .collect::<Result<Vec<_>>>()?;
        let projections = extra
            .chunks(wide * d)
            .map(|p| Var::from_slice(p, (wide, d), cpu))
            .collect::<Result<Vec<_>>>()?;
        let projected = states
            .iter()
            .zip(&projections)
            .map(|(h, p)| h.matmul(&p.t()?))
            .collect::<Result<Vec<_>>>()?;
        let plain = match loss.name {
            "cross_entropy" => {
                let at = Tensor::from_slice(&labels, (S, 1), cpu)?;
                log_softmax(&x, D::Minus1)?
                    .gather(&at, 1)?
                    .mean_all()?
                    .neg()?
            }
            "forward_kl" => {
                let teacher = Tensor::from_slice(&teacher_logits, (S, v), cpu)?;
                let (ls, lt) = (
                    log_softmax(&(x.as_tensor() / t)?, D::Minus1)?,
                    log_softmax(&(teacher / t)?, D::Minus1)?,
                );
                ((lt.exp()? * (lt - ls)?)?.sum_all()? * (t * t / S as f64))?
            }
            "hidden_mse" => {
                let each = projected
                    .iter()
                    .zip(&targets)
                    .map(|(p, t)| (p - t)?.sqr()?.mean_all())
                    .collect::<Result<Vec<_>>>()?;
                ((&each[0] + &each[1])? / 2.0)?
            }
            _ => {
                let each = projected.iter().zip(&targets).map(|(p, t)| {
                    let norms = (p.sqr()?.sum(1)?.sqrt()? * t.sqr()?.sum(1)?.sqrt()?)?;
                    (1.0 - ((p * t)?.sum(1)? / norms)?)?.mean_all()
                });
                let each = each.collect::<Result<Vec<_>>>()?;
                ((&each[0] + &each[1])? / 2.0)?
            }
        };
        assert!(
            (value - f64::from(plain.to_scalar::<f32>()?)).abs() < 1e-5 * value.abs(),
            "{}: {value} {plain}",
            loss.name
        );
        let grads = (plain * 0.7)?.backward()?;
        let of = |x: &Var| {
            grads
                .get(x)
                .map(|g| g.flatten_all()?.to_vec1::<f32>())
                .transpose()
        };
        if let Some(g) = of(&x)? {
            close(&gradients.logits, &g);
        }
        for (got, var) in gradients.hidden.iter().zip(&states) {
            close(got, &of(var)?.expect("used"));
        }
        for (got, var) in gradients.extra.chunks(wide * d).zip(&projections) {
            close(got, &of(var)?.expect("used"));
        }
    }
    Ok(())
}

#[test]
fn impossible_sums_are_refused() {
    let plain = LossConfig {
        weight: 1.0,
        temperature: 1.0,
        layers: Mapping::Uniform,
    };
    let alone = Sizes {
        teacher: None,
        has_teacher: false,
        ..SIZES
    };
    let logits_only = Sizes {
        teacher: None,
        ..SIZES
    };
    for (name, asked, sizes, word) in [
        ("reverse", plain.clone(), SIZES, "known are cross_entropy"),
        ("forward_kl", plain.clone(), alone, "names none"),
        ("hidden_mse", plain.clone(), logits_only, "no hidden states"),
        (
            "hidden_mse",
            LossConfig {
                layers: Mapping::Pairs(vec![(3, 1)]),
                ..plain.clone()
            },
            SIZES,
            "2 layers",
        ),
        (
            "forward_kl",
            LossConfig {
                temperature: 0.0,
                ..plain.clone()
            },
            SIZES,
            "temperature",
        ),
        (
            "cross_entropy",
            LossConfig {
                weight: 0.0,
                ..plain.clone()
            },
            SIZES,
            "no loss",
        ),
    ] {
        let message = format!("{:#}", Losses::new([(name, &asked)], sizes).err().unwrap());
        assert!(message.contains(word), "{message}");
    }
    let uniform = Losses::new([("hidden_cosine", &plain)], SIZES).unwrap();
    assert_eq!(
        (uniform.student_layers, uniform.teacher_layers),
        (vec![1, 2], vec![2, 4])
    );
}

/// A teacher that knows 30 of 37 tokens: as if both had these alone.
#[test]
fn a_teacher_of_fewer_tokens_is_compared_on_these() {
    let (v, shared) = (SIZES.vocabulary, 30);
    let logits = normal(S * v, 3.0, 1);
    let first: Vec<f32> = logits
        .chunks(v)
        .flat_map(|row| &row[..shared])
        .copied()
        .collect();
    let teacher_logits = normal(S * shared, 3.0, 2);
    let run = |vocabulary: usize, logits: &[f32]| {
        let asked = LossConfig {
            weight: 0.5,
            temperature: 2.0,
            layers: Mapping::Uniform,
        };
        let sizes = Sizes {
            vocabulary,
            ..SIZES
        };
        let losses = Losses::new([("forward_kl", &asked)], sizes).unwrap();
        let inputs = Inputs {
            logits,
            hidden: &[],
            labels: &[0; S],
            teacher_logits: &teacher_logits,
            teacher_hidden: &[],
            extra: &[],
            scale: 1.0 / S as f32,
        };
        let mut gradients = Gradients::default();
        let values = losses.run(&inputs, &mut gradients);
        (values, gradients.logits)
    };
    let (wide, narrow) = (run(v, &logits), run(shared, &first));
    assert_eq!(wide.0, narrow.0);
    for (wide, narrow) in wide.1.chunks(v).zip(narrow.1.chunks(shared)) {
        assert_eq!(&wide[..shared], narrow);
        assert_eq!(wide[shared..], [0.0; 7]);
    }
}
