//! The runtime against llama.cpp on the same files: logits of small random models, and greedy text of the student that
//! lies in the repository. `cargo xtask peers` builds llama.cpp's Python package and runs these with it.

use dram_core::gguf::File;
use dram_core::{Message, Model, Prompt, Request, SessionOptions, chat};
use dram_files::imatrix::Collect;
use dram_files::quantize::{Mixture, Requantize};
use dram_tests::adapter::Lora;
use dram_tests::gguf::{Gguf, Value as Field};
use dram_tests::measure::{argmax, kl, median, relative};
use dram_tests::toy::{Scaling, Shape, VOCABULARY, splitmix};
use dram_tests::wide::widened;
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

fn words(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

/// llama.cpp's logits `[ids, vocabulary]`.
fn theirs(path: &Path, ids: &[u32]) -> Vec<f32> {
    theirs_with(path, ids, &[])
}

/// The same, with adapters and their scales.
fn theirs_with(path: &Path, ids: &[u32], adapters: &[(&Path, f32)]) -> Vec<f32> {
    let out = path.with_extension("f32");
    let scales: Vec<String> = adapters
        .iter()
        .map(|(_, scale)| scale.to_string())
        .collect();
    let mut args = vec!["logits", path.to_str().unwrap(), out.to_str().unwrap()];
    for ((file, _), scale) in adapters.iter().zip(&scales) {
        args.extend([file.to_str().unwrap(), scale]);
    }
    llama(&args, &words(ids));
    let bytes = std::fs::read(&out).unwrap();
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// Dram's logits `[ids, vocabulary]`.
fn ours(path: &Path, ids: &[u32]) -> Vec<f32> {
    ours_with(path, ids, &[])
}

/// The same, with adapters and their scales.
fn ours_with(path: &Path, ids: &[u32], adapters: &[(&Path, f32)]) -> Vec<f32> {
    let model = Model::open(path).unwrap_or_else(|e| panic!("{e}"));
    let mut session = model
        .session(SessionOptions {
            context: Some(ids.len()),
            threads: Some(2),
            ..SessionOptions::default()
        })
        .unwrap();
    let open = |(file, scale): &(&Path, f32)| (model.adapter(file).unwrap(), *scale);
    let adapters: Vec<_> = adapters.iter().map(open).collect();
    session.set_adapters(&adapters).unwrap();
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

/// Both runtimes on `sources` in each of `formats`: equal in floating point; in blocks, Dram no farther from the unrounded models than llama.cpp.
fn formats_against_llama_cpp(
    name: &str,
    sources: &[PathBuf],
    ids: &[u32],
    formats: &[&str],
    folder: &Path,
) {
    let all = |files: &[PathBuf], logits: fn(&Path, &[u32]) -> Vec<f32>| -> Vec<f32> {
        files.iter().flat_map(|file| logits(file, ids)).collect()
    };
    let exact = all(sources, ours);
    let positions = sources.len() * ids.len();
    let vocabulary = exact.len() / positions;
    for format in formats {
        let made = sources
            .iter()
            .map(|source| quantized(source, format, folder));
        let made: Vec<PathBuf> = made.collect();
        let (theirs, ours) = (all(&made, theirs), all(&made, ours));
        let (between, same) = compare(&theirs, &ours, vocabulary);
        // With experts without the worst twentieth, where rounding made a token take another one.
        let has_experts = sources.len() > 1;
        let mean = |mut d: Vec<f64>| {
            d.sort_by(f64::total_cmp);
            let kept = if has_experts {
                d.len() - d.len() / 20
            } else {
                d.len()
            };
            d[..kept].iter().sum::<f64>() / kept as f64
        };
        let (their_loss, our_loss) = (
            mean(compare(&exact, &theirs, vocabulary).0),
            mean(compare(&exact, &ours, vocabulary).0),
        );
        let between = median(between);
        println!(
            "{name:<16} {format:<7} {between:>12.2e} {our_loss:>12.2e} {their_loss:>12.2e} {same:>6}/{positions}"
        );
        if *format == "f16" {
            assert!(between <= 1e-4, "{name} {format}: median KL {between:e}");
        }
        // Few positions of a small model: the roundings of activations, which differ, are a part of the difference.
        assert!(
            our_loss <= 1.15 * their_loss + 1e-5,
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
    ("phi3-window", "llama.cpp turns Phi's window off"),
    (
        "bert-rank",
        "llama.cpp gives both texts of a pair the first type",
    ),
];

/// A case of families.tsv: its name, its file with merges, which llama.cpp wants of a vocabulary and the tiny ones lack, and its token ids.
struct Family {
    name: String,
    file: File,
    ids: Vec<u32>,
}

/// One case for each file that generates and that both runtimes read.
fn families() -> Vec<Family> {
    let all = cases("logits");
    assert!(all.len() >= 17, "{} files", all.len());
    all
}

/// One case of this kind for each file that both runtimes read.
fn cases(kind: &str) -> Vec<Family> {
    let golden = repository().join("tests/golden/families");
    let list = std::fs::read_to_string(golden.join("families.tsv")).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut all = Vec::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, file, of_kind, ids, _] = fields[..] else {
            panic!("{line}")
        };
        let apart = APART
            .iter()
            .find(|(stem, _)| file == format!("{stem}.gguf"));
        if let Some((_, why)) = apart {
            println!("{name:<16} not compared: {why}");
        } else if of_kind == kind && seen.insert(file.to_owned()) {
            let mut copy = Gguf::copy(&File::open(golden.join(file)).unwrap());
            copy.set("tokenizer.ggml.merges", Field::Strs(vec!["0 1".into()]));
            copy.set("general.name", Field::Str("tiny".into())); // see `widened`
            all.push(Family {
                name: name.into(),
                file: File::from_bytes(name, copy.bytes()).unwrap(),
                ids: ids.split(' ').map(|id| id.parse().unwrap()).collect(),
            });
        }
    }
    all
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn embeddings_equal_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    println!("encoder          cosine with llama.cpp");
    for Family { name, file, ids } in cases("embedding") {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, Gguf::copy(&file).bytes()).unwrap();
        let out = path.with_extension("f32");
        let args = ["embed", path.to_str().unwrap(), out.to_str().unwrap()];
        llama(&args, &words(&ids));
        let bytes = std::fs::read(&out).unwrap();
        let theirs = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b));
        let theirs: Vec<f32> = theirs.collect();
        let model = Model::open(&path).unwrap();
        let mut encoder = model.encoder(SessionOptions::default()).unwrap();
        let ours = encoder.embed(&ids).unwrap();
        assert_eq!(ours.len(), theirs.len());
        let dot =
            |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
        let cosine = dot(&ours, &theirs) / dot(&theirs, &theirs).sqrt();
        println!("{name:<16} {cosine:.7}");
        assert!(cosine >= 0.9999, "{name}: {cosine}");
    }
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn scores_equal_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    println!("reranker         score, from llama.cpp's");
    for Family { name, file, ids } in cases("rank") {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, Gguf::copy(&file).bytes()).unwrap();
        let out = path.with_extension("f32");
        let text: String = ids.iter().map(|id| char::from(b'0' + *id as u8)).collect();
        let (query, document) = text.split_at(text.len() / 2);
        let args = ["rank", path.to_str().unwrap(), out.to_str().unwrap()];
        llama(&args, &format!("{query}\n{document}\n"));
        let bytes = std::fs::read(&out).unwrap();
        let theirs = f32::from_le_bytes(*bytes.first_chunk().unwrap());
        let model = Model::open(&path).unwrap();
        let mut encoder = model.encoder(SessionOptions::default()).unwrap();
        let ours = encoder.rank(query, &[document]).unwrap()[0];
        let apart = (ours - theirs).abs();
        println!("{name:<16} {ours:.5} {apart:.1e}");
        assert!(apart < 1e-3, "{name}: {ours}, {theirs}");
    }
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn every_family_equals_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    println!("{HEAD}");
    for Family { name, file, ids } in families() {
        // Where rounding makes a token take another expert, that position decides the mean: more models, and without the worst.
        let has_experts = file.tensors().any(|t| t.name().contains("_exps."));
        let seeds = 1..=if has_experts { 7 } else { 1 };
        let write = |seed| {
            let source = folder.path().join(format!("{name}-{seed}.gguf"));
            std::fs::write(&source, widened(&file, seed).bytes()).unwrap();
            source
        };
        let sources: Vec<PathBuf> = seeds.map(write).collect();
        let formats = ["f16", "q8_0", "q4_0", "q4_k_m", "q2_k", "tq2_0"];
        formats_against_llama_cpp(&name, &sources, &ids, &formats, folder.path());
    }
}

#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn adapters_equal_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: String, gguf: &Gguf| {
        let path = folder.path().join(name);
        std::fs::write(&path, gguf.bytes()).unwrap();
        path
    };
    println!("adapters         KL, median  KL, largest   from the base model");
    for Family { name, file, ids } in families() {
        let base = write(format!("{name}.gguf"), &Gguf::copy(&file));
        // Of a tied embedding's adapter llama.cpp makes one of the head too, whose shapes do not fit.
        let embedding = file.get_tensor("output.weight").is_some();
        let lora = |seed, rank, format| Lora {
            seed,
            rank,
            format,
            embedding,
            ..Lora::default()
        };
        let one = write(format!("{name}-1.gguf"), &lora(1, 5, "f32").gguf(&file));
        let two = write(format!("{name}-2.gguf"), &lora(2, 8, "f16").gguf(&file));
        let adapters = [(&*one, 0.7), (&*two, -0.4)];
        let vocabulary = 64;
        let with = ours_with(&base, &ids, &adapters);
        let (between, _) = compare(&theirs_with(&base, &ids, &adapters), &with, vocabulary);
        let change = median(compare(&ours(&base, &ids), &with, vocabulary).0);
        let largest = between.iter().copied().fold(0.0, f64::max);
        let between = median(between);
        println!("{name:<16} {between:>10.1e} {largest:>12.1e} {change:>12.1e}");
        assert!(between <= 1e-5, "{name}: median KL {between:e}");
        assert!(
            change >= 100.0 * between,
            "{name}: the adapters change {change:e}"
        );
    }
}

/// What `dram imatrix` sums up, against llama.cpp's inputs of the same products.
#[test]
#[ignore = "needs llama.cpp: cargo xtask peers"]
fn importance_equals_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    println!("importance       matrices  off by");
    for Family { name, file, ids } in families() {
        let path = folder.path().join(format!("{name}.gguf"));
        let out = path.with_extension("json");
        std::fs::write(&path, Gguf::copy(&file).bytes()).unwrap();
        let args = ["squares", path.to_str().unwrap(), out.to_str().unwrap()];
        llama(&args, &words(&ids));
        let theirs: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        let collect = Collect {
            model: &Model::open(&path).unwrap(),
            ids: &ids,
            chunk: ids.len(),
            chunks: None,
            output: false,
            threads: Some(2),
        };
        let ours = collect.run(&mut |_, _| {}).unwrap().tensors;
        assert_eq!(ours.len(), theirs.as_object().unwrap().len(), "{name}");
        let mut worst = 0f32;
        for tensor in &ours {
            let sums: Vec<f32> = theirs[&tensor.tensor]
                .as_array()
                .unwrap_or_else(|| panic!("{name}: llama.cpp has no {}", tensor.tensor))
                .iter()
                .map(|v| v.as_f64().unwrap() as f32)
                .collect();
            let counts = tensor.counts.iter().sum::<u64>() as usize;
            assert_eq!(counts % ids.len(), 0, "{}", tensor.tensor);
            let ours: Vec<f32> = tensor.sums.iter().map(|sum| *sum as f32).collect();
            worst = worst.max(relative(&ours, &sums));
        }
        println!("{name:<16} {:>8} {worst:>8.1e}", ours.len());
        // Keys and values in f16, and on their side the inputs of products with f16.
        assert!(worst < 5e-3, "{name}: {worst}");
    }
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
    formats_against_llama_cpp("wide", &[source], &ids(7), &formats, folder.path());
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
