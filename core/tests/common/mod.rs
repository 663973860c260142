//! Small random models for the tests: a GGUF writer of a page, a seeded generator, and a plain forward pass that knows nothing of the runtime.
#![allow(dead_code, unreachable_pub)] // every test file uses another part of it

pub mod gguf;
pub mod oracle;

/// A session of as many positions, else by default.
pub fn of_context(positions: usize) -> dram_core::SessionOptions {
    dram_core::SessionOptions {
        context: Some(positions),
        ..Default::default()
    }
}

/// xorshift64*: numbers for weights. Not the runtime's generator, on purpose.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn vector(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.unit() * scale).collect()
    }
}

/// The shape of a test model.
#[derive(Clone, Debug)]
pub struct Shape {
    pub layers: usize,
    pub embedding: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head: usize,
    pub value: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    pub context: usize,
    pub rope_dims: usize,
    pub rope_base: f32,
    /// Positions that every layer's attention sees; `None`: all.
    pub window: Option<usize>,
    /// `llama.rope.scaling.factor` with type linear.
    pub rope_scale: Option<f32>,
    /// `rope_freqs.weight` is present.
    pub rope_factors: bool,
    pub tied: bool,
    pub biases: bool,
    pub eps: f32,
    /// Name of the format of the matrices.
    pub format: &'static str,
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            layers: 2,
            embedding: 64,
            heads: 4,
            kv_heads: 2,
            head: 16,
            value: 16,
            feed_forward: 96,
            vocabulary: 288,
            context: 256,
            rope_dims: 16,
            rope_base: 10_000.0,
            window: None,
            rope_scale: None,
            rope_factors: false,
            tied: false,
            biases: false,
            eps: 1e-5,
            format: "f32",
            seed: 1,
        }
    }
}

/// One tensor of a test model, in rows as GGUF stores them.
pub struct Values {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    /// Vectors are written with one dimension and always as F32.
    pub vector: bool,
    pub data: Vec<f32>, // [rows, cols]
}

/// A random model: its shape and every weight in f32.
pub struct Random {
    pub shape: Shape,
    pub tensors: Vec<Values>,
}

impl Random {
    pub fn new(shape: Shape) -> Self {
        let mut numbers = Numbers::new(shape.seed);
        let mut tensors = Vec::new();
        let Shape {
            embedding: d,
            heads,
            kv_heads,
            head,
            value,
            feed_forward: ff,
            vocabulary,
            ..
        } = shape;
        let mut add = |name: String, rows: usize, cols: usize, vector: bool| {
            let data = if name.ends_with("norm.weight") {
                numbers.vector(cols, 0.3).iter().map(|x| 1.0 + x).collect()
            } else if name == "rope_freqs.weight" {
                numbers.vector(cols, 1.0).iter().map(|x| 2.5 + x).collect()
            } else if vector {
                numbers.vector(cols, 0.5)
            } else {
                // Variance 1 / cols keeps activations of order one.
                numbers.vector(rows * cols, (3.0 / cols as f32).sqrt())
            };
            tensors.push(Values {
                name,
                rows,
                cols,
                vector,
                data,
            });
        };
        add("token_embd.weight".into(), vocabulary, d, false);
        add("output_norm.weight".into(), 1, d, true);
        if !shape.tied {
            add("output.weight".into(), vocabulary, d, false);
        }
        if shape.rope_factors {
            add("rope_freqs.weight".into(), 1, shape.rope_dims / 2, true);
        }
        for i in 0..shape.layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            add(name("attn_norm.weight"), 1, d, true);
            add(name("attn_q.weight"), heads * head, d, false);
            add(name("attn_k.weight"), kv_heads * head, d, false);
            add(name("attn_v.weight"), kv_heads * value, d, false);
            if shape.biases {
                add(name("attn_q.bias"), 1, heads * head, true);
                add(name("attn_k.bias"), 1, kv_heads * head, true);
                add(name("attn_v.bias"), 1, kv_heads * value, true);
                add(name("attn_output.bias"), 1, d, true);
            }
            add(name("attn_output.weight"), d, heads * value, false);
            add(name("ffn_norm.weight"), 1, d, true);
            add(name("ffn_gate.weight"), ff, d, false);
            add(name("ffn_up.weight"), ff, d, false);
            add(name("ffn_down.weight"), d, ff, false);
        }
        Random { shape, tensors }
    }

    /// One tensor's weights, `[rows, cols]`.
    pub fn get(&self, name: &str) -> &[f32] {
        let found = self.tensors.iter().find(|t| t.name == name);
        &found.unwrap_or_else(|| panic!("no tensor {name}")).data
    }

    /// The same model with matrices as they read after rounding to its format.
    pub fn rounded(mut self) -> Self {
        let format = dram_core::quant::format_by_name(self.shape.format).unwrap();
        for tensor in self.tensors.iter_mut().filter(|tensor| !tensor.vector) {
            let mut data = vec![0.0; tensor.data.len()];
            format.quantize_dequantize(&tensor.data, &mut data);
            tensor.data = data;
        }
        self
    }

    /// The model as the bytes of a GGUF file.
    pub fn to_gguf(&self) -> Vec<u8> {
        gguf::write(self)
    }

    /// The model in a file that lives as long as the returned value.
    pub fn to_file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.to_gguf()).unwrap();
        file
    }
}
