//! The least of a GGUF v3 writer, for models made by tests.

use super::{Numbers, Random, Values};
use dram_core::quant;

const ALIGNMENT: usize = 32;
pub const BEGIN: &str = "<|begin|>";
pub const END: &str = "<|end|>";
pub const USER: &str = "<|user|>";

/// Metadata types of GGUF.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

#[derive(Default)]
struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Metadata {
    fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) {
        self.count += 1;
        string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(bytes);
    }

    fn u32(&mut self, key: &str, value: usize) {
        self.value(key, U32, &(value as u32).to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.value(key, F32, &value.to_le_bytes());
    }

    fn string(&mut self, key: &str, text: &str) {
        let mut bytes = Vec::new();
        string(&mut bytes, text);
        self.value(key, STRING, &bytes);
    }

    fn array(&mut self, key: &str, kind: u32, len: usize, items: &[u8]) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((len as u64).to_le_bytes());
        bytes.extend(items);
        self.value(key, ARRAY, &bytes);
    }

    fn strings(&mut self, key: &str, items: &[String]) {
        let mut bytes = Vec::new();
        items.iter().for_each(|item| string(&mut bytes, item));
        self.array(key, STRING, items.len(), &bytes);
    }
}

/// GPT-2's printable stand-in for a byte.
fn stand_in(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if printable(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// A byte-level vocabulary: 256 bytes, pairs of letters with their merges, fillers, and at the end three control tokens.
pub fn vocabulary(size: usize) -> (Vec<String>, Vec<String>) {
    assert!(size >= 259);
    let mut tokens: Vec<String> = (0..=255).map(|b| stand_in(b).to_string()).collect();
    let mut merges = Vec::new();
    let mut i = 0;
    while tokens.len() < size - 3 {
        if i < 600 {
            let letter = |n: usize| (b'a' + (n % 26) as u8) as char;
            let (a, b) = (letter(i), letter(i / 26 + 7 * i));
            merges.push(format!("{a} {b}"));
            tokens.push(format!("{a}{b}"));
        } else {
            tokens.push(format!("filler{i}"));
        }
        i += 1;
    }
    tokens.extend([BEGIN, END, USER].map(String::from));
    (tokens, merges)
}

pub fn write(model: &Random) -> Vec<u8> {
    let s = &model.shape;
    let mut meta = Metadata::default();
    meta.string("general.architecture", "llama");
    meta.string("general.name", "random");
    meta.u32("llama.block_count", s.layers);
    meta.u32("llama.context_length", s.context);
    meta.u32("llama.embedding_length", s.embedding);
    meta.u32("llama.feed_forward_length", s.feed_forward);
    meta.u32("llama.attention.head_count", s.heads);
    meta.u32("llama.attention.head_count_kv", s.kv_heads);
    meta.u32("llama.attention.key_length", s.head);
    meta.u32("llama.attention.value_length", s.value);
    meta.f32("llama.attention.layer_norm_rms_epsilon", s.eps);
    meta.u32("llama.rope.dimension_count", s.rope_dims);
    meta.f32("llama.rope.freq_base", s.rope_base);
    if let Some(window) = s.window {
        meta.u32("llama.attention.sliding_window", window);
    }
    if let Some(factor) = s.rope_scale {
        meta.string("llama.rope.scaling.type", "linear");
        meta.f32("llama.rope.scaling.factor", factor);
    }
    meta.u32("llama.vocab_size", s.vocabulary);
    let (tokens, merges) = vocabulary(s.vocabulary);
    meta.string("tokenizer.ggml.model", "gpt2");
    meta.string("tokenizer.ggml.pre", "gpt-2");
    meta.strings("tokenizer.ggml.tokens", &tokens);
    let kinds: Vec<u8> = (0..s.vocabulary)
        .flat_map(|id| if id + 3 >= s.vocabulary { 3i32 } else { 1 }.to_le_bytes())
        .collect();
    meta.array("tokenizer.ggml.token_type", I32, s.vocabulary, &kinds);
    meta.strings("tokenizer.ggml.merges", &merges);
    meta.u32("tokenizer.ggml.bos_token_id", s.vocabulary - 3);
    meta.u32("tokenizer.ggml.eos_token_id", s.vocabulary - 2);
    meta.value("tokenizer.ggml.add_bos_token", BOOL, &[1]);
    let template = "{{ bos_token }}{% for message in messages %}<|user|>{{ message['content'] }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|user|>{% endif %}";
    meta.string("tokenizer.chat_template", template);

    let tensors = model.tensors.iter().map(|tensor| {
        let format = if tensor.vector { "f32" } else { s.format };
        let dimensions = if tensor.vector {
            vec![tensor.cols]
        } else {
            vec![tensor.cols, tensor.rows]
        };
        (tensor.name.clone(), dimensions, format, &tensor.data[..])
    });
    file(&meta, tensors)
}

/// A LoRA adapter of every matrix of a llama model, the embedding and the head among them.
pub fn adapter(model: &Random, rank: usize, format: &str) -> Vec<u8> {
    let mut meta = Metadata::default();
    meta.string("general.type", "adapter");
    meta.string("general.architecture", "llama");
    meta.string("adapter.type", "lora");
    meta.f32("adapter.lora.alpha", 8.0);
    let mut numbers = Numbers::new(3);
    let mut tensors = Vec::new();
    for Values {
        name, rows, cols, ..
    } in model.tensors.iter().filter(|tensor| !tensor.vector)
    {
        let a = if name == "token_embd.weight" {
            [rank, *rows]
        } else {
            [*cols, rank]
        };
        let b = [
            rank,
            if name == "token_embd.weight" {
                *cols
            } else {
                *rows
            },
        ];
        for (half, shape) in [("lora_a", a), ("lora_b", b)] {
            let data = numbers.vector(shape[0] * shape[1], 0.2);
            tensors.push((format!("{name}.{half}"), shape.to_vec(), data));
        }
    }
    let tensors = tensors
        .iter()
        .map(|(name, shape, data)| (name.clone(), shape.clone(), format, &data[..]));
    file(&meta, tensors)
}

/// A file of metadata and tensors: name, dimensions, format, values.
fn file<'a>(
    meta: &Metadata,
    tensors: impl ExactSizeIterator<Item = (String, Vec<usize>, &'a str, &'a [f32])>,
) -> Vec<u8> {
    let count = tensors.len();
    let mut infos = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, dimensions, format, values) in tensors {
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        let format = quant::format_by_name(format).unwrap();
        string(&mut infos, &name);
        infos.extend((dimensions.len() as u32).to_le_bytes());
        dimensions
            .iter()
            .for_each(|&n| infos.extend((n as u64).to_le_bytes()));
        infos.extend(format.ggml_id.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        let start = data.len();
        data.resize(start + format.bytes(values.len()).unwrap(), 0);
        format.quantize(values, &mut data[start..]);
    }

    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((count as u64).to_le_bytes());
    file.extend(meta.count.to_le_bytes());
    file.extend(&meta.bytes);
    file.extend(&infos);
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file.extend(&data);
    file
}
