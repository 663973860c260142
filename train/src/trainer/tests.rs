use super::*;
use crate::data::{Example, Grouped};
use crate::identity::Identity;
use crate::loss::{LOSSES, LossConfig, Losses, Sizes};
use crate::student::{Config, Scheme};
use std::sync::Arc;

fn config() -> Config {
    Config {
        vocabulary: 64,
        embedding_length: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 32,
        feed_forward_length: 96,
        context_length: 32,
        ..Config::default()
    }
}

/// Counting up by one or two, which two layers learn at once.
fn data() -> Grouped {
    let example = |i: u32| {
        let by = 1 + i % 2;
        let ids: Vec<u32> = (0..6 + i % 9).map(|n| (i * 7 + n * by) % 64).collect();
        Example::prompt_completion(&ids[..2], &ids[2..])
    };
    Grouped::new(
        Arc::new((0..400).map(example).collect::<Vec<_>>()),
        16,
        4,
        1,
    )
    .unwrap()
}

fn settings(steps: u64) -> Settings {
    Settings {
        steps,
        learning_rate: 3e-3,
        warmup: 5,
        final_share: 0.1,
        optimiser: AdamW {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
        },
        clip: 1.0,
        accumulate: 1,
        shards: 3,
        threads: 2,
        quantise_from: None,
        seed: 1,
    }
}

/// A trainer with every loss, rounding from step 8, against a random teacher.
fn everything<'a>(data: &'a Grouped, teacher: &'a Decoder, threads: usize) -> Trainer<'a> {
    let mut student = Decoder::random(config(), 3).unwrap();
    student
        .set_scheme(Some(Scheme::by_name("q4_0", "q8_0", "q8_0").unwrap()))
        .unwrap();
    let c = teacher.config();
    let sizes = Sizes {
        vocabulary: 64,
        layers: 2,
        width: 64,
        teacher: Some((c.layers, c.embedding_length)),
        has_teacher: true,
    };
    let term = LossConfig::new(0.5);
    let losses = Losses::new(LOSSES.iter().map(|l| (l.name, &term)), sizes).unwrap();
    let ask: Box<TeacherQuery> = Box::new(|batch: &Batch, outputs: &OutputSpec| {
        teacher.forward(&batch.ids, batch.length, outputs)
    });
    let settings = Settings {
        quantise_from: Some(8),
        accumulate: 2,
        threads,
        ..settings(20)
    };
    Trainer::new(student, settings, losses, data, Some(ask)).unwrap()
}

#[test]
fn resumes_bit_for_bit_and_ignores_threads() {
    let data = data();
    let teacher = Decoder::random(
        Config {
            embedding_length: 96,
            layers: 3,
            ..config()
        },
        4,
    )
    .unwrap();
    let path = tempfile::tempdir().unwrap().keep().join("checkpoint");
    let never = AtomicBool::new(false);
    let mut straight = everything(&data, &teacher, 2);
    let mut log = Vec::new();
    straight
        .run(&never, &mut |trainer, step| {
            log.push(step.clone());
            if step.step == 10 {
                trainer.save(&path, &Identity::of("f", "f"))
            } else {
                Ok(())
            }
        })
        .unwrap();
    let mut resumed = everything(&data, &teacher, 1);
    resumed.resume(&path, &Identity::of("f", "f")).unwrap();
    let mut at = 10;
    let outcome = resumed.run(&never, &mut |_, step| {
        assert_eq!((step.loss, &step.terms), (log[at].loss, &log[at].terms));
        at += 1;
        Ok(())
    });
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(at, 20);
    let bits = |t: &Trainer| {
        t.decoder()
            .parameters()
            .iter()
            .map(|x| x.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(&straight), bits(&resumed));
    assert!(!log[7].quantised && log[8].quantised);
    assert!(
        log[19].loss < log[8].loss,
        "{} {}",
        log[19].loss,
        log[8].loss
    );
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn learns_stops_and_reports_divergence() {
    let data = data();
    let sizes = Sizes {
        vocabulary: 64,
        layers: 2,
        width: 64,
        teacher: None,
        has_teacher: false,
    };
    let losses = || Losses::new([("cross_entropy", &LossConfig::new(1.0))], sizes).unwrap();
    let make = |settings| {
        Trainer::new(
            Decoder::random(config(), 3).unwrap(),
            settings,
            losses(),
            &data,
            None,
        )
        .unwrap()
    };
    let stop = AtomicBool::new(false);
    let mut trainer = make(settings(150));
    let mut last = 0.0;
    let outcome = trainer.run(&stop, &mut |_, step| {
        last = step.loss;
        stop.store(step.step == 140, Ordering::Relaxed);
        Ok(())
    });
    assert_eq!((outcome.unwrap(), trainer.step()), (Outcome::Stopped, 140));
    assert!(last < 1.0, "loss {last} after 140 steps");

    let mut wild = make(Settings {
        learning_rate: f64::MAX,
        clip: 0.0,
        warmup: 0,
        ..settings(50)
    });
    let error = wild
        .run(&AtomicBool::new(false), &mut |_, _| Ok(()))
        .unwrap_err();
    assert!(format!("{error:#}").contains("learning_rate"), "{error:#}");
}
