use super::*;
use crate::recipe::{Data, Kind, Quant, Student, Teacher, Train};

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
            shards: 2,
            ..Train::default()
        },
        eval: crate::recipe::Eval {
            every: 20,
            ..Default::default()
        },
        ..Recipe::default()
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
    assert!(format!("{error:#}").contains("another recipe"), "{error:#}");
}
