//! The tables: what each measures and how, and what is aimed at.

use super::programs::{Busy, Memory};
use super::{Model, Row, Settings};
use anyhow::Result;

/// One table.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) how: &'static str,
    pub(super) unit: &'static str,
    pub(super) more_is_better: bool,
    /// The ratio aimed at for a model in a row that shows this; above 1 Dram is better.
    pub(super) aim: fn(&Model, &str) -> f64,
    pub(super) measure: fn(&Settings, &Model) -> Result<Vec<Row>>,
}

pub(super) const GROUPS: &[Group] = &[
    Group {
        name: "prefill",
        title: "Prefill, tokens per second",
        how: "The limit is the device's rate of int8 multiply-adds.",
        unit: "tokens/s",
        more_is_better: true,
        aim: |model, _| match &*model.format {
            "q4_0" => 2.0,
            "q8_0" => 3.0,
            _ => 2.5,
        },
        measure: prefill,
    },
    Group {
        name: "decode",
        title: "Decode, tokens per second",
        how: "The limit is the rate at which the device reads memory.",
        unit: "tokens/s",
        more_is_better: true,
        aim: |model, _| match model.parameters {
            1_000_000_000.. => 1.0, // both wait for memory
            100_000_000.. => 1.25,
            _ => 2.0,
        },
        measure: |settings, model| decode(settings, model, &[0]),
    },
    Group {
        name: "depth",
        title: "Decode after many tokens, tokens per second",
        how: "The limit is the rate at which the device reads memory; keys and values count.",
        unit: "tokens/s",
        more_is_better: true,
        aim: |_, _| 1.25,
        measure: |settings, model| decode(settings, model, &settings.depths),
    },
    Group {
        name: "busy",
        title: "Decode beside a process that never sleeps, tokens per second",
        how: "Both programs run beside the same endless loop.",
        unit: "tokens/s",
        more_is_better: true,
        aim: |_, _| 5.0,
        measure: busy,
    },
    Group {
        name: "start",
        title: "A new process to its end after the first token, file in the page cache",
        how: "Wall time of `dram run` and of llama-completion (`--no-warmup -fit off`), from start to exit: both open the file, tokenise four words and make one token \
              in a context of 2048. Peak: greatest resident size, in runs of their own. The ratio is llama.cpp's by Dram's.",
        unit: "ms or MB",
        more_is_better: false,
        aim: |_, what| {
            if what.starts_with("peak") { 1.67 } else { 5.0 }
        },
        measure: start,
    },
    Group {
        name: "memory",
        title: "Anonymous memory when a context of 2048 has filled, MB",
        how: "Greatest RssAnon of `dram bench` and llama-bench while they fill it. The ratio is llama.cpp's by Dram's.",
        unit: "MB",
        more_is_better: false,
        aim: |_, _| 4.0,
        measure: memory,
    },
];

fn prefill(settings: &Settings, model: &Model) -> Result<Vec<Row>> {
    let mut prompts = vec![128, 512];
    prompts.retain(|&prompt| prompt <= model.context);
    settings
        .programs
        .bench(settings, model, &prompts, &[0], &[0], true)
}

fn decode(settings: &Settings, model: &Model, depths: &[usize]) -> Result<Vec<Row>> {
    let depths: Vec<usize> = depths
        .iter()
        .copied()
        .filter(|depth| depth + settings.generate <= model.context)
        .collect();
    settings
        .programs
        .bench(settings, model, &[0], &[settings.generate], &depths, true)
}

fn busy(settings: &Settings, model: &Model) -> Result<Vec<Row>> {
    let busy = Busy::start()?;
    let programs = &settings.programs;
    let mut rows = programs.bench(settings, model, &[0], &[settings.generate], &[0], false)?;
    for row in &mut rows {
        row.what = busy.place().to_owned();
    }
    Ok(rows)
}

fn start(settings: &Settings, model: &Model) -> Result<Vec<Row>> {
    let programs = &settings.programs;
    let context = model.context.min(2048);
    let mut rows = Vec::new();
    for &threads in &settings.threads {
        let [mut time, mut peak] =
            ["time, ms", "peak, MB"].map(|what| Row::new(what.into(), threads));
        let [mut ours, mut theirs] = programs.first_token(&model.path, threads, context);
        // The first of each fills the page cache and is not counted.
        for round in 0..=settings.rounds {
            for (command, time, peak) in [
                (&mut ours, &mut time.ours, &mut peak.ours),
                (&mut theirs, &mut time.theirs, &mut peak.theirs),
            ] {
                let wall = programs.time(command)?;
                if round > 0 {
                    time.push(wall.as_secs_f64() * 1e3);
                    peak.push(programs.watch(command)?.resident as f64 / 1e6);
                }
            }
        }
        rows.extend([time, peak]);
    }
    Ok(rows)
}

fn memory(settings: &Settings, model: &Model) -> Result<Vec<Row>> {
    let programs = &settings.programs;
    let context = model.context.min(2048);
    let threads = settings.threads.iter().copied().max().unwrap_or(1);
    let [mut ours, mut theirs] = programs.fill(&model.path, threads, context);
    let anonymous = |memory: Memory| vec![memory.anonymous as f64 / 1e6];
    Ok(vec![Row {
        ours: anonymous(programs.watch(&mut ours)?),
        theirs: anonymous(programs.watch(&mut theirs)?),
        ..Row::new(format!("{context} tokens"), threads)
    }])
}
