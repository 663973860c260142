//! Broken model files: each is refused with an error that names what is wrong, and none brings the runtime down.

use dram_core::{Model, Prompt, Request, SessionOptions};
use dram_tests::gguf::{Ends, Gguf, Tensor, Value};
use dram_tests::toy::{END, Shape, VOCABULARY, f32_tensor, splitmix};
use std::ops::ControlFlow;
use std::path::Path;

/// A small model with every kind of section.
fn valid() -> Gguf {
    Shape {
        width: 32,
        ffn: 64,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        ..Shape::default()
    }
    .gguf()
}

/// What is done to the file, and fragments of which one must be in the error.
type Case = (&'static str, fn(&mut Gguf), &'static str);
/// The same on the written bytes.
type RawCase = (&'static str, fn(Vec<u8>, Ends) -> Vec<u8>, &'static str);

const Q: &str = "blk.0.attn_q.weight";
const TOKENS: &str = "tokenizer.ggml.tokens";

/// An array of `count` claimed elements of a type, followed by these bytes.
fn array(kind: u32, count: u64, bytes: &[u8]) -> Value {
    Value::Raw(
        9,
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat(),
    )
}

fn tokens(f: &mut Gguf) -> &mut Vec<String> {
    match f.value(TOKENS) {
        Value::Strs(tokens) => tokens,
        other => panic!("tokens are {other:?}"),
    }
}

fn put(f: &mut Gguf, key: &str, value: Value) {
    f.remove(key);
    f.set(key, value);
}

fn u32(f: &mut Gguf, key: &str, value: u32) {
    put(f, key, Value::U32(value));
}

fn text(f: &mut Gguf, key: &str, value: &str) {
    put(f, key, Value::Str(value.into()));
}

const CASES: &[Case] = &[
    // The header.
    ("magic", |f| f.magic = *b"GGML", "GGML"),
    ("big-endian magic", |f| f.magic = *b"FUGG", "big-endian"),
    (
        "big-endian version",
        |f| f.version = 3u32.swap_bytes(),
        "big-endian",
    ),
    ("version 1", |f| f.version = 1, "version"),
    ("version 4", |f| f.version = 4, "version"),
    (
        "tensor count u64::MAX",
        |f| f.tensor_count = Some(u64::MAX),
        "tensor count",
    ),
    (
        "tensor count 2⁴⁰",
        |f| f.tensor_count = Some(1 << 40),
        "tensor count",
    ),
    (
        "one tensor too many",
        |f| f.tensor_count = Some(f.tensors.len() as u64 + 1),
        "tensor",
    ),
    (
        "metadata count u64::MAX",
        |f| f.metadata_count = Some(u64::MAX),
        "metadata count",
    ),
    (
        "metadata count 2⁴⁰",
        |f| f.metadata_count = Some(1 << 40),
        "metadata count",
    ),
    (
        "one key too many",
        |f| f.metadata_count = Some(f.metadata.len() as u64 + 1),
        "name of tensor 0",
    ),
    (
        "one key too few",
        |f| f.metadata_count = Some(f.metadata.len() as u64 - 1),
        "tensor",
    ),
    // Keys and values.
    (
        "key not UTF-8",
        |f| f.metadata[3].0 = vec![0xff, 0xfe, b'x'],
        "UTF-8",
    ),
    (
        "key empty",
        |f| f.metadata[3].0 = vec![],
        "key of metadata pair 3",
    ),
    (
        "key of 70,000 bytes",
        |f| f.metadata[3].0 = vec![b'k'; 70_000],
        "key of metadata pair 3",
    ),
    (
        "value type 13",
        |f| put(f, "llama.vocab_size", Value::Raw(13, vec![0; 4])),
        "llama.vocab_size",
    ),
    (
        "value type u32::MAX",
        |f| put(f, "general.name", Value::Raw(u32::MAX, vec![0; 8])),
        "general.name",
    ),
    (
        "array of arrays",
        |f| f.set("x.nested", array(9, 1, &[0; 24])),
        "x.nested",
    ),
    (
        "array of an unknown type",
        |f| f.set("x.array", array(99, 1, &[0; 8])),
        "x.array",
    ),
    (
        "array count u64::MAX",
        |f| f.set("x.array", array(4, u64::MAX, &[])),
        "x.array",
    ),
    (
        "array count × size overflows",
        |f| f.set("x.array", array(10, (1 << 61) + 1, &[])),
        "x.array",
    ),
    (
        "string array count 2⁶⁰",
        |f| f.set("x.strings", array(8, 1 << 60, &[])),
        "x.strings",
    ),
    (
        "string in an array past the end",
        |f| f.set("x.strings", array(8, 1, &u64::MAX.to_le_bytes())),
        "x.strings",
    ),
    (
        "string past the end",
        |f| f.set("x.text", Value::Raw(8, (1u64 << 40).to_le_bytes().to_vec())),
        "x.text",
    ),
    (
        "string length u64::MAX",
        |f| f.set("x.text", Value::Raw(8, u64::MAX.to_le_bytes().to_vec())),
        "x.text",
    ),
    (
        "string not UTF-8",
        |f| {
            f.set(
                "x.text",
                Value::Raw(8, [&2u64.to_le_bytes()[..], &[0xc3, 0x28]].concat()),
            )
        },
        "x.text",
    ),
    (
        "bool of 2",
        |f| f.set("x.bool", Value::Raw(7, vec![2])),
        "x.bool",
    ),
    (
        "the same key twice",
        |f| {
            f.metadata
                .push((b"llama.block_count".to_vec(), Value::U32(1)))
        },
        "llama.block_count",
    ),
    // Alignment.
    (
        "alignment 0",
        |f| f.set("general.alignment", Value::U32(0)),
        "general.alignment",
    ),
    (
        "alignment 48",
        |f| f.set("general.alignment", Value::U32(48)),
        "general.alignment",
    ),
    (
        "alignment 2³¹",
        |f| f.set("general.alignment", Value::U32(1 << 31)),
        "general.alignment",
    ),
    (
        "alignment is a string",
        |f| f.set("general.alignment", Value::Str("32".into())),
        "general.alignment",
    ),
    // Descriptions of tensors.
    ("tensor without dimensions", |f| f.tensor(Q).dims.clear(), Q),
    (
        "tensor of five dimensions",
        |f| f.tensor(Q).dims.extend([1, 1, 1]),
        Q,
    ),
    ("dimension 0", |f| f.tensor(Q).dims[0] = 0, Q),
    (
        "dimensions overflow",
        |f| f.tensor(Q).dims = vec![1 << 40, 1 << 40],
        Q,
    ),
    (
        "dimensions overflow to nothing",
        |f| f.tensor(Q).dims = vec![1 << 32, 1 << 32],
        Q,
    ),
    (
        "bytes overflow",
        |f| f.tensor(Q).dims = vec![1 << 31, 1 << 31],
        Q,
    ),
    ("unknown format", |f| f.tensor(Q).ggml_type = 1000, Q),
    ("removed format", |f| f.tensor(Q).ggml_type = 4, Q),
    (
        "format not read here",
        |f| f.tensor(Q).ggml_type = 16,
        "iq2_xxs",
    ),
    (
        "rows no multiple of the block",
        |f| (f.tensor(Q).dims, f.tensor(Q).ggml_type) = (vec![30, 32], 8),
        Q,
    ),
    ("offset not aligned", |f| f.tensor(Q).offset = Some(17), Q),
    (
        "offset past the end",
        |f| f.tensor(Q).offset = Some(1 << 30),
        Q,
    ),
    (
        "offset overflows",
        |f| f.tensor(Q).offset = Some(u64::MAX - 31),
        Q,
    ),
    (
        "tensors overlap",
        |f| f.tensor(Q).offset = Some(0),
        "tensor",
    ),
    (
        "the same tensor twice",
        |f| f.tensors[2].name = f.tensors[1].name.clone(),
        "attn_norm",
    ),
    (
        "tensor name empty",
        |f| f.tensors[2].name = String::new(),
        "name of tensor 2",
    ),
    (
        "tensor name of 300 bytes",
        |f| f.tensors[2].name = "t".repeat(300),
        "name of tensor 2",
    ),
    // The architecture's keys.
    (
        "no architecture",
        |f| f.remove("general.architecture"),
        "general.architecture",
    ),
    (
        "unknown architecture",
        |f| text(f, "general.architecture", "mamba9"),
        "mamba9",
    ),
    (
        "architecture is a number",
        |f| u32(f, "general.architecture", 1),
        "general.architecture",
    ),
    (
        "no width",
        |f| f.remove("llama.embedding_length"),
        "llama.embedding_length",
    ),
    (
        "no layer count",
        |f| f.remove("llama.block_count"),
        "llama.block_count",
    ),
    (
        "no head count",
        |f| f.remove("llama.attention.head_count"),
        "llama.attention.head_count",
    ),
    (
        "no epsilon",
        |f| f.remove("llama.attention.layer_norm_rms_epsilon"),
        "layer_norm_rms_epsilon",
    ),
    (
        "no context length",
        |f| f.remove("llama.context_length"),
        "llama.context_length",
    ),
    (
        "context length 0",
        |f| u32(f, "llama.context_length", 0),
        "llama.context_length",
    ),
    (
        "width is a string",
        |f| text(f, "llama.embedding_length", "32"),
        "llama.embedding_length",
    ),
    (
        "width negative",
        |f| put(f, "llama.embedding_length", Value::I32(-32)),
        "llama.embedding_length",
    ),
    (
        "width u64::MAX",
        |f| put(f, "llama.embedding_length", Value::U64(u64::MAX)),
        "llama.embedding_length",
    ),
    (
        "width another than the tensors'",
        |f| u32(f, "llama.embedding_length", 64),
        "token_embd.weight",
    ),
    (
        "layers 0",
        |f| u32(f, "llama.block_count", 0),
        "llama.block_count",
    ),
    (
        "layers u32::MAX",
        |f| u32(f, "llama.block_count", u32::MAX),
        "llama.block_count",
    ),
    (
        "a million layers",
        |f| u32(f, "llama.block_count", 1 << 20),
        "at most the file's 12 tensors",
    ),
    (
        "a layer too few",
        |f| {
            f.tensors
                .push(f32_tensor("blk.1.attn_norm.weight", &[1.0; 32]))
        },
        "blk.1.attn_norm",
    ),
    (
        "heads 0",
        |f| u32(f, "llama.attention.head_count", 0),
        "llama.attention.head_count",
    ),
    (
        "heads no multiple of the KV heads",
        |f| u32(f, "llama.attention.head_count_kv", 3),
        "head_count_kv",
    ),
    (
        "more KV heads than heads",
        |f| u32(f, "llama.attention.head_count_kv", 4),
        "head_count_kv",
    ),
    (
        "KV heads 0",
        |f| u32(f, "llama.attention.head_count_kv", 0),
        "head_count_kv",
    ),
    (
        "width no multiple of the heads",
        |f| {
            f.remove("llama.attention.key_length");
            u32(f, "llama.embedding_length", 31);
        },
        "head_count",
    ),
    (
        "head length 0",
        |f| u32(f, "llama.attention.key_length", 0),
        "key_length",
    ),
    (
        "head length another than the tensors'",
        |f| u32(f, "llama.attention.key_length", 64),
        Q,
    ),
    (
        "head length 2³¹",
        |f| u32(f, "llama.attention.key_length", 1 << 31),
        "key_length",
    ),
    (
        "RoPE longer than a head",
        |f| u32(f, "llama.rope.dimension_count", 64),
        "rope.dimension_count",
    ),
    (
        "RoPE of an odd length",
        |f| u32(f, "llama.rope.dimension_count", 7),
        "rope.dimension_count",
    ),
    (
        "epsilon NaN",
        |f| {
            put(
                f,
                "llama.attention.layer_norm_rms_epsilon",
                Value::F32(f32::NAN),
            )
        },
        "layer_norm_rms_epsilon",
    ),
    (
        "epsilon negative",
        |f| {
            put(
                f,
                "llama.attention.layer_norm_rms_epsilon",
                Value::F32(-1.0),
            )
        },
        "layer_norm_rms_epsilon",
    ),
    (
        "RoPE base 0",
        |f| put(f, "llama.rope.freq_base", Value::F32(0.0)),
        "rope.freq_base",
    ),
    (
        "RoPE base infinite",
        |f| put(f, "llama.rope.freq_base", Value::F32(f32::INFINITY)),
        "rope.freq_base",
    ),
    (
        "RoPE base NaN",
        |f| put(f, "llama.rope.freq_base", Value::F32(f32::NAN)),
        "rope.freq_base",
    ),
    (
        "RoPE scaling unknown",
        |f| f.set("llama.rope.scaling.type", Value::Str("spiral".into())),
        "spiral",
    ),
    (
        "RoPE scaling factor negative",
        |f| {
            f.set("llama.rope.scaling.type", Value::Str("linear".into()));
            f.set("llama.rope.scaling.factor", Value::F32(-4.0));
        },
        "rope.scaling.factor",
    ),
    (
        "RoPE factors of another length",
        |f| f.tensors.push(f32_tensor("rope_freqs.weight", &[1.0; 3])),
        "rope_freqs.weight",
    ),
    (
        "RoPE factor 0",
        |f| f.tensors.push(f32_tensor("rope_freqs.weight", &[0.0; 8])),
        "rope_freqs.weight",
    ),
    (
        "feed-forward length 0",
        |f| u32(f, "llama.feed_forward_length", 0),
        "feed_forward_length",
    ),
    (
        "feed-forward another than the tensors'",
        |f| u32(f, "llama.feed_forward_length", 96),
        "blk.0.ffn",
    ),
    (
        "mixture of experts",
        |f| f.set("llama.expert_count", Value::U32(8)),
        "expert_count",
    ),
    // Tensors of the model.
    (
        "no embedding",
        |f| drop_tensor(f, "token_embd.weight"),
        "token_embd.weight",
    ),
    ("no query matrix", |f| drop_tensor(f, Q), Q),
    (
        "no output norm",
        |f| drop_tensor(f, "output_norm.weight"),
        "output_norm.weight",
    ),
    (
        "matrix transposed",
        |f| f.tensor("blk.0.ffn_up.weight").dims.reverse(),
        "blk.0.ffn_up.weight",
    ),
    ("matrix too small", |f| shrink(f.tensor(Q)), Q),
    (
        "norm too long",
        |f| *f.tensor("output_norm.weight") = f32_tensor("output_norm.weight", &[1.0; 33]),
        "output_norm",
    ),
    (
        "a tensor that nobody reads",
        |f| {
            f.tensors
                .push(f32_tensor("blk.0.attn_sinks.weight", &[0.0; 2]))
        },
        "attn_sinks",
    ),
    // The tokenizer.
    ("no tokens", |f| f.remove(TOKENS), TOKENS),
    ("tokens empty", |f| tokens(f).clear(), TOKENS),
    (
        "tokens are numbers",
        |f| put(f, TOKENS, Value::I32s(vec![1; VOCABULARY])),
        TOKENS,
    ),
    ("tokens are a string", |f| text(f, TOKENS, "abc"), TOKENS),
    ("fewer tokens than rows", |f| drop(tokens(f).pop()), "token"),
    (
        "more tokens than rows",
        |f| tokens(f).push("surplus".into()),
        "token",
    ),
    (
        "no tokenizer model",
        |f| f.remove("tokenizer.ggml.model"),
        "tokenizer.ggml.model",
    ),
    (
        "unknown tokenizer model",
        |f| text(f, "tokenizer.ggml.model", "morse"),
        "morse",
    ),
    (
        "unknown pre-tokenizer",
        |f| text(f, "tokenizer.ggml.pre", "runes"),
        "runes",
    ),
    (
        "no merges for tokens of several bytes",
        |f| f.remove("tokenizer.ggml.merges"),
        "tokenizer.ggml.merges",
    ),
    (
        "merge without a space",
        |f| f.set("tokenizer.ggml.merges", Value::Strs(vec!["he".into()])),
        "tokenizer.ggml.merges",
    ),
    (
        "merge of nothing",
        |f| f.set("tokenizer.ggml.merges", Value::Strs(vec![" ".into()])),
        "tokenizer.ggml.merges",
    ),
    (
        "merges are numbers",
        |f| f.set("tokenizer.ggml.merges", Value::I32s(vec![1])),
        "tokenizer.ggml.merges",
    ),
    (
        "eos is a string",
        |f| text(f, "tokenizer.ggml.eos_token_id", "</s>"),
        "eos_token_id",
    ),
    (
        "token types too few",
        |f| put(f, "tokenizer.ggml.token_type", Value::I32s(vec![1; 3])),
        "token_type",
    ),
    (
        "token types are strings",
        |f| {
            put(
                f,
                "tokenizer.ggml.token_type",
                Value::Strs(vec!["a".into()]),
            )
        },
        "token_type",
    ),
    (
        "chat template is a number",
        |f| f.set("tokenizer.chat_template", Value::U32(1)),
        "tokenizer.chat_template",
    ),
];

const RAW: &[RawCase] = &[
    ("an empty file", |_, _| vec![], "0 bytes"),
    ("three bytes", |b, _| b[..3].to_vec(), "3 bytes"),
    ("the magic alone", |b, _| b[..4].to_vec(), "version"),
    (
        "cut in the header",
        |b, _| b[..20].to_vec(),
        "metadata count",
    ),
    (
        "cut after the header",
        |b, e| b[..e.header].to_vec(),
        "count",
    ),
    (
        "cut in the metadata",
        |b, e| b[..(e.header + e.metadata) / 2].to_vec(),
        "metadata key",
    ),
    (
        "cut after the metadata",
        |b, e| b[..e.metadata].to_vec(),
        "tensor",
    ),
    (
        "cut in the tensor descriptions",
        |b, e| b[..(e.metadata + e.tensor_infos) / 2].to_vec(),
        "tensor",
    ),
    (
        "cut before the data",
        |b, e| b[..e.tensor_infos].to_vec(),
        "token_embd.weight",
    ),
    (
        "cut in the data",
        |b, e| b[..(e.data_start + b.len()) / 2].to_vec(),
        "cut short",
    ),
    (
        "without the last byte",
        |b, _| b[..b.len() - 1].to_vec(),
        "output.weight",
    ),
    ("text", |_, _| b"# not a model\n".repeat(50), "not a GGUF"),
    ("zeros", |_, _| vec![0; 4096], "not a GGUF"),
];

fn drop_tensor(f: &mut Gguf, name: &str) {
    let at = f.tensors.iter().position(|t| t.name == name).unwrap();
    f.tensors.remove(at);
}

/// One row fewer, in the description and in the data.
fn shrink(tensor: &mut Tensor) {
    tensor.dims[1] -= 1;
    tensor
        .bytes
        .truncate(tensor.bytes.len() - tensor.dims[0] as usize * 4);
}

/// Opens the bytes as a file; an error comes back as its message.
fn open(folder: &Path, bytes: &[u8]) -> Result<Model, String> {
    let path = folder.join("model.gguf");
    // A new file each time: a map of the last one may still be open.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).unwrap();
    Model::open(&path).map_err(|e| e.to_string())
}

/// Opens it and makes a few tokens.
fn use_it(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let model = open(folder, bytes)?;
    let options = SessionOptions {
        context: Some(16),
        threads: Some(1),
        ..SessionOptions::default()
    };
    let mut session = model.session(options).map_err(|e| e.to_string())?;
    let request = Request {
        prompt: Prompt::Text("the hour".into()),
        max_tokens: 3,
        ..Request::default()
    };
    session
        .generate(&request, &mut |_| ControlFlow::Continue(()))
        .map_err(|e| e.to_string())?;
    session.reset();
    session
        .evaluate(&[1, 2, END], &mut |_, _| ())
        .map_err(|e| e.to_string())
}

#[test]
fn the_file_is_good_before_it_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    use_it(folder.path(), &valid().bytes()).unwrap();
    let mut version_2 = valid();
    version_2.version = 2;
    use_it(folder.path(), &version_2.bytes()).unwrap();
    // What converters do write: no token as −1, merges whose tokens were cut from the vocabulary.
    let mut odd = valid();
    u32(&mut odd, "tokenizer.ggml.eos_token_id", u32::MAX);
    odd.set(
        "tokenizer.ggml.merges",
        Value::Strs(vec!["zz qq".into(), "h e".into()]),
    );
    use_it(folder.path(), &odd.bytes()).unwrap();
    // Read as llama.cpp reads them: ids beyond the vocabulary are none, types without a meaning are no control tokens, more types than tokens.
    for (bos, eos) in [(VOCABULARY as u32, 1 << 31), (u32::MAX, VOCABULARY as u32)] {
        let mut odd = valid();
        u32(&mut odd, "tokenizer.ggml.bos_token_id", bos);
        u32(&mut odd, "tokenizer.ggml.eos_token_id", eos);
        let mut types = vec![1; VOCABULARY + 3];
        (types[7], types[8], types[9]) = (0, 99, -1);
        put(&mut odd, "tokenizer.ggml.token_type", Value::I32s(types));
        use_it(folder.path(), &odd.bytes()).unwrap();
    }
}

#[test]
fn each_corruption_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let edited = CASES.iter().map(|&(name, edit, fragment)| {
        let mut file = valid();
        edit(&mut file);
        (name, file.bytes(), fragment)
    });
    let cut = RAW.iter().map(|&(name, edit, fragment)| {
        let (bytes, ends) = valid().write();
        (name, edit(bytes, ends), fragment)
    });
    let mut wrong = Vec::new();
    for (name, bytes, fragment) in edited.chain(cut) {
        match std::panic::catch_unwind(|| open(folder.path(), &bytes)) {
            Err(_) => wrong.push(format!("{name}: a panic")),
            Ok(Ok(_)) => wrong.push(format!("{name}: opened")),
            Ok(Err(message)) if !message.contains(fragment) => {
                wrong.push(format!("{name}: {message:?} lacks {fragment:?}"))
            }
            Ok(Err(message)) => assert!(
                message.contains("model.gguf"),
                "{name}: {message:?} does not name the file"
            ),
        }
    }
    println!("{} corruptions", CASES.len() + RAW.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        CASES.len() + RAW.len(),
        wrong.join("\n")
    );
}

/// 1 to 4 bytes changed anywhere, most of them in the head: an answer or an error, nothing else.
#[test]
fn changed_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = valid().write();
    let (mut good, mut bad) = (0, 0);
    for round in 0..2000u64 {
        let random = |i: u64| splitmix(round, i) as usize;
        let mut changed = bytes.clone();
        for i in 0..=random(1) as u64 % 4 {
            let reach = if random(10 + i) % 8 == 0 {
                bytes.len()
            } else {
                ends.data_start
            };
            let at = random(20 + i) % reach;
            changed[at] = match random(30 + i) % 4 {
                0 => 0,
                1 => 0xff,
                2 => changed[at] ^ 1 << (random(40 + i) % 8),
                _ => random(50 + i) as u8,
            };
        }
        match std::panic::catch_unwind(|| use_it(folder.path(), &changed)) {
            Ok(Ok(())) => good += 1,
            Ok(Err(_)) => bad += 1,
            Err(_) => panic!("round {round}: a panic"),
        }
    }
    println!("of 2000 changed files {good} ran, {bad} were refused");
    assert!(
        good > 100 && bad > 100,
        "{good} ran, {bad} were refused: the changes hit the wrong places"
    );
}

/// Weights that are not numbers give no crash and no endless loop.
#[test]
fn weights_of_nonsense() {
    let folder = tempfile::tempdir().unwrap();
    for value in [f32::NAN, f32::INFINITY, f32::MAX, f32::from_bits(1)] {
        let mut file = valid();
        for tensor in &mut file.tensors {
            let count = tensor.bytes.len() / 4;
            tensor.bytes = value.to_le_bytes().repeat(count);
        }
        let _ = use_it(folder.path(), &file.bytes());
    }
}
