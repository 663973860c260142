//! The decoder against its plain form in candle operations: values, hidden states and every gradient.

use candle_core::{D, DType, Device, Result, Tensor, Var};

use super::*;

/// RMSNorm, RoPE, attention, SwiGLU and the rest in candle's differentiable operations, one sequence at a time.
struct Plain<'a> {
    config: &'a Config,
    layout: &'a Layout,
    vars: Vec<Var>,
}

impl<'a> Plain<'a> {
    fn new(decoder: &'a Decoder, weights: &[f32]) -> Result<Self> {
        let layout = &decoder.layout;
        let vars = layout
            .parameters
            .iter()
            .map(|p| Var::from_slice(&weights[p.range.clone()], (p.rows, p.cols), &Device::Cpu))
            .collect::<Result<_>>()?;
        Ok(Plain {
            config: &decoder.config,
            layout,
            vars,
        })
    }

    fn get(&self, name: &str) -> &Tensor {
        let at = self
            .layout
            .parameters
            .iter()
            .position(|p| p.name == name)
            .unwrap();
        &self.vars[at]
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.config.norm_eps))?;
        x.broadcast_div(&mean.sqrt()?)?
            .broadcast_mul(self.get(name))
    }

    /// `x`: [t, heads, head_dim]
    fn rope(&self, x: &Tensor) -> Result<Tensor> {
        let (t, _, hd) = x.dims3()?;
        let f: Vec<f32> = self
            .config
            .rope_frequencies()
            .iter()
            .map(|&f| f as f32)
            .collect();
        let f = Tensor::from_vec(f, (1, hd / 2), &Device::Cpu)?;
        let at = Tensor::arange(0u32, t as u32, &Device::Cpu)?
            .to_dtype(DType::F32)?
            .reshape((t, 1))?;
        let angle = at.matmul(&f)?.reshape((t, 1, hd / 2))?;
        let (a, b) = (x.narrow(2, 0, hd / 2)?, x.narrow(2, hd / 2, hd / 2)?);
        let (cos, sin) = (angle.cos()?, angle.sin()?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 2)
    }

    /// Hidden states after each number of layers, [t, d], and logits, [t, v].
    fn forward(&self, ids: &[u32]) -> Result<(Vec<Tensor>, Tensor)> {
        let c = self.config;
        let t = ids.len();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let mut x = self
            .get("model.embed_tokens.weight")
            .index_select(&ids, 0)?;
        let mask: Vec<f32> = (0..t * t)
            .map(|i| {
                if i % t > i / t {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, t, t), &Device::Cpu)?;
        let mut hidden = vec![x.clone()];
        for l in 0..c.layers {
            let w = |part: &str| self.get(&format!("model.layers.{l}.{part}.weight")).t();
            let n = self.norm(&x, &format!("model.layers.{l}.input_layernorm.weight"))?;
            let q = self.rope(
                &n.matmul(&w("self_attn.q_proj")?)?
                    .reshape((t, c.heads, c.head_dim))?,
            )?;
            let k = self.rope(
                &n.matmul(&w("self_attn.k_proj")?)?
                    .reshape((t, c.kv_heads, c.head_dim))?,
            )?;
            let v = n
                .matmul(&w("self_attn.v_proj")?)?
                .reshape((t, c.kv_heads, c.head_dim))?;
            let share = |x: Tensor| -> Result<Tensor> {
                let x = x.unsqueeze(2)?.broadcast_as((
                    t,
                    c.kv_heads,
                    c.heads / c.kv_heads,
                    c.head_dim,
                ))?;
                x.reshape((t, c.heads, c.head_dim))?
                    .transpose(0, 1)?
                    .contiguous()
            };
            let (q, k, v) = (q.transpose(0, 1)?.contiguous()?, share(k)?, share(v)?);
            let scores = (q.matmul(&k.t()?.contiguous()?)? / (c.head_dim as f64).sqrt())?
                .broadcast_add(&mask)?;
            let p = scores
                .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
                .exp()?;
            let p = p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?;
            let a = p
                .matmul(&v)?
                .transpose(0, 1)?
                .reshape((t, c.heads * c.head_dim))?;
            x = (x + a.matmul(&w("self_attn.o_proj")?)?)?;
            let n = self.norm(
                &x,
                &format!("model.layers.{l}.post_attention_layernorm.weight"),
            )?;
            let gate = n.matmul(&w("mlp.gate_proj")?)?;
            let silu = (&gate / ((gate.neg()?.exp()? + 1.0)?))?;
            let act = (silu * n.matmul(&w("mlp.up_proj")?)?)?;
            x = (x + act.matmul(&w("mlp.down_proj")?)?)?;
            hidden.push(x.clone());
        }
        let head = if c.tied_embeddings {
            "model.embed_tokens.weight"
        } else {
            "lm_head.weight"
        };
        let logits = self
            .norm(&x, "model.norm.weight")?
            .matmul(&self.get(head).t()?)?;
        Ok((hidden, logits))
    }
}

fn close(name: &str, got: &[f32], outputs: &[f32], tolerance: f32) {
    assert_eq!(got.len(), outputs.len(), "{name}");
    let scale = outputs.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(outputs).enumerate() {
        assert!(
            (g - w).abs() <= tolerance * scale,
            "{name}[{i}]: {g} expected {w} (scale {scale})"
        );
    }
}

/// Ids [3, 21] with sequences of different use, positions wanted in two of them, and weights of the sum that is differentiated.
fn check(config: Config) -> Result<()> {
    let (length, v, d) = (21, config.vocabulary, config.embedding_length);
    let mut rng = Rng::new(&[3]);
    let decoder = Decoder::random(config.clone(), 5).unwrap();
    let mut noisy = decoder.parameters.clone();
    for p in decoder
        .layout
        .parameters
        .iter()
        .filter(|p| p.role == Role::Norm)
    {
        fill_normal(&mut noisy[p.range.clone()], 0.5, &mut rng);
    }
    let decoder = Decoder::new(config, noisy).unwrap();
    let ids: Vec<u32> = (0..3 * length).map(|_| rng.below(v) as u32).collect();
    let outputs = OutputSpec {
        positions: vec![0, 3, 4, 11, 17, length * 2 + 1, length * 2 + 20],
        hidden_layers: vec![0, 1, decoder.config.layers],
    };
    let s = outputs.positions.len();

    let prepared = decoder.prepare(QuantMode::Off, 1).unwrap();
    let mut tape = Tape::default();
    prepared
        .run(&ids, length, &outputs, true, &mut tape)
        .unwrap();
    assert_eq!(tape.tokens(), 18 + 21);
    let mut dlogits = vec![0f32; s * v];
    let mut dhidden = vec![vec![0f32; s * d]; 3];
    fill_normal(&mut dlogits, 1.0, &mut rng);
    dhidden
        .iter_mut()
        .for_each(|g| fill_normal(g, 1.0, &mut rng));
    let mut gradient = vec![0f32; decoder.layout.total];
    let (logits, hidden) = (tape.logits.clone(), tape.hidden.clone());
    prepared.backward(&mut tape, &dlogits, &dhidden, &mut gradient);

    let plain = Plain::new(&decoder, &decoder.parameters)?;
    let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    let mut row = 0;
    for sequence in [0, 2] {
        let (states, plain_logits) = plain.forward(&ids[sequence * length..][..length])?;
        for at in outputs
            .positions
            .iter()
            .filter(|p| *p / length == sequence)
            .map(|p| p % length)
        {
            let got = plain_logits.get(at)?;
            close("logits", &logits[row * v..][..v], &got.to_vec1()?, 2e-5);
            loss = (loss
                + (got * Tensor::from_slice(&dlogits[row * v..][..v], v, &Device::Cpu)?)?
                    .sum_all()?)?;
            for (h, &layer) in outputs.hidden_layers.iter().enumerate() {
                let got = states[layer].get(at)?;
                close("hidden", &hidden[h][row * d..][..d], &got.to_vec1()?, 2e-5);
                loss = (loss
                    + (got * Tensor::from_slice(&dhidden[h][row * d..][..d], d, &Device::Cpu)?)?
                        .sum_all()?)?;
            }
            row += 1;
        }
    }
    let grads = loss.backward()?;
    for (p, var) in decoder.layout.parameters.iter().zip(&plain.vars) {
        let outputs = grads
            .get(var)
            .expect("every parameter is used")
            .flatten_all()?
            .to_vec1::<f32>()?;
        close(&p.name, &gradient[p.range.clone()], &outputs, 5e-5);
    }

    // Without keeping the tape, the same values; and asked again on the same tape, too.
    let output = decoder.forward(&ids, length, &outputs).unwrap();
    assert_eq!((output.logits, output.hidden), (logits.clone(), hidden));
    prepared
        .run(&ids, length, &outputs, true, &mut tape)
        .unwrap();
    assert_eq!(tape.logits, logits);
    Ok(())
}

#[test]
fn equals_its_plain_form() {
    let base = Config {
        vocabulary: 50,
        context_length: 32,
        ..Config::default()
    };
    // 4 heads of 32; grouped, untied, with head lengths and widths that are no multiple of a register.
    check(base.clone()).unwrap();
    check(Config {
        embedding_length: 36,
        heads: 6,
        kv_heads: 2,
        head_dim: 10,
        feed_forward_length: 44,
        layers: 2,
        tied_embeddings: false,
        ..base.clone()
    })
    .unwrap();
    check(Config {
        embedding_length: 64,
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
        feed_forward_length: 96,
        layers: 1,
        rope_factors: vec![2.0; 32],
        ..base
    })
    .unwrap();
}

#[test]
fn refuses_what_it_cannot_run() {
    let decoder = Decoder::random(
        Config {
            vocabulary: 50,
            context_length: 8,
            ..Config::default()
        },
        1,
    )
    .unwrap();
    let outputs = |positions: &[usize], hidden_layers: &[usize]| OutputSpec {
        positions: positions.to_vec(),
        hidden_layers: hidden_layers.to_vec(),
    };
    for (ids, length, outputs, word) in [
        (vec![1; 8], 8, outputs(&[8], &[]), "position 8"),
        (vec![1; 8], 8, outputs(&[3, 2], &[]), "ascend"),
        (vec![1; 8], 8, outputs(&[3], &[9]), "hidden state 9"),
        (vec![50; 8], 8, outputs(&[3], &[]), "token 50"),
        (vec![1; 20], 20, outputs(&[12], &[]), "13 tokens"),
        (vec![1; 7], 4, outputs(&[3], &[]), "not a multiple"),
    ] {
        let message = format!("{:#}", decoder.forward(&ids, length, &outputs).unwrap_err());
        assert!(message.contains(word), "{message}");
    }
    assert!(decoder.prepare(QuantMode::On, 1).is_err());
    assert!(
        decoder
            .forward(&[1; 8], 8, &OutputSpec::default())
            .unwrap()
            .logits
            .is_empty()
    );
}

#[test]
fn folder_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    for tied_embeddings in [true, false] {
        let config = Config {
            vocabulary: 40,
            kv_heads: 2,
            tied_embeddings,
            rope_factors: vec![3.0; 16],
            ..Config::default()
        };
        let decoder = Decoder::random(config, 1).unwrap();
        decoder.save_hugging_face(folder.path()).unwrap();
        let back = Decoder::load(folder.path()).unwrap();
        assert_eq!(back.config, decoder.config);
        assert_eq!(back.parameters, decoder.parameters);
    }
    assert!(
        std::fs::read_dir(folder.path()).unwrap().count() == 2,
        "nothing is left beside the two files"
    );
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    assert!(Decoder::load(folder.path()).is_err());
}
