//! Loss and gradients of every family against PyTorch's. `tests/golden/make_training.py` made the values.

use std::path::Path;

use super::{Decoder, OutputSpec, QuantMode, Tape};

const VOCABULARY: usize = 64;

/// Values of a gradient that are kept.
const SAMPLES: usize = 24;

/// `a` is within a share of the largest of `scale`.
fn near(a: f64, b: f64, scale: f64, share: f64) -> bool {
    (a - b).abs() <= share * scale.max(1e-6)
}

#[test]
fn gradients_equal_pytorch() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let lines = std::fs::read_to_string(golden.join("training/training.tsv")).unwrap();
    let bytes = std::fs::read(golden.join("training/training.f32")).unwrap();
    let mut values = bytes
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
    println!("{}", lines.lines().next().unwrap());
    for line in lines.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, file, ids, tensors] = fields[..] else {
            panic!("{line}");
        };
        let ids: Vec<u32> = ids.split(' ').map(|id| id.parse().unwrap()).collect();
        let decoder = Decoder::load(&golden.join(file)).unwrap();
        let prepared = decoder.prepare(QuantMode::Off, 1).unwrap();
        let outputs = OutputSpec {
            positions: (0..ids.len() - 1).collect(),
            hidden_layers: Vec::new(),
        };
        let mut tape = Tape::default();
        prepared
            .run(&ids, ids.len(), &outputs, true, &mut tape)
            .unwrap();
        // Mean cross-entropy, and its gradient: (softmax − one-hot) / positions.
        let count = (ids.len() - 1) as f64;
        let (mut loss, mut dlogits) = (0.0, Vec::new());
        for (row, next) in tape.logits.chunks_exact(VOCABULARY).zip(&ids[1..]) {
            let most = row.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
            let weights: Vec<f64> = row.iter().map(|x| f64::from(x - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            loss -= (weights[*next as usize] / sum).ln() / count;
            let gradient = |(token, w): (usize, &f64)| {
                let hot = f64::from(u8::from(token == *next as usize));
                ((w / sum - hot) / count) as f32
            };
            dlogits.extend(weights.iter().enumerate().map(gradient));
        }
        let expected = values.next().unwrap();
        assert!(
            near(loss, expected, expected, 1e-5),
            "{name}: loss {loss}, expected {expected}"
        );
        let mut gradient = vec![0f32; decoder.layout.total];
        prepared.backward(&mut tape, &dlogits, &[], &mut gradient);

        let mut worst = 0f64;
        let mut seen = 0;
        for tensor in tensors.split(' ') {
            let found = decoder.layout.parameters.iter().find_map(|p| {
                let (before, after) = p.name.split_once('*').unwrap_or((&p.name, ""));
                if p.name == tensor {
                    return Some(p.range.clone());
                }
                let row = tensor.strip_prefix(before)?.strip_suffix(after)?;
                let row: usize = row.parse().ok()?;
                let start = p.range.start + row * p.cols;
                Some(start..start + p.cols)
            });
            let range = found.unwrap_or_else(|| panic!("{name}: no tensor {tensor}"));
            let ours = &gradient[range];
            seen += ours.len();
            let norm = ours
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            let expected = values.next().unwrap();
            assert!(
                near(norm, expected, expected, 1e-5),
                "{name}: {tensor}: a norm of {norm}, expected {expected}"
            );
            let samples = SAMPLES.min(ours.len());
            // Of the size that values have on average.
            let scale = (norm / (ours.len() as f64).sqrt()).max(1e-7);
            for i in 0..samples {
                let (at, expected) = (i * ours.len() / samples, values.next().unwrap());
                let off = (f64::from(ours[at]) - expected).abs() / scale.max(expected.abs());
                worst = worst.max(off);
                assert!(
                    off < 1e-4,
                    "{name}: {tensor}[{at}]: {}, expected {expected} (values of about {scale:e})",
                    ours[at]
                );
            }
        }
        assert_eq!(seen, decoder.layout.total, "{name}: a tensor is missing");
        println!("{name:<16} loss {loss:.4}, gradients off by {worst:.1e}");
    }
    assert!(
        values.next().is_none(),
        "training.f32 holds more than training.tsv tells of"
    );
}
