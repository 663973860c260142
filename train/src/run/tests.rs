use super::*;
use crate::export::Export;
use crate::recipe::{Data, Kind, Quant, Student, Teacher, Train};
use crate::student::Decoder;

/// A word game small enough for seconds: the text repeats.
fn recipe(folder: &Path, steps: u64) -> Recipe {
    let text: String = (0..600)
        .map(|i| format!("count {} then {} and rest.\n", i % 10, (i + 1) % 10))
        .collect();
    let path = folder.join("text.txt");
    fs::write(&path, text).unwrap();
    Recipe {
        data: Data {
            kind: Kind::Text,
            path: Some(path),
            vocabulary: 300,
            sequence: Some(32),
            ..Data::default()
        },
        student: Student {
            embedding_length: 64,
            layers: 2,
            heads: 2,
            feed_forward_length: 96,
            context_length: 64,
            ..Student::default()
        },
        train: Train {
            steps,
            batch: 8,
            shards: Some(2),
            ..Train::default()
        },
        eval: crate::recipe::Eval {
            every: 20,
            ..Default::default()
        },
        ..Recipe::default()
    }
}

/// A context shorter than the request that speed is measured with, and held-out sequences that do not fit are refused before training.
#[test]
fn a_short_context_is_trained_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let mut short = recipe(folder.path(), 3);
    (short.student.context_length, short.data.sequence) = (16, None);
    let made = pretrain(&short, &folder.path().join("short"), &never, &mut |_| {}).unwrap();
    let table = made.table.unwrap();
    let row = &table.rows[0];
    assert!(row.prefill > Some(0.0) && row.decode > Some(0.0), "{row:?}");
    let perplexity = made.figures[0].1.nll.exp();
    assert!(
        (row.perplexity.unwrap() / perplexity - 1.0).abs() < 0.01,
        "{row:?}"
    );

    short.eval.chunk = Some(32);
    let steps = AtomicBool::new(false);
    let error = pretrain(&short, &folder.path().join("long"), &never, &mut |event| {
        if let Event::Step(_) = event {
            steps.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("31 tokens, the student 16"),
        "{error:#}"
    );
    assert!(!steps.into_inner());
    let actions = Recipe {
        student: short.student.clone(),
        train: short.train.clone(),
        ..Recipe::default()
    };
    let error = pretrain(
        &actions,
        &folder.path().join("actions"),
        &never,
        &mut |_| {},
    );
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("sequences are at most 16"), "{error}");
}

/// A teacher with rows of padding and a few tokens more, and a first model with other rows of padding, are of the same tokenizer.
#[test]
fn rows_may_differ() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let never = AtomicBool::new(false);
    let small = recipe(folder.path(), 3);
    let first = pretrain(&small, &at("first"), &never, &mut |_| {}).unwrap();
    let gguf = first.gguf.unwrap();
    let file = dram_core::gguf::File::open(&gguf).unwrap();
    let vocabulary = dram_files::tokenizer::vocabulary_of_gguf(&file).unwrap();
    let own = vocabulary.tokens.len();

    // The teacher: two more tokens and six rows of padding.
    let mut more = vocabulary.clone();
    for name in ["<|think|>", "<|tool|>"] {
        more.tokens.push(name.into());
        more.types.push(dram_files::tokenizer::token_type::CONTROL);
    }
    more.pad_to(own + 8);
    let config = small.student.config(own + 8).unwrap();
    let teacher = Decoder::random(config, 7).unwrap();
    let scheme = crate::student::Scheme::by_name("f32", "f32", "f32").unwrap();
    let export = Export {
        name: "teacher",
        config: teacher.config(),
        weights: teacher.parameters(),
        scheme: &scheme,
        vocabulary: &more,
        metadata: Vec::new(),
    };
    export.unverified(&at("teacher.gguf")).unwrap();

    let mut recipe = small.clone();
    recipe.teacher = Some(Teacher {
        path: at("teacher.gguf"),
    });
    recipe.data.tokenizer = Some(gguf.clone());
    recipe.student.init = Some(gguf.clone());
    let mut notes = Vec::new();
    let made = distill(&recipe, &at("out"), &never, &mut |event| {
        if let Event::Note(note) = event {
            notes.push(note.to_owned());
        }
    })
    .unwrap();
    let shared = format!("share tokens 0 to {}", own - 1);
    assert!(notes.iter().any(|note| note.contains(&shared)), "{notes:?}");
    assert!(made.figures[0].1.kl.unwrap().is_finite());
    let made = dram_core::Model::open(made.gguf.unwrap()).unwrap();
    assert_eq!(made.config().vocabulary, own);
    // Rows of padding alone: all of the student's are compared.
    let mut padded = vocabulary.clone();
    padded.pad_to(own + 8);
    let export = Export {
        vocabulary: &padded,
        ..export
    };
    export.unverified(&at("teacher.gguf")).unwrap();
    let made = distill(&recipe, &at("padded"), &never, &mut |_| {}).unwrap();
    assert!(made.figures[0].1.kl.unwrap().is_finite());
    // Another tokenizer is refused, with the first token that differs.
    let mut other = vocabulary.clone();
    other.tokens[20] = "another".into();
    other.pad_to(own + 8);
    let export = Export {
        vocabulary: &other,
        ..export
    };
    export.unverified(&at("teacher.gguf")).unwrap();
    let error = distill(&recipe, &at("refused"), &never, &mut |_| {}).unwrap_err();
    assert!(
        format!("{error:#}").contains("token 20 is \"another\""),
        "{error:#}"
    );
}

/// With a tokenizer that adds BOS every sequence begins with it, and the student's file says so too.
#[test]
fn sequences_begin_with_bos() {
    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/convert");
    for (name, model) in [("spm", "llama"), ("wordpiece", "bert")] {
        let mut recipe = recipe(folder.path(), 2);
        recipe.data.tokenizer = Some(golden.join(name));
        let sources = sources::Sources::new(&recipe, None, &mut |_| {}).unwrap();
        let vocabulary = &sources.vocabulary;
        assert!(vocabulary.add_bos, "{name}");
        let bos = vocabulary.bos.unwrap();
        let held_out = &sources.held_out[0].batches[0];
        for batch in [&sources.training.batch(3), held_out] {
            let mut rows = batch.ids.chunks(batch.length);
            assert!(rows.all(|row| row[0] == bos), "{name}");
            assert!(batch.targets.iter().all(|t| t.1 != bos), "{name}");
        }
        let made = pretrain(&recipe, &folder.path().join(name), &never, &mut |_| {}).unwrap();
        let file = dram_core::gguf::File::open(made.gguf.unwrap()).unwrap();
        let student = dram_files::tokenizer::vocabulary_of_gguf(&file).unwrap();
        assert_eq!((&*student.model, &student), (model, vocabulary), "{name}");
    }
}

#[test]
fn pretrain_then_distill_with_a_stop_between() {
    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let out = folder.path().join("teacher");
    let mut evaluated = 0;
    let teacher = pretrain(&recipe(folder.path(), 60), &out, &never, &mut |e| {
        evaluated += u32::from(matches!(e, Event::Evaluated { .. }))
    })
    .unwrap();
    assert!(teacher.finished && teacher.gguf.as_ref().is_some_and(|p| p.is_file()));
    assert_eq!(evaluated, 2);
    let nll = teacher.figures[0].1.nll;
    assert!(nll < 2.0, "{nll}");

    let mut recipe = recipe(folder.path(), 40);
    recipe.teacher = Some(Teacher {
        path: teacher.gguf.unwrap(),
    });
    recipe.quant = Some(Quant::default());
    recipe.losses = toml::from_str(
        "cross_entropy = { weight = 0.2 }\nforward_kl = {}\nhidden_cosine = { weight = 0.1 }",
    )
    .unwrap();
    assert!(pretrain(&recipe, &out, &never, &mut |_| {}).is_err());

    // The later runs go through bf16 where rounding has not begun, and through the teacher's twin.
    recipe.train.precision = crate::recipe::Precision::Bf16;
    let straight = folder.path().join("straight");
    recipe.eval.control = true;
    let whole = distill(&recipe, &straight, &never, &mut |_| {}).unwrap();
    recipe.eval.control = false;
    assert!(whole.parity.unwrap().positions > 0);
    assert!(whole.figures[0].1.kl.is_some());
    let rows = whole.table.unwrap().rows;
    let [teacher, control, student] = &rows[..] else {
        panic!("{rows:?}");
    };
    assert!(teacher.kl.is_some_and(|kl| kl < 1e-6));
    assert_eq!(control.parameters, student.parameters);
    assert_ne!(control.nll, student.nll);

    let stopped = folder.path().join("stopped");
    let stop = AtomicBool::new(false);
    let half = distill(&recipe, &stopped, &stop, &mut |e| {
        if let Event::Step(p) = e {
            stop.store(p.step.step == 25, std::sync::atomic::Ordering::Relaxed);
        }
    });
    assert_eq!(
        (half.as_ref().unwrap().finished, half.unwrap().steps),
        (false, 25)
    );
    let rest = distill(&recipe, &stopped, &never, &mut |_| {}).unwrap();
    assert_eq!(rest.figures, whole.figures);
    let lines = |out: &Path| {
        fs::read_to_string(out.join(LOG))
            .unwrap()
            .lines()
            .filter(|l| l.contains("\"loss\""))
            .count()
    };
    assert_eq!((lines(&stopped), lines(&straight)), (40, 40));
    let read = |out: &Path| fs::read(out.join(FOLDER).join("model.safetensors")).unwrap();
    assert!(read(&stopped) == read(&straight), "the same bytes");

    recipe.train.learning_rate *= 2.0;
    let error = distill(&recipe, &stopped, &never, &mut |_| {}).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("train.learning_rate: expected 0.002, got 0.004"),
        "{error}"
    );
}

/// What decides a run is what its files hold, not where they lie; and it may become longer.
#[test]
fn a_run_goes_on_by_contents() {
    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let teach = |name: &str, seed: u64| {
        let mut recipe = recipe(folder.path(), 4);
        recipe.train.seed = seed;
        let out = folder.path().join(name);
        pretrain(&recipe, &out, &never, &mut |_| {}).unwrap();
        out
    };
    let (first, other) = (teach("first", 1), teach("other", 2));
    let mut recipe = recipe(folder.path(), 12);
    recipe.teacher = Some(Teacher {
        path: folder.path().join("teacher.gguf"),
    });
    recipe.quant = Some(Quant::default());
    let place = |from: &Path, to: &str| {
        let target = folder.path().join(to);
        fs::copy(from.join(GGUF), &target).unwrap();
        target
    };
    place(&first, "teacher.gguf");
    let out = folder.path().join("out");
    let stop_at = |recipe: &Recipe, out: &Path, at: u64| {
        let stop = AtomicBool::new(false);
        let mut trained = 0;
        let summary = distill(recipe, out, &stop, &mut |e| {
            if let Event::Step(p) = e {
                trained += 1;
                stop.store(p.step.step == at, std::sync::atomic::Ordering::Relaxed);
            }
        })?;
        anyhow::Ok((summary.finished, trained))
    };
    assert_eq!(stop_at(&recipe, &out, 5).unwrap(), (false, 5));

    // Another teacher under the same name.
    place(&other, "teacher.gguf");
    let error = format!("{:#}", stop_at(&recipe, &out, 99).unwrap_err());
    assert!(
        error.contains("teacher's contents: expected ") && error.contains("delete the checkpoint"),
        "{error}"
    );
    assert!(
        !error.contains("tokenizer") && !error.contains("data"),
        "{error}"
    );

    // The same teacher and the same text under other names, and settings that decide nothing.
    let mut moved = recipe.clone();
    moved.name = "another name".into();
    moved.teacher.as_mut().unwrap().path = place(&first, "moved.gguf");
    let text = folder.path().join("moved.txt");
    fs::rename(folder.path().join("text.txt"), &text).unwrap();
    moved.data.path = Some(text.clone());
    moved.train.threads = Some(1);
    moved.eval.every = 0;
    assert_eq!(stop_at(&moved, &out, 9).unwrap(), (false, 4));

    // Other text.
    let mut changed = moved.clone();
    changed.data.path = Some(folder.path().join("changed.txt"));
    let whole = fs::read_to_string(&text).unwrap().replace("rest", "stop");
    fs::write(folder.path().join("changed.txt"), whole).unwrap();
    let error = format!("{:#}", stop_at(&changed, &out, 99).unwrap_err());
    assert!(error.contains("data's contents: expected "), "{error}");

    // More steps: in one go, and with another stop on the way, the same; rounding that has begun goes on.
    let mut longer = moved.clone();
    longer.train.steps = 30;
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in [CHECKPOINT, LOG] {
        fs::copy(out.join(name), copy.join(name)).unwrap();
    }
    assert_eq!(stop_at(&longer, &out, 99).unwrap(), (true, 21));
    assert_eq!(stop_at(&longer, &copy, 12).unwrap(), (false, 3));
    assert_eq!(stop_at(&longer, &copy, 99).unwrap(), (true, 18));
    let read = |out: &Path| fs::read(out.join(GGUF)).unwrap();
    assert!(read(&out) == read(&copy), "the same bytes");
    let log = fs::read_to_string(out.join(LOG)).unwrap();
    let line = |step: u64| -> serde_json::Value {
        let step = format!("\"step\":{step},");
        let line = log
            .lines()
            .find(|l| l.contains(&step) && l.contains("loss"));
        serde_json::from_str(line.unwrap()).unwrap()
    };
    assert_eq!(line(10)["quantised"], true);
    let rate = crate::optim::schedule(2e-3, 9, 30, 1, 0.02);
    assert!((line(10)["learning_rate"].as_f64().unwrap() - rate).abs() < 1e-12);
    let error = format!("{:#}", stop_at(&moved, &out, 99).unwrap_err());
    assert!(
        error.contains("train.steps: expected 30 or more, got 12"),
        "{error}"
    );
}

/// Whatever a run does when it is told to stop, it comes back, and the next start gives the same.
#[test]
fn every_phase_stops() {
    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let recipe = recipe(folder.path(), 24);
    let straight = folder.path().join("straight");
    let whole = pretrain(&recipe, &straight, &never, &mut |_| {}).unwrap();
    for phase in ["evaluating held-out", "comparing", "measuring"] {
        let out = folder.path().join(phase);
        let stop = AtomicBool::new(false);
        let summary = pretrain(&recipe, &out, &stop, &mut |e| {
            if let Event::Working { what, .. } = e {
                stop.fetch_or(what == phase, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let summary = summary.unwrap();
        // The first evaluation is after step 20.
        let steps = if phase.starts_with("eval") { 20 } else { 24 };
        assert_eq!((summary.finished, summary.steps), (false, steps), "{phase}");
        let summary = pretrain(&recipe, &out, &never, &mut |_| {}).unwrap();
        assert_eq!(summary.figures, whole.figures, "{phase}");
        let figures = |out: &Path| -> Vec<String> {
            let log = fs::read_to_string(out.join(LOG)).unwrap();
            log.lines()
                .filter(|l| l.contains("\"set\""))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(figures(&out), figures(&straight), "{phase}");
    }
    let page = fs::read_to_string(straight.join("loss.svg")).unwrap();
    assert!(
        page.contains("held-out: NLL") && page.contains("training"),
        "{page}"
    );
}
