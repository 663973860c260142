//! A student of every family: its folder comes back as it was, each block format passes the parity gate, and a run that distils the folder into its own
//! rounded self goes on bit for bit where it was stopped.

use dram_core::model::{HeadNorm, NormKind, Rotation};
use dram_files::Rng;
use dram_files::convert::Convert;
use dram_files::tokenizer::add_tokenizer;
use dram_train::data::{Batch, TextTokenizer, sequential_blocks};
use dram_train::export::{Checkpoint, import};
use dram_train::recipe::{Data, Eval, Kind, Quant, Recipe, Student, Teacher, Train};
use dram_train::run::{Event, Summary, distill};
use dram_train::student::{Config, Decoder, OutputSpec, Role, Scheme, families};
use dram_train::teacher::{self, Engine, HuggingFace, Teacher as Asked};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const CONTEXT: usize = 48;

/// A family with all that it can do turned on.
struct Case {
    name: &'static str,
    architecture: &'static str,
    layers: usize,
    change: fn(&mut Config),
}

const fn case(
    name: &'static str,
    architecture: &'static str,
    layers: usize,
    change: fn(&mut Config),
) -> Case {
    Case {
        name,
        architecture,
        layers,
        change,
    }
}

const CASES: &[Case] = &[
    case("llama with biases", "llama", 2, |c| {
        (c.options.biases.qkv, c.options.biases.output) = (true, true);
        c.options.biases.feed_forward = true;
    }),
    case("mistral", "llama", 2, |c| {
        let mut scope = c.scope(0);
        scope.window = Some(19);
        c.options.scopes = vec![scope; c.layers];
    }),
    case("qwen2", "qwen2", 2, |c| c.rope_factors = vec![4.0; 32]),
    case("qwen3", "qwen3", 2, |c| c.tied_embeddings = false),
    case("smollm3", "smollm3", 5, |_| {}),
    case("granite", "granite", 2, |c| {
        (c.options.embedding_scale, c.options.residual_scale) = (6.0, 0.3);
        (c.options.logit_scale, c.options.attention_scale) = (1.0 / 3.0, Some(0.1));
    }),
    case("olmo2", "olmo2", 2, |_| {}),
    case("olmo3", "olmo2", 4, |c| {
        let mut scope = c.scope(0);
        (scope.window, scope.rotation) = (Some(18), Rotation::Local);
        c.options.scopes = vec![scope; c.layers];
        c.options.scopes[3] = Config::default().scope(0);
        c.options.local_rope_base = Some(c.rope_base);
    }),
    case("gemma2", "gemma2", 3, |c| {
        narrow(c, 21);
        (c.options.attention_cap, c.options.logit_cap) = (Some(3.0), Some(4.0));
    }),
    case("gemma3", "gemma3", 7, |c| {
        narrow(c, 17);
        c.rope_base = 1e6;
    }),
    case("stablelm", "stablelm", 2, |c| c.options.biases.qkv = true),
    case("stablelm, parallel", "stablelm", 2, |c| {
        (c.options.parallel, c.options.head_norm) = (true, Some(HeadNorm::Own));
    }),
    case("phi3", "phi3", 2, |_| {}),
];

/// Windows shorter than the text.
fn narrow(config: &mut Config, window: usize) {
    for scope in config.options.scopes.iter_mut() {
        scope.window = scope.window.map(|_| window);
    }
}

/// What is said over and over, in another order each time.
fn text() -> String {
    let mut rng = Rng::new(&[5]);
    let mut line = || format!("count {} then {} and rest.\n", rng.below(10), rng.below(10));
    (0..500).map(|_| line()).collect()
}

struct World {
    tokenizer: TextTokenizer,
    held_out: Vec<Batch>,
    text: PathBuf,
    folder: tempfile::TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let (text, path) = (text(), folder.path().join("text.txt"));
    std::fs::write(&path, &text).unwrap();
    let tokenizer = TextTokenizer::train(text.lines(), 320, &["<|end|>"], None).unwrap();
    let ids = tokenizer.encode(&text[..2_000], false).unwrap();
    World {
        held_out: sequential_blocks(&ids, CONTEXT, 8, None),
        tokenizer,
        text: path,
        folder,
    }
}

/// A random model of the case, whose norms, biases and logits are those of a trained one in size.
fn decoder(case: &Case, vocabulary: usize) -> Decoder {
    let shape = Config {
        vocabulary,
        embedding_length: 256,
        layers: case.layers,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        feed_forward_length: 256,
        context_length: 64,
        tied_embeddings: !matches!(case.architecture, "olmo2" | "stablelm"),
        ..Config::default()
    };
    let mut config = Config::of_family(case.architecture, shape).unwrap();
    (case.change)(&mut config);
    let mut decoder = Decoder::random(config, 7).unwrap();
    let mut rng = Rng::new(&[1]);
    for p in decoder.layout().parameters.clone() {
        let mut noise = || rng.below(1001) as f32 / 1000.0 - 0.5;
        let values = decoder.parameters_mut()[p.range.clone()].iter_mut();
        match p.role {
            Role::Norm => values.for_each(|w| *w = 1.0 + noise()),
            Role::Bias => values.for_each(|w| *w = 0.5 * noise()),
            Role::Embedding | Role::Head => values.for_each(|w| *w *= 10.0),
            Role::Linear => {}
        }
    }
    // As where they are tied, a token's likeliest successor is often itself: random logits would leave too much undecided.
    let layout = decoder.layout().clone();
    if let Some(head) = layout.parameters.iter().find(|p| p.role == Role::Head) {
        let embedding = layout.parameters[0].range.clone();
        let start = head.range.start;
        decoder.parameters_mut().copy_within(embedding, start);
    }
    decoder
}

/// The case's folder, with its tokenizer.
fn folder(world: &World, case: &Case) -> (Decoder, PathBuf) {
    let vocabulary = world.tokenizer.vocabulary();
    let decoder = decoder(case, vocabulary.tokens.len());
    let folder = world.folder.path().join(case.name);
    decoder.save_hugging_face(&folder).unwrap();
    add_tokenizer(&folder, vocabulary, None).unwrap();
    (decoder, folder)
}

#[test]
fn every_family_has_a_case() {
    for family in families() {
        let has = CASES.iter().any(|case| case.architecture == family.name);
        assert!(has, "{}", family.name);
    }
    let error = Config::of_family("lfm2", Config::default()).unwrap_err();
    assert!(error.to_string().contains("qwen3"), "{error}");
    let error = Config::of_family("olmo2", Config::default()).unwrap_err();
    assert!(error.to_string().contains("tied_embeddings"), "{error}");
}

#[test]
fn every_format_passes_the_gate() {
    let world = world();
    for case in CASES {
        let name = case.name;
        let (decoder, folder) = folder(&world, case);
        let mut checkpoint = Checkpoint::open(&folder, None).unwrap();
        assert_eq!(checkpoint.decoder.config(), decoder.config(), "{name}");
        let apart = |a: &Decoder, b: &Decoder| {
            let pairs = a.parameters().iter().zip(b.parameters());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        // Gemma's folders hold norms less 1.
        let most = if name.starts_with("gemma") { 1e-6 } else { 0.0 };
        assert!(apart(&checkpoint.decoder, &decoder) <= most, "{name}");

        let path = folder.join("exported.gguf");
        for format in ["f16", "q8_0", "q4_0", "q4_k", "q6_k", "tq2_0"] {
            let scheme = Scheme::by_name(format, "q8_0", "q8_0").unwrap();
            let parity = checkpoint
                .export(scheme, &path, Some((&world.held_out, 2)))
                .unwrap_or_else(|e| panic!("{name} in {format}: {e:#}"))
                .unwrap();
            println!("{name} in {format}: {parity}");
            assert!(
                parity.mean_difference < 0.015 * parity.spread,
                "{name} in {format}: {parity}"
            );
        }
        // What is read back is the same decoder, and a folder converted is the file exported.
        let scheme = Scheme::by_name("f32", "f32", "f32").unwrap();
        checkpoint.export(scheme, &path, None).unwrap();
        let converted = folder.join("converted.gguf");
        Convert::default()
            .run(&folder, &converted, &mut |_| {})
            .unwrap();
        let [ours, theirs] = [&path, &converted].map(|path| dram_core::Model::open(path).unwrap());
        assert_eq!(ours.config(), theirs.config(), "{name}");
        for tensor in theirs.gguf().tensors() {
            let exported = ours.gguf().tensor(tensor.name()).unwrap();
            assert_eq!(
                exported.bytes(),
                tensor.bytes(),
                "{name}: {}",
                tensor.name()
            );
        }
        assert_eq!(
            ours.gguf().tensors().len(),
            theirs.gguf().tensors().len(),
            "{name}"
        );
        let (config, parameters) = import(ours.gguf(), ours.config()).unwrap();
        assert_eq!(&config, checkpoint.decoder.config(), "{name}");
        assert!(parameters == checkpoint.decoder.parameters(), "{name}");
    }
}

/// candle-transformers computes the same logits, of the families that it knows and in texts that fit their windows.
#[test]
fn candle_agrees() {
    let world = world();
    let ids = world.tokenizer.encode(&text()[..400], false).unwrap();
    let batch = &sequential_blocks(&ids, 16, 1, None)[0];
    let outputs = OutputSpec {
        positions: (0..16).collect(),
        hidden_layers: Vec::new(),
    };
    for name in [
        "mistral", "qwen3", "smollm3", "olmo2", "gemma2", "gemma3", "stablelm", "phi3",
    ] {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let (_, folder) = folder(&world, case);
        // What candle's structs ask for though nothing follows from it.
        let path = folder.join("config.json");
        let mut json: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (field, value) in [
            ("max_window_layers", json!(case.layers)),
            ("use_cache", json!(true)),
            ("sliding_window_pattern", json!(6)),
            ("bos_token_id", json!(0)),
            ("eos_token_id", json!(0)),
        ] {
            json[field] = value;
        }
        if json["sliding_window"].is_null() {
            json["use_sliding_window"] = json!(false);
        }
        std::fs::write(&path, json.to_string()).unwrap();
        let ours = teacher::open(&folder, 1).unwrap();
        assert!(ours.decoder().is_some(), "{name}");
        let theirs = HuggingFace::open_with(&folder, Engine::Candle);
        let theirs = theirs.unwrap_or_else(|e| panic!("{name}: {e:#}"));
        let logits = |teacher: &dyn Asked| {
            let targets = teacher.targets(batch, &outputs);
            targets.unwrap_or_else(|e| panic!("{name}: {e:#}")).logits
        };
        let (a, b) = (logits(&*ours), logits(&theirs));
        let largest = b.iter().fold(0f32, |m, x| m.max(x.abs()));
        let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max) / largest;
        println!("{name}: off by {apart:.1e} of the largest");
        assert!(apart < 2e-5, "{name}: {apart}");
    }
}

fn recipe(world: &World, folder: &Path, quant: Quant) -> Recipe {
    Recipe {
        name: "itself".into(),
        teacher: Some(Teacher {
            path: folder.into(),
        }),
        student: Student {
            init: Some(folder.into()),
            ..Student::default()
        },
        data: Data {
            kind: Kind::Text,
            path: Some(world.text.clone()),
            sequence: Some(CONTEXT),
            ..Data::default()
        },
        train: Train {
            steps: 4,
            warmup: Some(1),
            batch: 2,
            shards: Some(2),
            ..Train::default()
        },
        eval: Eval {
            tokens: 200,
            ..Eval::default()
        },
        quant: Some(quant),
        ..Recipe::default()
    }
}

#[test]
fn a_folder_is_distilled_into_its_rounded_self() {
    let world = world();
    for case in CASES {
        let (_, folder) = folder(&world, case);
        let recipe = recipe(
            &world,
            &folder,
            Quant {
                linear: "q4_0".into(),
                start: 0.0,
                ..Quant::default()
            },
        );
        let run = |out: &str, stop_after: u64| -> Summary {
            let stop = AtomicBool::new(false);
            let out = folder.join(out);
            let mut listener = |event: Event| {
                if let Event::Step(progress) = event {
                    stop.store(progress.step.step == stop_after, Ordering::Relaxed);
                }
            };
            distill(&recipe, &out, &stop, &mut listener)
                .unwrap_or_else(|e| panic!("{}: {e:#}", case.name))
        };
        let straight = run("straight", u64::MAX);
        println!("{}: {}", case.name, straight.parity.unwrap());
        assert!(!run("resumed", 2).finished, "{}", case.name);
        let resumed = run("resumed", u64::MAX);
        let [a, b] =
            [&straight, &resumed].map(|made| std::fs::read(made.gguf.as_ref().unwrap()).unwrap());
        assert!(a == b, "{}: another file after a stop", case.name);
        let made = Decoder::load(&straight.folder).unwrap();
        assert_eq!(
            made.config().options.norm == NormKind::Layer,
            case.architecture == "stablelm"
        );
        assert_eq!(made.config().family.name, case.architecture);
    }
}
