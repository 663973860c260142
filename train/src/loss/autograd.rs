//! A loss against its plain form in candle operations, whose autograd gives the gradients.

use candle_core::{Device, Result, Tensor, Var};

use super::{Gradients, Inputs, LossConfig, Losses, Row, Sizes};
use crate::student::fill_normal;
use dram_files::Rng;

pub(super) const LABELS: [u32; 5] = [3, 0, 36, 7, 7];
pub(super) const SIZES: Sizes = Sizes {
    vocabulary: 37,
    layers: 2,
    width: 12,
    teacher: Some((4, 20)),
    has_teacher: true,
};

/// What a plain form reads. s: positions.
pub(super) struct Plain {
    pub(super) logits: Tensor,              // [s, vocabulary]
    pub(super) teacher_logits: Tensor,      // [s, vocabulary]
    pub(super) projected: Vec<Tensor>,      // [s, teacher width] each, in the order of the pairs
    pub(super) teacher_hidden: Vec<Tensor>, // [s, teacher width] each
}

pub(super) fn normal(n: usize, std: f64, key: u64) -> Vec<f32> {
    let mut values = vec![0f32; n];
    fill_normal(&mut values, std, &mut Rng::new(&[key]));
    values
}

/// Compares value and gradients of a row with those of `plain`, which is not weighted. Hidden losses compare two pairs of layers.
pub(super) fn compare(
    row: &Row,
    settings: &[(&str, toml::Value)],
    plain: impl Fn(&Plain) -> Result<Tensor>,
) {
    let weight = 0.7;
    let config = settings
        .iter()
        .fold(LossConfig::new(weight), |config, (name, value)| {
            config.with(name, value.clone())
        });
    let cpu = &Device::Cpu;
    let (s, v, d, wide) = (LABELS.len(), SIZES.vocabulary, SIZES.width, 20);
    let (logits, teacher_logits) = (normal(s * v, 3.0, 1), normal(s * v, 3.0, 2));
    let pairs = if row.hidden { 2 } else { 0 };
    let hidden: Vec<_> = (0..pairs).map(|i| normal(s * d, 1.0, 3 + i)).collect();
    let teacher_hidden: Vec<_> = (0..pairs).map(|i| normal(s * wide, 2.0, 5 + i)).collect();
    let losses = Losses::new([(row.name, &config)], SIZES).unwrap();
    let extra = losses.initial_projections(9);
    let inputs = Inputs {
        logits: &logits,
        hidden: &hidden,
        labels: &LABELS,
        teacher_logits: &teacher_logits,
        teacher_hidden: &teacher_hidden,
        extra: &extra,
        scale: 1.0 / s as f32,
    };
    let mut gradients = Gradients::default();
    let value = losses.run(&inputs, &mut gradients)[0];

    let x = Var::from_slice(&logits, (s, v), cpu).unwrap();
    let states: Vec<Var> = hidden
        .iter()
        .map(|h| Var::from_slice(h, (s, d), cpu).unwrap())
        .collect();
    let projections: Vec<Var> = extra
        .chunks(wide * d)
        .map(|p| Var::from_slice(p, (wide, d), cpu).unwrap())
        .collect();
    let form = Plain {
        logits: x.as_tensor().clone(),
        teacher_logits: Tensor::from_slice(&teacher_logits, (s, v), cpu).unwrap(),
        projected: states
            .iter()
            .zip(&projections)
            .map(|(h, p)| h.matmul(&p.t().unwrap()).unwrap())
            .collect(),
        teacher_hidden: teacher_hidden
            .iter()
            .map(|h| Tensor::from_slice(h, (s, wide), cpu).unwrap())
            .collect(),
    };
    let expected = plain(&form).unwrap();
    let scalar = f64::from(expected.to_scalar::<f32>().unwrap());
    assert!(
        (value - scalar).abs() < 1e-5 * value.abs(),
        "{}: {value} expected {scalar}",
        row.name
    );
    let all = (expected * f64::from(weight)).unwrap().backward().unwrap();
    let of = |x: &Var| {
        let gradient = all.get(x)?;
        Some(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    match of(&x) {
        Some(gradient) => close(&gradients.logits, &gradient),
        None => assert!(gradients.logits.iter().all(|g| *g == 0.0)),
    }
    for (got, var) in gradients.hidden.iter().zip(&states) {
        close(got, &of(var).expect("used"));
    }
    for (got, var) in gradients.extra.chunks(wide * d).zip(&projections) {
        close(got, &of(var).expect("used"));
    }
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
