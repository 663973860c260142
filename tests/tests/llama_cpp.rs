//! The runtime against llama.cpp on the same files: logits of small random models, and greedy text of the student that
//! lies in the repository. `cargo xtask peers` builds llama.cpp's Python package and runs these with it.

use dram_core::{Message, Model, Prompt, Request, SessionOptions, chat};
use dram_tests::measure::{argmax, kl, median};
use dram_tests::toy::{Scaling, Shape, VOCABULARY, splitmix};
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

/// Per position the KL divergence from llama.cpp's distribution to ours, and how often the top token is the same.
fn compare(shape: &Shape, folder: &Path) -> (Vec<f64>, usize) {
    let path = folder.join(format!("{}-{}.gguf", shape.name, shape.format));
    let out = folder.join("theirs.f32");
    std::fs::write(&path, shape.bytes()).unwrap();
    let ids = ids(shape.seed);
    let words = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    llama(
        &["logits", path.to_str().unwrap(), out.to_str().unwrap()],
        &words,
    );
    let bytes = std::fs::read(&out).unwrap();
    let theirs: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect(); // [ids, vocabulary]
    assert_eq!(theirs.len(), ids.len() * VOCABULARY);

    let model = Model::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let mut session = model
        .session(SessionOptions {
            context: Some(ids.len()),
            threads: Some(2),
            ..SessionOptions::default()
        })
        .unwrap();
    let (mut divergences, mut same) = (Vec::new(), 0);
    session
        .evaluate(&ids, &mut |at, ours| {
            let theirs = &theirs[at * VOCABULARY..][..VOCABULARY];
            divergences.push(kl(theirs, ours));
            same += usize::from(argmax(theirs) == argmax(ours));
        })
        .unwrap();
    (divergences, same)
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
            let (divergences, same) = compare(&shape, folder.path());
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
        .map(|text| {
            vec![Message {
                role: "user".into(),
                content: (*text).into(),
            }]
        })
        .collect();
    let prompts: Vec<String> = messages
        .iter()
        .map(|messages| chat::render(template, messages, "", "", true).unwrap())
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
