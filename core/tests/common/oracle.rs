//! A llama decoder as plainly as it can be written, in f64: what the runtime's forward pass is compared with.

use super::Random;
use dram_core::quant;

/// Logits at every position, `[tokens][vocabulary]`.
pub fn logits(model: &Random, tokens: &[u32]) -> Vec<Vec<f32>> {
    let s = &model.shape;
    let group = s.heads / s.kv_heads;
    let int8 = quant::format_by_name(s.format).unwrap().takes_int8();
    let product = |weight: &[f32], x: &[f64]| {
        if int8 {
            product(weight, &round(x))
        } else {
            product(weight, x)
        }
    };
    let mut x: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&t| wide(&model.get("token_embd.weight")[t as usize * s.embedding..][..s.embedding]))
        .collect();
    for layer in 0..s.layers {
        let weight = |part: &str| model.get(&format!("blk.{layer}.{part}"));
        let bias = |part: &str, y: Vec<f64>| -> Vec<f64> {
            if !s.biases {
                return y;
            }
            y.iter()
                .zip(weight(part))
                .map(|(y, &b)| y + f64::from(b))
                .collect()
        };
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for (position, x) in x.iter().enumerate() {
            let h = norm(x, weight("attn_norm.weight"), s.eps);
            let rotated = |y: Vec<f64>| -> Vec<f64> {
                y.chunks(s.head)
                    .flat_map(|h| rope(model, h, position))
                    .collect()
            };
            q.push(rotated(bias(
                "attn_q.bias",
                product(weight("attn_q.weight"), &h),
            )));
            k.push(cached(rotated(bias(
                "attn_k.bias",
                product(weight("attn_k.weight"), &h),
            ))));
            v.push(cached(bias(
                "attn_v.bias",
                product(weight("attn_v.weight"), &h),
            )));
        }
        for t in 0..tokens.len() {
            let mut mixed = Vec::new();
            for head in 0..s.heads {
                let kv = head / group;
                let q = &q[t][head * s.head..][..s.head];
                let first = s.window.map_or(0, |window| (t + 1).saturating_sub(window));
                let scores: Vec<f64> = (first..=t)
                    .map(|p| dot(q, &k[p][kv * s.head..][..s.head]) / (s.head as f64).sqrt())
                    .collect();
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|x| (x - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for i in 0..s.value {
                    let values = v[first..=t].iter().map(|v| v[kv * s.value + i]);
                    let y: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
                    mixed.push(y / sum);
                }
            }
            let y = bias(
                "attn_output.bias",
                product(weight("attn_output.weight"), &mixed),
            );
            x[t] = x[t].iter().zip(&y).map(|(a, b)| a + b).collect();
            let h = norm(&x[t], weight("ffn_norm.weight"), s.eps);
            let gate = product(weight("ffn_gate.weight"), &h);
            let up = product(weight("ffn_up.weight"), &h);
            let act: Vec<f64> = gate
                .iter()
                .zip(&up)
                .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                .collect();
            let y = product(weight("ffn_down.weight"), &act);
            x[t] = x[t].iter().zip(&y).map(|(a, b)| a + b).collect();
        }
    }
    let output = if s.tied {
        "token_embd.weight"
    } else {
        "output.weight"
    };
    x.iter()
        .map(|x| {
            let h = norm(x, model.get("output_norm.weight"), s.eps);
            product(model.get(output), &h)
                .iter()
                .map(|&y| y as f32)
                .collect()
        })
        .collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Keys and values as the cache keeps them.
fn cached(x: Vec<f64>) -> Vec<f64> {
    x.iter()
        .map(|&x| half::f16::from_f32(x as f32).to_f64())
        .collect()
}

/// Activations as products with quantised weights see them.
fn round(x: &[f64]) -> Vec<f64> {
    let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let mut rounded = vec![0.0; x.len()];
    dram_core::kernels::round_activations(&narrow, &mut rounded);
    wide(&rounded)
}

/// `weight` `[rows, x.len()]` times x.
fn product(weight: &[f32], x: &[f64]) -> Vec<f64> {
    weight
        .chunks(x.len())
        .map(|row| dot(&wide(row), x))
        .collect()
}

fn norm(x: &[f64], weight: &[f32], eps: f32) -> Vec<f64> {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter()
        .zip(weight)
        .map(|(x, &w)| x * scale * f64::from(w))
        .collect()
}

/// Rotates the pairs (2i, 2i + 1) of one head.
fn rope(model: &Random, head: &[f64], position: usize) -> Vec<f64> {
    let s = &model.shape;
    let mut out = head.to_vec();
    for i in 0..s.rope_dims / 2 {
        let mut frequency = f64::from(s.rope_base).powf(-2.0 * i as f64 / s.rope_dims as f64);
        if s.rope_factors {
            frequency /= f64::from(model.get("rope_freqs.weight")[i]);
        }
        frequency /= f64::from(s.rope_scale.unwrap_or(1.0));
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = (head[2 * i], head[2 * i + 1]);
        out[2 * i] = a * cos - b * sin;
        out[2 * i + 1] = a * sin + b * cos;
    }
    out
}
