//! The runtime against llama.cpp on the same files: logits of small random models, and greedy text of the student that
//! lies in the repository. `cargo xtask peers` builds llama.cpp's Python package and runs these with it.

use dram_core::{Message, Model, Prompt, Request, SessionOptions, chat};
use dram_tests::measure::{argmax, kl, median};
use dram_tests::toy::{Scaling, Shape, VOCABULARY, splitmix};
use dram_train::export::{Mixture, Requantize};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TOKENS: usize = 64;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Runs peers/llama_logits.py and returns what it printed.
fn llama(args: &[&str], input: &str) -> Vec<u8> {
    let python = std::env::var_os("DRAM_PEERS_PYTHON")
        .expect("DRAM_PEERS_PYTHON names no Python with llama-cpp-python: run `cargo xtask peers`");
    let mut child = Command::new(&python)
        .arg(repository().join("tests/peers/llama_logits.py"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", PathBuf::from(&python).display()));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "llama_logits.py {args:?}: {}\n{complaints}",
        output.status
    );
    output.stdout
}

fn ids(seed: u64) -> Vec<u32> {
    (1..=TOKENS as u64)
        .map(|i| (splitmix(seed, i) % VOCABULARY as u64) as u32)
        .collect()
}

/// llama.cpp's logits `[ids, vocabulary]`.
fn theirs(path: &Path, ids: &[u32]) -> Vec<f32> {
    let out = path.with_extension("f32");
    let words = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    llama(
        &["logits", path.to_str().unwrap(), out.to_str().unwrap()],
        &words,
    );
    let bytes = std::fs::read(&out).unwrap();
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Dram's logits `[ids, vocabulary]`.
fn ours(path: &Path, ids: &[u32]) -> Vec<f32> {
    let model = Model::open(path).unwrap_or_else(|e| panic!("{e}"));
    let mut session = model
        .session(SessionOptions {
            context: Some(ids.len()),
            threads: Some(2),
            ..SessionOptions::default()
        })
        .unwrap();
    let mut all = Vec::new();
    session
        .evaluate(ids, &mut |_, logits| all.extend_from_slice(logits))
        .unwrap();
    all
}

/// Per position the KL divergence from `p`'s distribution to `q`'s, and how often the top token is the same.
fn compare(p: &[f32], q: &[f32], vocabulary: usize) -> (Vec<f64>, usize) {
    assert_eq!(p.len(), q.len());
    let rows = || p.chunks(vocabulary).zip(q.chunks(vocabulary));
    (
        rows().map(|(p, q)| kl(p, q)).collect(),
        rows().filter(|(p, q)| argmax(p) == argmax(q)).count(),
    )
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn logits_equal_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let shape = |name: &str, seed| Shape {
        name: name.into(),
        seed,
        ..Shape::default()
    };
    let shapes = [
        shape("gqa", 11),
        Shape {
            tied: true,
            rope_base: 500_000.0,
            eps: 1e-6,
            ..shape("tied", 12)
        },
        Shape {
            kv_heads: 1,
            head_dim: 32,
            ..shape("wide-heads", 13)
        },
        Shape {
            scaling: Scaling::Linear { factor: 4.0 },
            ..shape("rope-linear", 14)
        },
        Shape {
            scaling: Scaling::Llama3 {
                factor: 8.0,
                low: 1.0,
                high: 4.0,
                original: 32.0,
            },
            ..shape("rope-llama3", 15)
        },
    ];
    println!(
        "{:<12} {:<5} {:>12} {:>12} {:>9}",
        "model", "", "median KL", "largest KL", "same top"
    );
    for shape in &shapes {
        // Two activation quantisers differ in how they round: the bound for q8_0 and q4_0 only catches gross errors.
        for (format, bound) in [
            ("f32", 1e-4),
            ("f16", 1e-4),
            ("bf16", 1e-3),
            ("q8_0", 1e-2),
            ("q4_0", 1e-2),
        ] {
            let shape = Shape {
                format: format.into(),
                ..shape.clone()
            };
            let path = folder
                .path()
                .join(format!("{}-{}.gguf", shape.name, shape.format));
            std::fs::write(&path, shape.bytes()).unwrap();
            let ids = ids(shape.seed);
            let (divergences, same) = compare(&theirs(&path, &ids), &ours(&path, &ids), VOCABULARY);
            let largest = divergences.iter().copied().fold(0.0, f64::max);
            let median = median(divergences);
            println!(
                "{:<12} {format:<5} {median:>12.2e} {largest:>12.2e} {same:>6}/{TOKENS}",
                shape.name
            );
            assert!(
                median <= bound,
                "{} {format}: median KL {median:e}, at most {bound:e} expected",
                shape.name
            );
        }
    }
}

/// `source` with its matrices in another format, as `dram quantize` makes it.
fn quantized(source: &Path, format: &str, folder: &Path) -> PathBuf {
    let name = source.file_stem().unwrap().to_string_lossy();
    let target = folder.join(format!("{name}-{format}.gguf"));
    let file = dram_core::gguf::File::open(source).unwrap();
    let mixture = Mixture::by_name(format).unwrap();
    Requantize {
        mixture: &mixture,
        rules: &[],
        importance: None,
        threads: 1,
    }
    .run(&file, &target, &mut |_| {})
    .unwrap();
    target
}

/// Both runtimes on `source` in each of `formats`: equal in floating point; in blocks, Dram no farther from the unrounded model than llama.cpp.
fn formats_against_llama_cpp(
    name: &str,
    source: &Path,
    ids: &[u32],
    formats: &[&str],
    folder: &Path,
) {
    let exact = ours(source, ids);
    let vocabulary = exact.len() / ids.len();
    for format in formats {
        let path = quantized(source, format, folder);
        let (theirs, ours) = (theirs(&path, ids), ours(&path, ids));
        let (between, same) = compare(&theirs, &ours, vocabulary);
        let mean = |d: Vec<f64>| d.iter().sum::<f64>() / d.len() as f64;
        let (their_loss, our_loss) = (
            mean(compare(&exact, &theirs, vocabulary).0),
            mean(compare(&exact, &ours, vocabulary).0),
        );
        let between = median(between);
        println!(
            "{name:<16} {format:<7} {between:>12.2e} {our_loss:>12.2e} {their_loss:>12.2e} {same:>6}/{}",
            ids.len()
        );
        if *format == "f16" {
            assert!(between <= 1e-4, "{name} {format}: median KL {between:e}");
        }
        // Few positions of a small model: the roundings of activations, which differ, are a part of the difference.
        assert!(
            our_loss <= 1.25 * their_loss + 1e-5,
            "{name} {format}: {our_loss:e} from the unrounded model, llama.cpp {their_loss:e}"
        );
    }
}

const HEAD: &str = "model            format   KL, median  ours - f32  llama.cpp - f32  same top";

/// Files of tests/golden/families that llama.cpp does not read as transformers does, and why.
const APART: [(&str, &str); 3] = [
    (
        "mistral",
        "llama.cpp reads no sliding window in a llama file",
    ),
    (
        "phi3",
        "llama.cpp looks for Phi's special tokens, which the tiny vocabulary lacks",
    ),
    (
        "phi3-window",
        "llama.cpp looks for Phi's special tokens, which the tiny vocabulary lacks",
    ),
];

/// The file with merges, which llama.cpp wants of a vocabulary and the tiny ones lack. The data stay aligned: 64 bytes come before them.
fn with_merges(file: &Path, folder: &Path) -> PathBuf {
    let mut entry = Vec::new();
    let mut string = |text: &str| {
        entry.extend((text.len() as u64).to_le_bytes());
        entry.extend(text.as_bytes());
    };
    string("tokenizer.ggml.merges");
    entry.extend([9u32, 8].map(u32::to_le_bytes).as_flattened());
    entry.extend(1u64.to_le_bytes());
    entry.extend(11u64.to_le_bytes());
    entry.extend(b"0 111111111");
    assert_eq!(entry.len(), 64);
    let mut bytes = std::fs::read(file).unwrap();
    let keys = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + 1;
    bytes[16..24].copy_from_slice(&keys.to_le_bytes());
    bytes.splice(24..24, entry);
    let path = folder.join(file.file_name().unwrap());
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn every_family_equals_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let golden = repository().join("tests/golden/families");
    println!("{HEAD}");
    let list = std::fs::read_to_string(golden.join("families.tsv")).unwrap();
    let mut compared = std::collections::HashSet::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, file, kind, ids, _] = fields[..] else {
            panic!("{line}")
        };
        let apart = APART
            .iter()
            .find(|(stem, _)| file == format!("{stem}.gguf"));
        if let Some((_, why)) = apart {
            println!("{name:<16} not compared: {why}");
        } else if kind == "logits" && compared.insert(file) {
            let ids: Vec<u32> = ids.split(' ').map(|id| id.parse().unwrap()).collect();
            let source = with_merges(&golden.join(file), folder.path());
            let formats = ["f16", "q8_0", "q4_0"];
            formats_against_llama_cpp(name, &source, &ids, &formats, folder.path());
        }
    }
    assert!(compared.len() >= 13, "{compared:?}");
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn every_format_equals_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape {
        name: "wide".into(),
        width: 256,
        ffn: 512,
        head_dim: 64,
        ..Shape::default()
    };
    let source = folder.path().join("wide.gguf");
    std::fs::write(&source, shape.bytes()).unwrap();
    println!("{HEAD}");
    let formats = [
        "f16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_m", "q4_k_s", "q4_k_m",
        "q5_k_m", "q6_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4",
    ];
    formats_against_llama_cpp("wide", &source, &ids(7), &formats, folder.path());
}

/// Requests in the manner of the built-in task; some with spelling slips, one that no function fits.
const REQUESTS: [&str; 20] = [
    "set a timer for ten minutes",
    "wake me up at 6:30 tomorrow",
    "text Anna that I'm running late",
    "call mum",
    "could you please navigate to the train station",
    "add dentist to my calendar on friday at 3 pm",
    "play some jazz",
    "turn the brightness down to 30 percent",
    "switch off the wifi please",
    "take a note: buy milk and eggs",
    "what's the weather in Oslo tomorrow",
    "hey, remind me to water the plants at noon",
    "set an alram for 7 am",
    "send a message to Ben saying see you soon",
    "pause the music",
    "turn on the flashlight",
    "set the volume to fifty",
    "find Maria's number",
    "open the camera",
    "why is the sky blue",
];

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn greedy_text_equals_llama_cpp() {
    const LIMIT: usize = 96;
    let path = repository().join("train/assets/actions-student.gguf");
    let model = Model::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let template = model
        .chat_template()
        .expect("the student has a chat template");
    let messages: Vec<Vec<Message>> = REQUESTS
        .iter()
        .map(|text| vec![Message::new("user", *text)])
        .collect();
    let prompts: Vec<String> = messages
        .iter()
        .map(|messages| {
            let chat = chat::Chat {
                messages,
                add_generation_prompt: true,
                ..chat::Chat::default()
            };
            chat.render(template).unwrap()
        })
        .collect();
    let answers = llama(
        &["greedy", path.to_str().unwrap(), &LIMIT.to_string()],
        &json!(prompts).to_string(),
    );
    let theirs: Vec<Value> = serde_json::from_slice(&answers).unwrap();
    assert_eq!(theirs.len(), REQUESTS.len());

    let mut session = model
        .session(SessionOptions {
            context: None,
            threads: Some(2),
            ..SessionOptions::default()
        })
        .unwrap();
    let ids = |v: &Value| {
        v.as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_u64().unwrap() as u32)
            .collect::<Vec<_>>()
    };
    let mut wrong = Vec::new();
    for ((messages, prompt), theirs) in messages.into_iter().zip(&prompts).zip(&theirs) {
        let request = Request {
            max_tokens: LIMIT,
            ..Request::new(Prompt::Chat(messages))
        };
        let ours = session
            .generate(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        println!("{prompt} {}", ours.text);
        let prompt_ids = model.tokenizer().encode(prompt, true);
        if (&prompt_ids, &ours.tokens) != (&ids(&theirs["prompt_tokens"]), &ids(&theirs["tokens"]))
            || theirs["text"] != ours.text
        {
            wrong.push(format!(
                "{prompt:?}: ours {prompt_ids:?} → {:?}, theirs {theirs}",
                ours.text
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        REQUESTS.len(),
        wrong.join("\n")
    );
}
