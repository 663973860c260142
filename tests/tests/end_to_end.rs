//! From text to a file that answers: a teacher is trained, a quantised student distilled from it, exported through the
//! gate, opened by the runtime and asked. All through the library, in a few seconds.

use dram_core::{Finish, Model, Prompt, Request, SessionOptions};
use dram_tests::toy::splitmix;
use dram_train::data::{Batch, Crops, TextTokenizer, sequential_blocks, split_text};
use dram_train::eval::{Scorer, evaluate};
use dram_train::export::{Export, Gate, Limits, verify};
use dram_train::identity::Identity;
use dram_train::loss::{LossConfig, Losses, Sizes};
use dram_train::optim::AdamW;
use dram_train::student::{Config, Decoder, QuantMode, Scheme};
use dram_train::teacher::{self, Scored, Teacher, Trained};
use dram_train::trainer::{Outcome, Settings, TeacherQuery, Trainer};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CONTEXT: usize = 48;
const STEPS: u64 = 160;

/// Text with something to learn: who lives where, over and over in random order.
fn text() -> String {
    let people = ["Anna", "Ben", "Carla", "Dmitri", "Elif", "Farid"];
    let towns = ["Oslo", "Porto", "Quito", "Riga", "Seoul", "Turin"];
    (0..600)
        .map(|i| (splitmix(7, i) % 6) as usize)
        .map(|who| format!("{} lives in {}.\n", people[who], towns[who]))
        .collect()
}

struct World {
    tokenizer: TextTokenizer,
    crops: Crops,
    held_out: Vec<Batch>,
}

fn world() -> World {
    let text = text();
    let (train, rest) = split_text(&text, 0.1).unwrap();
    let tokenizer = TextTokenizer::train(train.lines(), 320, &["<|end|>"], None).unwrap();
    let ids = |text: &str| tokenizer.encode(text, false).unwrap();
    let crops = Crops::new(Arc::new(ids(train)), 8, CONTEXT, 1).unwrap();
    let held_out = sequential_blocks(&ids(rest), CONTEXT, 8, None);
    World {
        tokenizer,
        crops,
        held_out,
    }
}

fn config(world: &World, width: usize, layers: usize) -> Config {
    Config {
        vocabulary: world.tokenizer.len(),
        embedding_length: width,
        layers,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        feed_forward_length: 2 * width,
        context_length: CONTEXT,
        ..Config::default()
    }
}

fn settings(quantise_from: Option<u64>, threads: usize) -> Settings {
    Settings {
        steps: STEPS,
        learning_rate: 3e-3,
        warmup: 10,
        final_share: 0.1,
        optimiser: AdamW {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
        },
        clip: 1.0,
        accumulate: 1,
        shards: 2,
        threads,
        quantise_from,
        seed: 1,
    }
}

fn run(trainer: &mut Trainer, stop_after: Option<u64>) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut each = |_: &Trainer, step: &dram_train::trainer::Step| {
        stop.store(Some(step.step) == stop_after, Ordering::Relaxed);
        Ok(())
    };
    trainer.run(&stop, &mut each).unwrap()
}

/// A student that learns from the teacher's logits and hidden states and from the text, rounding from half way on.
fn distilling<'a>(world: &'a World, teacher: &'a dyn Teacher, threads: usize) -> Trainer<'a> {
    let config = config(world, 64, 2);
    let mut student = Decoder::random(config.clone(), 5).unwrap();
    student
        .set_scheme(Some(Scheme::by_name("q4_0", "q8_0", "q8_0").unwrap()))
        .unwrap();
    let shape = teacher
        .decoder()
        .expect("a small teacher gives hidden states")
        .config();
    let sizes = Sizes {
        vocabulary: config.vocabulary,
        layers: config.layers,
        width: config.embedding_length,
        teacher: Some((shape.layers, shape.embedding_length)),
        has_teacher: true,
    };
    let terms = [
        ("cross_entropy", LossConfig::new(0.2)),
        ("forward_kl", LossConfig::new(0.8)),
        ("hidden_mse", LossConfig::new(0.1)),
    ];
    let losses = Losses::new(terms.iter().map(|(name, config)| (*name, config)), sizes).unwrap();
    let ask: Box<TeacherQuery> = Box::new(|batch, want| teacher.targets(batch, want));
    Trainer::new(
        student,
        settings(Some(STEPS / 2), threads),
        losses,
        &world.crops,
        Some(ask),
    )
    .unwrap()
}

fn export(
    world: &World,
    decoder: &Decoder,
    scheme: &Scheme,
    reference: &Decoder,
    path: &Path,
) -> Result<dram_train::export::Parity, String> {
    let export = Export {
        name: "end to end",
        config: decoder.config(),
        weights: decoder.parameters(),
        scheme,
        vocabulary: world.tokenizer.vocabulary(),
        metadata: Vec::new(),
    };
    let reference = Trained::new("training", reference, QuantMode::On, 2).unwrap();
    let gate = Gate {
        reference: &reference,
        batches: &world.held_out,
        limits: Limits::default(),
        workers: 2,
    };
    export.verified(path, &gate).map_err(|e| format!("{e:#}"))
}

#[test]
fn text_to_teacher_to_student_to_answer() {
    let folder = tempfile::tempdir().unwrap();
    let world = world();

    // A teacher, from text.
    let config = config(&world, 96, 3);
    let sizes = Sizes {
        vocabulary: config.vocabulary,
        layers: config.layers,
        width: 96,
        teacher: None,
        has_teacher: false,
    };
    let labels = LossConfig::new(1.0);
    let losses = Losses::new([("cross_entropy", &labels)], sizes).unwrap();
    let mut pretraining = Trainer::new(
        Decoder::random(config, 3).unwrap(),
        settings(None, 2),
        losses,
        &world.crops,
        None,
    )
    .unwrap();
    assert_eq!(run(&mut pretraining, None), Outcome::Finished);
    let mut teacher = pretraining.into_decoder();
    let f16 = Scheme::by_name("f16", "f16", "f16").unwrap();
    teacher.set_scheme(Some(f16)).unwrap();
    let teacher_path = folder.path().join("teacher.gguf");
    let parity = export(&world, &teacher, &f16, &teacher, &teacher_path).unwrap();
    println!("teacher: {parity}");

    // A student, from the teacher's file.
    let teacher = teacher::open(&teacher_path, 2).unwrap();
    let mut straight = distilling(&world, teacher.as_ref(), 2);
    assert_eq!(run(&mut straight, None), Outcome::Finished);

    // The same again, stopped on the way and resumed with another number of threads: the same bits.
    let checkpoint = folder.path().join("checkpoint");
    let mut first = distilling(&world, teacher.as_ref(), 1);
    assert_eq!(run(&mut first, Some(STEPS / 2 + 7)), Outcome::Stopped);
    first
        .save(&checkpoint, &Identity::of("recipe", "end to end"))
        .unwrap();
    let mut second = distilling(&world, teacher.as_ref(), 2);
    second
        .resume(&checkpoint, &Identity::of("recipe", "end to end"))
        .unwrap();
    assert_eq!(
        (second.step(), run(&mut second, None)),
        (STEPS / 2 + 7, Outcome::Finished)
    );
    let other = distilling(&world, teacher.as_ref(), 1)
        .resume(&checkpoint, &Identity::of("recipe", "another"))
        .unwrap_err();
    println!("another recipe's checkpoint: {other:#}");

    // Files through the gate, byte for byte the same.
    let (straight, second) = (straight.into_decoder(), second.into_decoder());
    let scheme = *straight.scheme().unwrap();
    let paths = ["student.gguf", "resumed.gguf"].map(|name| folder.path().join(name));
    let parity = export(&world, &straight, &scheme, &straight, &paths[0]).unwrap();
    println!("student: {parity}");
    assert!(parity.top1 >= 0.999);
    export(&world, &second, &scheme, &second, &paths[1]).unwrap();
    assert!(
        std::fs::read(&paths[0]).unwrap() == std::fs::read(&paths[1]).unwrap(),
        "a resumed run gives another file"
    );

    // `verify` finds a file whose weights are not those that were trained, and the gate refuses to name one.
    let stranger = distilling(&world, teacher.as_ref(), 1).into_decoder();
    let reference = Trained::new("stranger", &stranger, QuantMode::On, 2).unwrap();
    let parity = verify(&paths[0], &reference, &world.held_out, 2).unwrap();
    assert!(parity.check(&Limits::default()).is_err());
    let refused = folder.path().join("refused.gguf");
    let message = export(&world, &straight, &scheme, &stranger, &refused).unwrap_err();
    assert!(
        message.contains("refused") && !refused.exists(),
        "{message}"
    );

    // What it learnt, in figures.
    let scored = Scored {
        teacher: teacher.as_ref(),
        threads: 2,
    };
    let trained = Trained::new("student", &straight, QuantMode::On, 2).unwrap();
    let candidates: [&dyn Scorer; 3] = [&trained, &reference, &scored];
    let figures = evaluate(&candidates, Some(&scored), &world.held_out).unwrap();
    println!(
        "student {:?}\nuntrained {:?}\nteacher {:?}",
        figures[0], figures[1], figures[2]
    );
    assert!(figures[0].kl < figures[1].kl.map(|kl| kl / 10.0) && figures[0].top1 > Some(0.9));

    // The app's side.
    let model = Model::open(&paths[0]).unwrap();
    assert!(
        model.info().formats.iter().any(|(name, _)| *name == "q4_0"),
        "{:?}",
        model.info().formats
    );
    let mut session = model.session(SessionOptions::default()).unwrap();
    let request = Request {
        max_tokens: 40,
        stop: vec!["\n".into()],
        ..Request::new(Prompt::Text("Anna lives in Oslo.\nCarla lives".into()))
    };
    let mut pieces = String::new();
    let completion = session
        .generate(&request, &mut |event| {
            if let dram_core::Event::Piece { text, .. } = event {
                pieces.push_str(text);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        (completion.text.as_str(), &completion.finish),
        (" in Quito.", &Finish::StopString("\n".into()))
    );
    assert_eq!(pieces, completion.text);

    // Another reader of the format agrees about what is in the file.
    let mut container = gguf_rs::get_gguf_container(paths[0].to_str().unwrap()).unwrap();
    let other = container.decode().unwrap();
    assert_eq!(other.tensors().len(), model.gguf().tensors().len());
    for theirs in other.tensors() {
        let ours = model.gguf().tensor(&theirs.name).unwrap();
        assert_eq!(
            (theirs.kind, theirs.size),
            (ours.format().ggml_id, ours.bytes().len() as u64),
            "{}",
            theirs.name
        );
    }
}
