//! Every family against Hugging Face transformers, on the tiny random models of tests/golden/families; `make_families.py` there made them with
//! llama.cpp's converter.

use dram_core::{
    EmbedOptions, Error, Model, OpenOptions, Prompt, Request, Session, SessionOptions, Speculation,
    gguf,
};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const VOCABULARY: usize = 64;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families")
}

/// One line of families.tsv, with its part of families.f32.
struct Case {
    name: String,
    file: String,
    /// `logits`, `embedding` or `rank`
    kind: String,
    /// Of a query where documents are ranked.
    ids: Vec<u32>,
    /// Those of `logits`, or the ids of a document.
    positions: Vec<usize>,
    /// [positions, vocabulary], transformers as it is; or the embedding; or the score
    plain: Vec<f32>,
    /// [positions, vocabulary], with keys and values rounded to f16
    cached: Vec<f32>,
}

impl Case {
    fn open(&self) -> Model {
        Model::open(folder().join(&self.file)).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn cases() -> Vec<Case> {
    let read = |name: &str| std::fs::read(folder().join(name)).unwrap();
    let text = String::from_utf8(read("families.tsv")).unwrap();
    let values: Vec<f32> = read("families.f32")
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let mut rest = &values[..];
    let mut take = |count: usize| rest.split_off(..count).unwrap().to_vec();
    let mut cases = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            println!("{line}");
            continue;
        }
        let fields: Vec<&str> = line.split('\t').collect();
        let numbers = |text: &str| {
            text.split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect()
        };
        let (kind, positions): (_, Vec<usize>) = (fields[2], numbers(fields[4]));
        let (plain, cached) = match kind {
            "embedding" => (take(32), Vec::new()),
            "rank" => (take(1), Vec::new()),
            _ => {
                let count = positions.len() * VOCABULARY;
                (take(count), take(count))
            }
        };
        cases.push(Case {
            name: fields[0].into(),
            file: fields[1].into(),
            kind: kind.into(),
            ids: fields[3].split(' ').map(|n| n.parse().unwrap()).collect(),
            positions,
            plain,
            cached,
        });
    }
    assert!(
        rest.is_empty(),
        "families.f32 holds more than families.tsv tells of"
    );
    cases
}

fn options(context: usize, threads: usize) -> SessionOptions {
    SessionOptions {
        context: Some(context),
        threads: Some(threads),
        ..SessionOptions::default()
    }
}

/// The largest error within a position over its largest logit, and at how many positions the top token is another.
fn compare(ours: &[f32], theirs: &[f32]) -> (f32, usize) {
    let top = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let (mut worst, mut other) = (0f32, 0);
    for (ours, theirs) in ours.chunks(VOCABULARY).zip(theirs.chunks(VOCABULARY)) {
        let most = theirs.iter().fold(0f32, |most, x| most.max(x.abs()));
        let apart = ours.iter().zip(theirs).fold(0f32, |most, (a, b)| {
            if (a - b).is_nan() {
                f32::NAN
            } else {
                most.max((a - b).abs())
            }
        });
        worst = if apart.is_nan() {
            f32::INFINITY
        } else {
            worst.max(apart / most)
        };
        other += usize::from(top(ours) != top(theirs));
    }
    (worst, other)
}

#[test]
fn logits_equal_transformers() {
    let mut wrong = Vec::new();
    for case in cases().iter().filter(|case| case.kind == "logits") {
        let model = case.open();
        let mut all = Vec::new(); // [ids, vocabulary]
        model
            .session(options(case.ids.len(), 2))
            .unwrap()
            .evaluate(&case.ids, &mut |_, logits| all.extend_from_slice(logits))
            .unwrap();
        let kept: Vec<f32> = case
            .positions
            .iter()
            .flat_map(|at| &all[at * VOCABULARY..][..VOCABULARY])
            .copied()
            .collect();
        let (cached, other) = compare(&kept, &case.cached);
        let (plain, _) = compare(&kept, &case.plain);
        println!(
            "{:<16} off by {cached:.1e} with an f16 cache, {plain:.1e} without",
            case.name
        );

        let mut session = model.session(options(case.ids.len(), 1)).unwrap();
        let steps: Vec<f32> = case
            .ids
            .iter()
            .flat_map(|&id| session.decode(id).unwrap().to_vec())
            .collect();
        session.reset();
        let whole = session.prefill(&case.ids).unwrap();
        let same = steps == all && whole == &all[all.len() - VOCABULARY..];
        // Sums in another order turn the f16 rounding of a key or value now and then: 2⁻¹¹ of it.
        if cached > 5e-4 || plain > 5e-3 || other > 0 || !same {
            wrong.push(format!(
                "{}: {other} other tops, same bits in portions: {same}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn vectors_equal_transformers() {
    for case in cases().iter().filter(|case| case.kind == "embedding") {
        let model = case.open();
        let ours = |threads| {
            let mut encoder = model.encoder(options(case.ids.len(), threads)).unwrap();
            let token = encoder.cancel_token();
            encoder.embed(&case.ids[..1]).unwrap(); // what was there before changes nothing
            token.cancel(); // nor does the token of a call that is over
            encoder.embed(&case.ids).unwrap()
        };
        let vector = ours(2);
        assert_eq!(vector, ours(1));
        let cosine: f64 = vector
            .iter()
            .zip(&case.plain)
            .map(|(a, b)| f64::from(a * b))
            .sum();
        println!("{:<16} cosine {cosine:.7}", case.name);
        assert!((cosine - 1.0).abs() < 1e-5, "{}: {cosine}", case.name);
        assert!(matches!(
            model.session(options(8, 1)),
            Err(Error::WrongUse { .. })
        ));
    }
}

#[test]
fn scores_equal_transformers() {
    let text = |ids: &mut dyn Iterator<Item = u32>| -> String {
        ids.map(|id| char::from(b'0' + id as u8)).collect()
    };
    for case in cases().iter().filter(|case| case.kind == "rank") {
        let model = case.open();
        let query = text(&mut case.ids.iter().copied());
        let document = text(&mut case.positions.iter().map(|id| *id as u32));
        let mut encoder = model.encoder(options(128, 2)).unwrap();
        let scores = encoder.rank(&query, &["other", &document, &document]);
        let scores = scores.unwrap();
        let apart = (scores[1] - case.plain[0]).abs();
        println!(
            "{:<16} score {:.5}, off by {apart:.1e}",
            case.name, scores[1]
        );
        assert!(apart < 1e-3, "{}: {scores:?}", case.name);
        assert_eq!(scores[1], scores[2]);
        assert!((scores[0] - scores[1]).abs() > 1e-3, "{scores:?}");
        let refused = [
            encoder.embed(&case.ids).err(),
            encoder.embed_text("a", &EmbedOptions::default()).err(),
            model.session(options(8, 1)).err(),
        ];
        for error in refused {
            assert!(matches!(error, Some(Error::WrongUse { .. })), "{error:?}");
        }
    }
    let bert = Model::open(folder().join("bert-cls.gguf")).unwrap();
    let ranked = bert.encoder(options(8, 1)).unwrap().rank("a", &["b"]);
    assert!(matches!(ranked, Err(Error::WrongUse { .. })));
}

/// Crosses two of the positions to which short convolutions can always go back.
const LONG: usize = 620;

/// Logits `[ids, vocabulary]`, token by token.
fn steps(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    ids.iter()
        .flat_map(|&id| session.decode(id).unwrap().to_vec())
        .collect()
}

/// Neither which tokens are evaluated together changes a bit, nor what a session did before.
#[test]
fn all_ways_to_a_position_give_the_same_bits() {
    let numbers = |seed: u32, count: usize| -> Vec<u32> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let all = std::iter::successors(Some(seed), next);
        all.skip(1).take(count).map(|x| x >> 26).collect()
    };
    let (ids, others) = (numbers(1, LONG), numbers(2, 20));
    let saved = tempfile::NamedTempFile::new().unwrap();
    // A window, shared caches, convolutions, experts; all of them where the processor is a fast one.
    let is_few = std::env::var_os("DRAM_EMULATED").is_some();
    let few = [
        "gemma2",
        "gemma4",
        "lfm2",
        "qwen3-moe",
        "qwen3.5",
        "granite-hybrid",
    ];
    let wanted = |case: &&Case| case.kind == "logits" && (!is_few || few.contains(&&*case.name));
    let positions = [0, 258, 589, 1, 2, 200, 255, 256, 257, 511, 512, 619, LONG];
    let positions = &positions[..if is_few { 3 } else { positions.len() }];
    for case in cases().iter().filter(wanted) {
        let own = Model::open(folder().join(&case.file))
            .unwrap()
            .info()
            .context_length;
        let [own, long] = [own as u32, 1024].map(|length| number(".context_length", length));
        let model = opened(&case.file, &own, &long).unwrap();
        let name = &case.name;
        let with = |threads| {
            let options = options(LONG + others.len(), threads);
            model.session(options).unwrap()
        };
        let new = || with(1);
        let mut session = with(2);
        let mut all = Vec::new(); // [LONG, vocabulary]
        session
            .evaluate(&ids, &mut |_, logits| all.extend_from_slice(logits))
            .unwrap();
        for size in [1, 3, 7, 250] {
            session.reset();
            let mut position = 0;
            for part in ids.chunks(size) {
                position += part.len();
                let same = session.prefill(part).unwrap()
                    == &all[(position - 1) * VOCABULARY..position * VOCABULARY];
                assert!(same, "{name}: parts of {size}, position {position}");
            }
        }
        for &position in positions {
            let mut fresh = new();
            if position > 0 {
                fresh.prefill(&ids[..position]).unwrap();
            }
            let expected = steps(&mut fresh, &others);
            let check = |session: &mut Session, what: &str| {
                assert_eq!(session.tokens(), &ids[..position]);
                let same = steps(session, &others) == expected;
                assert!(same, "{name}: {what}, position {position}");
            };

            let mut back = session.fork().unwrap();
            back.truncate(position + 3);
            back.truncate(position);
            check(&mut back.fork().unwrap(), "a fork of a shortened sequence");
            back.save(saved.path()).unwrap();
            check(&mut back, "a shortened fork");
            back.restore(saved.path()).unwrap();
            check(&mut back, "a saved sequence that was shortened");
            session.save(saved.path()).unwrap();
            let mut restored = new();
            restored.restore(saved.path()).unwrap();
            restored.truncate(position);
            check(&mut restored, "a saved sequence that is shortened");
        }

        let request = Request {
            max_tokens: LONG - 300,
            ..Request::new(Prompt::Tokens(ids[..300].to_vec()))
        };
        let [plain, drafted] = [Speculation::Off, Speculation::lookup(1)].map(|speculation| {
            let mut session = new();
            session.set_speculation(&speculation).unwrap();
            let made = session.generate(&request, &mut |_| ControlFlow::Continue(()));
            (made.unwrap().tokens, steps(&mut session, &others))
        });
        assert!(plain == drafted, "{name}: drafts");
    }
}

/// Layers that read another one's cache have none: of six layers of 128 positions four, with two heads of 8 or of 16 values.
#[test]
fn shared_caches_take_no_memory() {
    let model = Model::open(folder().join("gemma4.gguf")).unwrap();
    let row = |length: usize| 2 * length * size_of::<u16>(); // a key and a value
    let expected = 2 * 2 * 128 * (row(8) + row(16));
    assert_eq!(model.memory(options(128, 1)).kv_cache, expected as u64);
    let mut session = model.session(options(128, 1)).unwrap();
    session.prefill(&[1; 100]).unwrap();
    let saved = tempfile::NamedTempFile::new().unwrap();
    session.save(saved.path()).unwrap();
    let least = expected as u64 * 100 / 128;
    let bytes = std::fs::metadata(saved.path()).unwrap().len();
    assert!((least..least + 4096).contains(&bytes), "{bytes}, {least}");
}

/// A file with `from` written over by `to`, of the same length.
fn opened(file: &str, from: &[u8], to: &[u8]) -> dram_core::Result<Model> {
    let mut bytes = std::fs::read(folder().join(file)).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from);
    let at = at.unwrap_or_else(|| panic!("{file} lacks {}", String::from_utf8_lossy(from)));
    bytes[at..at + to.len()].copy_from_slice(to);
    let file = gguf::File::from_bytes(file, bytes).unwrap();
    Model::from_gguf(file, &OpenOptions::default())
}

/// A key of the metadata, or its end, and its whole number of 32 bits.
fn number(key: &str, value: u32) -> Vec<u8> {
    [key.as_bytes(), &4u32.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// What is wrong with a file in which `from` is written over by `to`.
fn changed(file: &str, from: &[u8], to: &[u8]) -> String {
    match opened(file, from, to) {
        Ok(_) => "none".into(),
        Err(error) => error.to_string(),
    }
}

/// The same, for a whole number in the metadata.
fn with_number(file: &str, key: &str, from: u32, to: u32) -> String {
    changed(file, &number(key, from), &number(key, to))
}

#[test]
fn what_a_file_says_wrongly_is_named() {
    let renamed = |file, from: &str, to: &str| changed(file, from.as_bytes(), to.as_bytes());
    let errors = [
        (
            renamed("gemma2.gguf", "blk.1.post_ffw_norm", "blk.1.post_ffw_nine"),
            ["blk.1.post_ffw_norm.weight", "got none"],
        ),
        (
            renamed("qwen3.gguf", "blk.1.attn_q_norm", "blk.1.attn_q_nine"),
            ["blk.1.attn_q_norm.weight", "got none"],
        ),
        (
            renamed("qwen2.gguf", "blk.1.attn_q.bias", "blk.1.attn_q.bios"),
            ["blk.1.attn_q.bios", "expected only tensors"],
        ),
        (
            renamed("stablelm-2.gguf", "output_norm.bias", "output_norm.bios"),
            ["output_norm.bias", "got none"],
        ),
        (
            renamed("phi3.gguf", "blk.1.attn_qkv", "blk.1.attn_qkw"),
            ["blk.1.attn_q.weight", "got none"],
        ),
        (
            renamed(
                "llama-yarn.gguf",
                "\u{4}\0\0\0\0\0\0\0yarn",
                "\u{4}\0\0\0\0\0\0\0yawn",
            ),
            ["llama.rope.scaling.type", "yawn"],
        ),
        (
            with_number("olmo3.gguf", "olmo2.block_count", 4, 3),
            ["sliding_window_pattern", "each of the 3 layers"],
        ),
        (
            with_number("llama3.gguf", "llama.block_count", 2, 1 << 20),
            ["llama.block_count", "at most the file's"],
        ),
        (
            with_number("gemma3.gguf", "attention.sliding_window", 17, u32::MAX),
            ["attention.sliding_window", "from 1 to"],
        ),
        (
            with_number("bert-cls.gguf", "bert.pooling_type", 2, 5),
            ["bert.pooling_type", "mean"],
        ),
        (
            with_number("bert-cls.gguf", "bert.context_length", 128, 129),
            ["position_embd.weight", "[32, 129]"],
        ),
        (
            with_number("lfm2.gguf", "lfm2.shortconv.l_cache", 3, 1),
            ["lfm2.shortconv.l_cache", "from 2 to"],
        ),
        (
            with_number("lfm2.gguf", "lfm2.shortconv.l_cache", 3, 4),
            ["blk.0.shortconv.conv.weight", "[4, 32]"],
        ),
        (
            with_number("lfm2-moe.gguf", "leading_dense_block_count", 1, 2),
            ["blk.1.ffn_gate.weight", "got none"],
        ),
        (
            with_number("qwen3-moe.gguf", "expert_count", 8, 9),
            ["blk.0.ffn_gate_inp.weight", "[32, 9]"],
        ),
        (
            with_number("qwen3-moe.gguf", "expert_used_count", 3, 9),
            ["qwen3moe.expert_used_count", "at most the 8 experts"],
        ),
        (
            with_number("lfm2-moe.gguf", "expert_gating_func", 2, 1),
            ["lfm2moe.expert_gating_func", "expected 2"],
        ),
        (
            with_number("gemma4.gguf", "attention.shared_kv_layers", 2, 5),
            ["gemma4.attention.shared_kv_layers", "share with"],
        ),
        (
            with_number("gemma4.gguf", "attention.key_length_swa", 8, 12),
            ["blk.0.attn_q.weight", "[32, 48]"],
        ),
        (
            with_number("gemma4.gguf", "rope.dimension_count_swa", 8, 10),
            ["gemma4.rope.dimension_count_swa", "the head's length 8"],
        ),
        (
            with_number("gemma4.gguf", "per_layer_input", 8, 9),
            ["per_layer_token_embd.weight", "[54, 64]"],
        ),
        (
            renamed(
                "gemma4.gguf",
                "blk.5.layer_output_scale",
                "blk.5.layer_output_scare",
            ),
            ["blk.5.layer_output_scare", "expected only tensors"],
        ),
        (
            with_number("qwen3.5.gguf", "ssm.inner_size", 32, 40),
            ["qwen35.ssm.inner_size", "4 heads of 8"],
        ),
        (
            with_number("qwen3.5.gguf", "ssm.time_step_rank", 4, 3),
            ["qwen35.ssm.time_step_rank", "a multiple of the 2 key heads"],
        ),
        (
            with_number("qwen3.5.gguf", "ssm.conv_kernel", 4, 5),
            ["blk.0.ssm_conv1d.weight", "[5, 64]"],
        ),
        (
            with_number("granite-hybrid.gguf", "ssm.inner_size", 64, 65),
            ["granitehybrid.ssm.inner_size", "8 heads of 8"],
        ),
        (
            with_number("granite-hybrid.gguf", "ssm.inner_size", 64, 8192),
            ["granitehybrid.ssm.inner_size", "at most 256 values a head"],
        ),
        (
            with_number("granite-hybrid.gguf", "ssm.state_size", 16, 2048),
            ["granitehybrid.ssm.state_size", "at most 1024"],
        ),
        (
            with_number("granite-hybrid.gguf", "ssm.group_count", 1, 3),
            [
                "granitehybrid.ssm.time_step_rank",
                "a multiple of the 3 key heads",
            ],
        ),
        (
            with_number("qwen3.5.gguf", "nextn_predict_layers", 1, 5),
            ["qwen35.nextn_predict_layers", "less than the 5 layers"],
        ),
        (
            with_number("qwen3.5.gguf", "nextn_predict_layers", 1, 0),
            ["blk.4.", "nextn"],
        ),
    ];
    for (error, parts) in errors {
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{parts:?}: {error}"
        );
    }
}
