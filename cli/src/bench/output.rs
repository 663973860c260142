//! What `dram bench` prints.

use std::time::Duration;

use dram_core::latency::Resident;
use serde_json::{Value, json};

use super::Row;
use super::peer::median;
use crate::output::{bytes, table};

impl Row<'_> {
    pub(super) fn json(&self) -> Value {
        let l = &self.latency;
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        json!({
            "model": self.model,
            "file_bytes": l.file_bytes,
            "parameters": self.parameters,
            "isa": l.isa,
            "threads": l.threads,
            "n_prompt": l.options.prompt,
            "n_gen": l.options.generate,
            "n_depth": l.options.depth,
            "repetitions": l.options.repetitions,
            "prefill_tokens_per_second": l.prefill,
            "prefill_samples": l.prefill_rates,
            "decode_tokens_per_second": l.decode,
            "decode_samples": l.decode_rates,
            "first_token_ms": ms(l.first_token),
            "between_tokens_p50_ms": ms(l.p50),
            "between_tokens_p95_ms": ms(l.p95),
            "open_cold_ms": self.load.cold.map(|(open, _)| ms(open)),
            "open_warm_ms": ms(self.load.warm.0),
            "start_to_first_token_cold_ms": self.load.cold.map(|(_, first)| ms(first)),
            "start_to_first_token_warm_ms": ms(self.load.warm.1),
            "memory_mapped_bytes": l.memory.mapped,
            "memory_kv_cache_bytes": l.memory.kv_cache,
            "memory_scratch_bytes": l.memory.scratch,
            "resident_mapped_bytes": l.resident.map(|r| r.mapped),
            "resident_anonymous_bytes": l.resident.map(|r| r.anonymous),
            "prefill_multiply_adds_per_token": l.prefill_multiply_adds,
            "decode_bytes_per_token": l.decode_bytes,
            "limit_multiply_adds_per_second": self.limits.map(|limits| limits.multiply_adds),
            "limit_read_bytes_per_second": self.limits.map(|limits| limits.read),
            "prefill_share_of_limit": self.prefill_share(),
            "decode_share_of_limit": self.decode_share(),
            "peer_prefill_tokens_per_second": self.peer.as_ref().and_then(|peer| median(&peer.prefill)),
            "peer_prefill_samples": self.peer.as_ref().map(|peer| &peer.prefill),
            "peer_decode_tokens_per_second": self.peer.as_ref().and_then(|peer| median(&peer.decode)),
            "peer_decode_samples": self.peer.as_ref().map(|peer| &peer.decode),
        })
    }

    fn prefill_share(&self) -> Option<f64> {
        self.limits?.prefill_share(&self.latency)
    }

    fn decode_share(&self) -> Option<f64> {
        self.limits?.decode_share(&self.latency)
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".into(), |share| format!("{:.0} %", share * 100.0))
}

fn millis(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1e3;
    if ms < 1.0 {
        format!("{:.0} µs", ms * 1e3)
    } else if ms < 100.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

fn per_second(rate: f64, spread: f64) -> String {
    if rate == 0.0 {
        "–".into()
    } else {
        format!("{rate:.0} ± {:.0}", rate * spread / 2.0)
    }
}

pub(super) fn print_tables(rows: &[Row<'_>]) {
    let mut models: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let cold = |pick: fn((Duration, Duration)) -> Duration| {
            row.load
                .cold
                .map_or("–".into(), |times| millis(pick(times)))
        };
        let cells = vec![
            row.model.clone(),
            bytes(row.latency.file_bytes),
            row.parameters.to_string(),
            cold(|t| t.0),
            millis(row.load.warm.0),
            cold(|t| t.1),
            millis(row.load.warm.1),
        ];
        if !models.contains(&cells) {
            models.push(cells);
        }
    }
    let header = [
        "model",
        "file",
        "parameters",
        "open cold",
        "open warm",
        "to first token cold",
        "to first token warm",
    ];
    println!("{}", table(&header, &models));
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let l = &row.latency;
            let resident =
                |pick: fn(Resident) -> u64| l.resident.map_or("–".into(), |r| bytes(pick(r)));
            vec![
                row.model.clone(),
                l.options.prompt.to_string(),
                l.options.generate.to_string(),
                l.options.depth.to_string(),
                l.threads.to_string(),
                l.isa.into(),
                per_second(l.prefill, l.prefill_spread),
                percent(row.prefill_share()),
                per_second(l.decode, l.decode_spread),
                percent(row.decode_share()),
                if l.options.prompt > 0 {
                    millis(l.first_token)
                } else {
                    "–".into()
                },
                if l.options.generate > 0 {
                    millis(l.p50)
                } else {
                    "–".into()
                },
                if l.options.generate > 0 {
                    millis(l.p95)
                } else {
                    "–".into()
                },
                resident(|r| r.mapped),
                resident(|r| r.anonymous),
            ]
        })
        .collect();
    let header = [
        "model",
        "prompt",
        "gen",
        "depth",
        "threads",
        "isa",
        "prefill tok/s",
        "of limit",
        "decode tok/s",
        "of limit",
        "ttft",
        "p50",
        "p95",
        "mapped",
        "anonymous",
    ];
    print!("{}", table(&header, &cells));
    print_peer(rows);
    let mut said = Vec::new();
    for limits in rows.iter().filter_map(|row| row.limits) {
        if !said.contains(&limits.threads) {
            said.push(limits.threads);
            println!(
                "\nlimits of {} thread{} ({}): {:.1} GB/s read, {:.0} billion int8 multiply-adds a second",
                limits.threads,
                if limits.threads == 1 { "" } else { "s" },
                limits.isa,
                limits.read / 1e9,
                limits.multiply_adds / 1e9
            );
        }
    }
}

/// The rates beside llama-bench's, if it ran.
fn print_peer(rows: &[Row<'_>]) {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .filter_map(|row| {
            let (l, peer) = (&row.latency, row.peer.as_ref()?);
            let mut cells = vec![row.model.clone()];
            cells.extend(
                [
                    l.options.prompt,
                    l.options.generate,
                    l.options.depth,
                    l.threads,
                ]
                .map(|n| n.to_string()),
            );
            for (ours, theirs) in [(l.prefill, &peer.prefill), (l.decode, &peer.decode)] {
                match median(theirs) {
                    Some(theirs) => cells.extend([
                        format!("{ours:.1}"),
                        format!("{theirs:.1}"),
                        format!("{:.2}", ours / theirs),
                    ]),
                    None => cells.extend(["–"; 3].map(String::from)),
                }
            }
            Some(cells)
        })
        .collect();
    if cells.is_empty() {
        return;
    }
    let header = [
        "model",
        "prompt",
        "gen",
        "depth",
        "threads",
        "prefill tok/s",
        "llama.cpp",
        "ratio",
        "decode tok/s",
        "llama.cpp",
        "ratio",
    ];
    print!("\n{}", table(&header, &cells));
}

pub(super) fn print_csv(rows: &[Row<'_>]) {
    let mut header_done = false;
    for row in rows {
        let Value::Object(fields) = row.json() else {
            continue;
        };
        let scalars = || fields.iter().filter(|(_, value)| !value.is_array());
        if !header_done {
            println!(
                "{}",
                scalars()
                    .map(|(key, _)| key.as_str())
                    .collect::<Vec<_>>()
                    .join(",")
            );
            header_done = true;
        }
        let cells: Vec<String> = scalars()
            .map(|(_, value)| match value {
                Value::Null => String::new(),
                Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
                other => other.to_string(),
            })
            .collect();
        println!("{}", cells.join(","));
    }
}
