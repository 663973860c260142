//! A model that takes seconds to fill its context and never ends by itself, which is what tests of cancelling need, and an adapter of it.
//!
//! `cargo xtask kotlin` and `cargo xtask swift` include this file too, so it knows nothing but the standard library.

/// Width of the residual stream.
const WIDTH: usize = 512;
/// Width of the feed-forward part.
const FFN: usize = 1536;
const LAYERS: usize = 12;
const HEADS: usize = 8;
/// 256 bytes, one merged pair, one end token.
const VOCABULARY: usize = 258;
const END: usize = VOCABULARY - 1;
/// Positions the model claims to have been trained for.
const CONTEXT: u32 = 4096;
/// Values in a Q4_0 block, and its bytes: an f16 scale and 16 bytes of nibbles.
const BLOCK: (usize, usize) = (32, 18);

/// The bytes of a llama-family GGUF with seeded random Q4_0 weights (41 million, 23 MB) and a byte-level tokenizer. The end
/// token's row of the output matrix is zero, so that among random logits it is never among the likeliest.
pub(crate) fn slow_model() -> Vec<u8> {
    let mut file = Writer::default();
    file.key("general.architecture", |f| f.string("llama"));
    file.key("general.name", |f| f.string("slow"));
    for (key, value) in [
        ("llama.context_length", CONTEXT),
        ("llama.embedding_length", WIDTH as u32),
        ("llama.block_count", LAYERS as u32),
        ("llama.feed_forward_length", FFN as u32),
        ("llama.attention.head_count", HEADS as u32),
        ("llama.attention.head_count_kv", HEADS as u32),
        ("llama.rope.dimension_count", (WIDTH / HEADS) as u32),
        ("llama.vocab_size", VOCABULARY as u32),
        ("tokenizer.ggml.eos_token_id", END as u32),
    ] {
        file.key(key, |f| f.number(4, &value.to_le_bytes()));
    }
    for (key, value) in [
        ("llama.attention.layer_norm_rms_epsilon", 1e-5f32),
        ("llama.rope.freq_base", 10000.0),
    ] {
        file.key(key, |f| f.number(6, &value.to_le_bytes()));
    }
    file.key("tokenizer.ggml.model", |f| f.string("gpt2"));
    file.key("tokenizer.ggml.pre", |f| f.string("gpt-2"));
    let tokens = vocabulary();
    file.key("tokenizer.ggml.tokens", |f| f.strings(&tokens));
    file.key("tokenizer.ggml.merges", |f| f.strings(&["Ġ t".into()]));
    file.key("tokenizer.ggml.token_type", |f| {
        f.array(5, VOCABULARY);
        for id in 0..VOCABULARY {
            f.header
                .extend((if id == END { 3i32 } else { 1 }).to_le_bytes());
        }
    });

    // Random nibbles have a standard deviation of 4.6: these scales keep a row's product with a normed vector near 1.
    let unit = 1.0 / (4.6 * (WIDTH as f32).sqrt());
    file.matrix("token_embd.weight", VOCABULARY, WIDTH, 0.2);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        file.ones(&name("attn_norm"), WIDTH);
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            file.matrix(&name(part), WIDTH, WIDTH, unit);
        }
        file.ones(&name("ffn_norm"), WIDTH);
        file.matrix(&name("ffn_gate"), FFN, WIDTH, unit);
        file.matrix(&name("ffn_up"), FFN, WIDTH, unit);
        file.matrix(&name("ffn_down"), WIDTH, FFN, unit);
    }
    file.ones("output_norm.weight", WIDTH);
    file.matrix("output.weight", VOCABULARY, WIDTH, 2.0 * unit);
    // A block whose scale is zero is zero: the end token's row.
    let row = WIDTH / BLOCK.0 * BLOCK.1;
    let end = file.data.len() - row;
    file.data[end..].fill(0);
    file.finish()
}

/// The bytes of a LoRA adapter of [`slow_model`]: random halves of rank 32 beside the output matrix, strong enough to change every answer.
pub(crate) fn adapter() -> Vec<u8> {
    const RANK: usize = BLOCK.0;
    let mut file = Writer::default();
    for (key, value) in [
        ("general.type", "adapter"),
        ("general.architecture", "llama"),
        ("adapter.type", "lora"),
    ] {
        file.key(key, |f| f.string(value));
    }
    file.key("adapter.lora.alpha", |f| {
        f.number(6, &(RANK as f32).to_le_bytes());
    });
    let unit = |cols: usize| 1.0 / (4.6 * (cols as f32).sqrt());
    file.matrix("output.weight.lora_a", RANK, WIDTH, unit(WIDTH));
    file.matrix("output.weight.lora_b", VOCABULARY, RANK, 4.0 * unit(RANK));
    file.finish()
}

/// GPT-2's spelling of bytes, then the merged pair and the end token.
fn vocabulary() -> Vec<String> {
    let mut spare = 256u32..;
    let mut tokens: Vec<String> = (0u32..256)
        .map(|byte| {
            let shown = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if shown {
                byte
            } else {
                spare.next().unwrap_or_default()
            };
            char::from_u32(code).unwrap_or_default().to_string()
        })
        .collect();
    tokens.extend(["Ġt".to_string(), "<|end|>".to_string()]);
    tokens
}

/// A GGUF being written: metadata, tensor descriptions and tensor data side by side.
#[derive(Default)]
struct Writer {
    header: Vec<u8>,
    keys: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
    random: u64,
}

impl Writer {
    fn key(&mut self, key: &str, value: impl FnOnce(&mut Self)) {
        text(&mut self.header, key);
        self.keys += 1;
        value(self);
    }

    fn number(&mut self, kind: u32, bytes: &[u8]) {
        self.header.extend(kind.to_le_bytes());
        self.header.extend(bytes);
    }

    fn string(&mut self, value: &str) {
        self.header.extend(8u32.to_le_bytes());
        text(&mut self.header, value);
    }

    fn array(&mut self, kind: u32, len: usize) {
        self.header.extend(9u32.to_le_bytes());
        self.header.extend(kind.to_le_bytes());
        self.header.extend((len as u64).to_le_bytes());
    }

    fn strings(&mut self, values: &[String]) {
        self.array(8, values.len());
        for value in values {
            text(&mut self.header, value);
        }
    }

    /// Describes a tensor whose data comes next; `dims` begin with the row length.
    fn tensor(&mut self, name: &str, dims: &[usize], kind: u32) {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        text(&mut self.tensors, name);
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        for dim in dims {
            self.tensors.extend((*dim as u64).to_le_bytes());
        }
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.tensor_count += 1;
    }

    fn ones(&mut self, name: &str, len: usize) {
        self.tensor(name, &[len], 0);
        self.data.extend(1f32.to_le_bytes().repeat(len));
    }

    /// A Q4_0 matrix `[rows, cols]` of random nibbles, every block with the scale `scale` (a normal f16).
    fn matrix(&mut self, name: &str, rows: usize, cols: usize, scale: f32) {
        self.tensor(name, &[cols, rows], 2);
        let bits = scale.to_bits();
        let half = ((bits >> 13) - (112 << 10)) as u16;
        for _ in 0..rows * cols / BLOCK.0 {
            self.data.extend(half.to_le_bytes());
            for _ in 0..2 {
                self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.random;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.data.extend((z ^ (z >> 31)).to_le_bytes());
            }
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut file = Vec::with_capacity(self.data.len() + self.header.len() + (1 << 16));
        file.extend(b"GGUF");
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.keys.to_le_bytes());
        file.extend(self.header);
        file.extend(self.tensors);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(self.data);
        file
    }
}

/// A string as GGUF stores it.
fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}
