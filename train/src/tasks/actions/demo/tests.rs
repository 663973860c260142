use std::fs;

use super::*;
use crate::data::TextTokenizer;
use crate::export::Export;
use crate::student::{Decoder, Scheme};
use crate::tasks::actions::SPECIAL_TOKENS;

/// An untrained teacher of the task with a vocabulary of 320.
fn teacher(folder: &Path) -> PathBuf {
    let texts = (0..200)
        .map(|i| actions::train(0, i))
        .flat_map(|s| [s.request, s.call]);
    let tokenizer = TextTokenizer::train(texts, 320, &SPECIAL_TOKENS, None).unwrap();
    let teacher = Student {
        embedding_length: 64,
        layers: 2,
        ..small()
    };
    let config = teacher.config(tokenizer.len()).unwrap();
    let decoder = Decoder::random(config, 9).unwrap();
    let scheme = Scheme::by_name("f16", "f16", "f16").unwrap();
    let path = folder.join("teacher.gguf");
    Export {
        name: "teacher",
        config: decoder.config(),
        weights: decoder.parameters(),
        scheme: &scheme,
        vocabulary: tokenizer.vocabulary(),
        metadata: Vec::new(),
    }
    .unverified(&path)
    .unwrap();
    path
}

fn small() -> Student {
    Student {
        embedding_length: 32,
        layers: 1,
        heads: 2,
        kv_heads: Some(1),
        head_dim: Some(16),
        feed_forward_length: 64,
        context_length: 512,
        ..Student::default()
    }
}

fn options(teacher: &Path, out_dir: PathBuf) -> DemoOptions {
    DemoOptions {
        steps: 12,
        batch: 4,
        held_out: 6,
        threads: 2,
        student: small(),
        ..DemoOptions::new(Source::Path(teacher.to_owned()), out_dir).unwrap()
    }
}

/// Stopped in the middle of each training and before the end, and started again each time: the same bytes as in one go.
#[test]
fn a_stopped_demo_goes_on_to_the_same_student() {
    let dir = tempfile::tempdir().unwrap();
    let teacher = teacher(dir.path());
    let never = AtomicBool::new(false);
    let straight = options(&teacher, dir.path().join("straight"));
    let Outcome::Finished(demo) = run(&straight, &never, &mut |_| {}).unwrap() else {
        panic!("stopped")
    };
    assert_eq!(demo.answers.len(), ALOUD.len());
    assert_eq!(demo.table.rows.len(), 5);
    assert!(
        demo.table
            .rows
            .iter()
            .all(|r| r.exact.len() == 2 && r.decode.unwrap() > 0.0)
    );
    assert!(demo.table.rows[0].kl.is_none() && demo.table.rows[4].kl.unwrap() > 0.0);
    for name in ["report.md", "report.json", "loss.svg"] {
        assert!(straight.out_dir.join(name).is_file(), "{name}");
    }

    let stopped = options(&teacher, dir.path().join("stopped"));
    let mut starts = 0;
    let second = loop {
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let outcome = run(&stopped, &stop, &mut |event| {
            steps += u64::from(matches!(event, Event::Step { .. }));
            stop.fetch_or(steps == 7, Ordering::Relaxed);
        });
        starts += 1;
        match outcome.unwrap() {
            Outcome::Stopped => assert!(starts < 10),
            Outcome::Finished(demo) => break demo,
        }
    };
    // 12 + 6 + 12 steps, seven at a time.
    assert_eq!(starts, 5);
    assert_eq!(
        fs::read(&demo.student).unwrap(),
        fs::read(&second.student).unwrap()
    );
    assert_eq!(demo.parity, second.parity);
    let exact = |demo: &Demo| {
        demo.table
            .rows
            .iter()
            .map(|r| (r.exact.clone(), r.kl))
            .collect::<Vec<_>>()
    };
    assert_eq!(exact(&demo), exact(&second));

    // Other options start over; the same ones again only measure what is already there.
    let mut notes = String::new();
    let mut trained = 0;
    let mut listen = |event: Event<'_>| match event {
        Event::Note(note) => notes += note,
        Event::Step { .. } => trained += 1,
        _ => {}
    };
    run(&stopped, &never, &mut listen).unwrap();
    run(&DemoOptions { seed: 1, ..stopped }, &never, &mut listen).unwrap();
    assert_eq!(trained, 30);
    assert!(
        notes.contains("resuming") && notes.contains("starting over"),
        "{notes}"
    );
}

#[test]
fn a_teacher_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.gguf");
    fs::write(&path, b"GGUF nonsense").unwrap();
    let error = run(
        &options(&path, dir.path().join("out")),
        &AtomicBool::new(false),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(format!("{error:#}").contains("teacher.gguf"), "{error:#}");
}
