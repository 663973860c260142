//! `general.*`: the parts of a model's name, as llama.cpp's converter reads them from `_name_or_path` or the folder's own name, and the sampling that
//! `generation_config.json` recommends.

use std::path::Path;

use dram_core::model::folder::Entries;
use serde_json::Value as Json;

use crate::folder::read_json;

/// The parts of a model's name; empty ones are absent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) organization: String,
    basename: String,
    finetune: String,
    pub(super) version: String,
    size_label: String,
}

/// What a word between hyphens is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Unknown,
    Version,
    /// A quantisation or floating-point type.
    Type,
    Size,
    Finetune,
}

/// How large a model is.
pub(super) struct Size {
    /// Values in all tensors.
    pub(super) parameters: usize,
    /// Experts of a layer, and values with one of them in each layer, where there are any.
    pub(super) experts: Option<(usize, usize)>,
}

/// Sets the names.
pub(super) fn name(
    folder: &Path,
    config: &Json,
    given: Option<&str>,
    size: &Size,
    keys: &mut Entries,
) {
    let parameters = size.parameters;
    // A path of some computer is not a name.
    let repository = config["_name_or_path"]
        .as_str()
        .filter(|id| !id.is_empty() && id.matches('/').count() <= 1);
    let own = folder.canonicalize().ok();
    let own = own
        .as_deref()
        .unwrap_or(folder)
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    let sources = [
        repository.map(|id| parse(id, parameters)),
        own.map(|id| parse(&id, parameters)),
    ];
    let first = |part: fn(&Parts) -> &str| {
        let found = sources
            .iter()
            .flatten()
            .map(part)
            .find(|text| !text.is_empty());
        found.map(str::to_owned)
    };
    let label = || match size.experts {
        Some((count, each)) => format!("{count}x{}", rounded(each)),
        None => rounded(parameters),
    };
    let entries = [
        (
            "name",
            given
                .map(str::to_owned)
                .or(first(|p| &p.name))
                .or(Some("model".into())),
        ),
        ("organization", first(|p| &p.organization)),
        ("basename", first(|p| &p.basename)),
        ("finetune", first(|p| &p.finetune)),
        ("version", first(|p| &p.version)),
        (
            "size_label",
            first(|p| &p.size_label).or_else(|| Some(label())),
        ),
    ];
    for (key, value) in entries {
        if let Some(value) = value {
            keys.set(&format!("general.{key}"), value);
        }
    }
}

/// Sets `general.sampling.*`. A file that cannot be read says nothing, as for transformers.
pub(super) fn sampling(folder: &Path, keys: &mut Entries) {
    let config = read_json(&folder.join("generation_config.json")).unwrap_or_default();
    for (key, field) in [
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("temp", "temperature"),
        ("penalty_repeat", "repetition_penalty"),
    ] {
        if let Some(value) = config[field].as_f64() {
            keys.set(&format!("general.sampling.{key}"), value as f32);
        }
    }
    if let Some(k) = config["top_k"].as_i64().and_then(|k| i32::try_from(k).ok()) {
        keys.set("general.sampling.top_k", k);
    }
}

/// `meta-llama/Llama-3.2-1B-Instruct` → organization, name, basename `Llama-3.2`, size label `1B`, finetune `Instruct`.
pub(super) fn parse(id: &str, parameters: usize) -> Parts {
    if id.contains(' ') {
        return Parts {
            name: title(id),
            ..Parts::default()
        };
    }
    let (organization, full) = id.split_once('/').unwrap_or(("", id));
    let organization = if organization.starts_with('.') {
        ""
    } else {
        organization
    };
    let mut words: Vec<(String, Kind)> = Vec::new();
    for word in full.split('-').filter(|word| !word.is_empty()) {
        words.push(classify(word, words.is_empty(), parameters));
    }
    // Sizes in words count only where there is none in numbers.
    let counted = |word: &(String, Kind)| {
        word.1 == Kind::Size && word.0.contains(|c: char| c.is_ascii_digit())
    };
    if words.iter().any(counted) {
        for (word, kind) in &mut words {
            if *kind == Kind::Size && word.chars().all(char::is_alphabetic) {
                *kind = Kind::Unknown;
            }
        }
    }
    // The base name: words at the beginning, versions among them but not at its end.
    let begins = |word: &(String, Kind)| {
        word.1 == Kind::Version
            || word.1 == Kind::Unknown && word.0.starts_with(char::is_alphabetic)
    };
    let mut base = words.iter().take_while(|word| begins(word)).count();
    if base == words.len() {
        while base > 0 && words[base - 1].1 == Kind::Version {
            base -= 1;
        }
    }
    let join = |wanted: &dyn Fn(usize, Kind) -> bool| {
        let chosen = words
            .iter()
            .enumerate()
            .filter(|(i, word)| wanted(*i, word.1));
        chosen
            .map(|(_, word)| word.0.as_str())
            .collect::<Vec<_>>()
            .join("-")
    };
    let parts = Parts {
        name: title(full),
        organization: title(organization),
        basename: join(&|i, _| i < base),
        finetune: join(&|i, kind| i >= base && matches!(kind, Kind::Finetune | Kind::Unknown)),
        version: join(&|i, kind| i >= base && kind == Kind::Version),
        size_label: join(&|_, kind| kind == Kind::Size),
    };
    if parts.size_label.is_empty() && parts.finetune.is_empty() && parts.version.is_empty() {
        // One word could be anything.
        return Parts {
            basename: String::new(),
            ..parts
        };
    }
    parts
}

fn classify(word: &str, first: bool, parameters: usize) -> (String, Kind) {
    let lower = word.to_ascii_lowercase();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str, dots: &[char]| {
        let (whole, part) = text
            .split_once(dots)
            .map_or((text, None), |(a, b)| (a, Some(b)));
        digits(whole) && part.is_none_or(digits)
    };
    let version = lower
        .strip_prefix("iter")
        .or(lower.strip_prefix('v'))
        .unwrap_or(&lower);
    if version.split('.').all(digits) {
        return (word.into(), Kind::Version);
    }
    let quantised = lower
        .strip_prefix('i')
        .unwrap_or(&lower)
        .strip_prefix('q')
        .is_some_and(|rest| {
            let rest = rest.strip_prefix(|c: char| c.is_ascii_digit());
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('_') && !rest.ends_with('_')
            })
        });
    let floating = [
        "fp16", "fp32", "f16", "f32", "bf16", "bf32", "bfp16", "bfp32",
    ]
    .contains(&&*lower);
    if quantised || floating {
        return (word.to_uppercase(), Kind::Type);
    }
    if first {
        return (word.into(), Kind::Unknown);
    }
    if ["small", "mini", "medium", "large", "xl", "xxl"].contains(&&*lower) {
        return (word.into(), Kind::Size);
    }
    // 7B, 0.5b, 8x7B, A3B, and 7b1 for 7.1B
    let (count, unit) = lower
        .find(|c| "kmbt".contains(c))
        .map_or((&*lower, ""), |at| lower.split_at(at));
    let experts = count
        .split_once('x')
        .filter(|(n, _)| digits(n))
        .map(|(_, each)| each);
    let each = experts.or(count.strip_prefix('a')).unwrap_or(count);
    let tail = unit.get(1..).unwrap_or_default();
    if !unit.is_empty()
        && number(each, &['.', '_'])
        && (tail.is_empty() || tail.len() == 1 && digits(tail))
    {
        let keep = word.len() - unit.len();
        let point = if tail.is_empty() {
            String::new()
        } else {
            format!(".{tail}")
        };
        let label = format!(
            "{}{point}{}",
            word[..keep].replace('_', "."),
            unit[..1].to_uppercase()
        );
        // A number far from the model's size is a length of context.
        let power = " kmbt".find(&unit[..1]).unwrap_or(0) as i32;
        let size = label[..label.len() - 1]
            .parse::<f64>()
            .map(|n| n * 1000f64.powi(power));
        let far =
            size.is_ok_and(|size| (size - parameters as f64).abs() > (7 * parameters / 8) as f64);
        return if far {
            (
                format!("{}{}", &label[..label.len() - 1], &unit[..1]),
                Kind::Finetune,
            )
        } else {
            (label, Kind::Size)
        };
    }
    let kind = if ["chat", "instruct", "vision", "lora"].contains(&&*lower) {
        Kind::Finetune
    } else {
        Kind::Unknown
    };
    (word.into(), kind)
}

/// `tiny-llama v0.3` → `Tiny Llama v0.3`; words with capitals stay as they are.
fn title(id: &str) -> String {
    let word = |word: &str| {
        let version = word.strip_prefix('v').is_some_and(|v| {
            v.split('.')
                .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
        let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        if !lower || version || word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.to_owned();
        }
        let mut after_letter = false;
        let mut capital = |c: char| {
            let upper = !after_letter && c.is_alphabetic();
            after_letter = c.is_alphabetic();
            if upper {
                c.to_uppercase().collect::<String>()
            } else {
                c.to_string()
            }
        };
        word.chars().map(&mut capital).collect()
    };
    id.replace('-', " ")
        .split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// 1,234,567 → `1.2M`.
fn rounded(parameters: usize) -> String {
    let n = parameters as f64;
    let (scaled, unit) = match n {
        _ if n > 1e12 => (n * 1e-12, 'T'),
        _ if n > 1e9 => (n * 1e-9, 'B'),
        _ if n > 1e6 => (n * 1e-6, 'M'),
        _ => (n * 1e-3, 'K'),
    };
    // At least two digits; a leading zero is none.
    let whole = format!("{:.0}", scaled.round_ties_even());
    let digits = 2usize.saturating_sub(whole.trim_start_matches('0').len());
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// llama-cpp-python 0.3.36, `gguf.Metadata.get_model_id_components` and `id_to_title`.
    #[test]
    fn names_are_taken_apart_as_llama_cpp_does() {
        for (id, parameters, expected) in [
            (
                "meta-llama/Llama-3.2-1B-Instruct",
                1_235_814_432,
                [
                    "Llama 3.2 1B Instruct",
                    "Meta Llama",
                    "Llama-3.2",
                    "Instruct",
                    "",
                    "1B",
                ],
            ),
            (
                "Qwen/Qwen2.5-0.5B-Instruct",
                494_032_768,
                [
                    "Qwen2.5 0.5B Instruct",
                    "Qwen",
                    "Qwen2.5",
                    "Instruct",
                    "",
                    "0.5B",
                ],
            ),
            (
                "Phi-3-mini-4k-instruct",
                3_821_079_552,
                [
                    "Phi 3 Mini 4k Instruct",
                    "",
                    "Phi-3",
                    "4k-instruct",
                    "",
                    "mini",
                ],
            ),
            (
                "mistralai/Mixtral-8x7B-v0.1",
                46_702_792_704,
                [
                    "Mixtral 8x7B v0.1",
                    "Mistralai",
                    "Mixtral",
                    "",
                    "v0.1",
                    "8x7B",
                ],
            ),
            (
                "bloom-7b1-petals",
                7_069_016_064,
                ["Bloom 7b1 Petals", "", "bloom", "petals", "", "7.1B"],
            ),
            (
                "Mistral-7B-v0.3",
                7_248_023_552,
                ["Mistral 7B v0.3", "", "Mistral", "", "v0.3", "7B"],
            ),
            (
                "stablelm-2-1_6b-chat",
                1_644_515_328,
                ["Stablelm 2 1_6b Chat", "", "stablelm-2", "chat", "", "1.6B"],
            ),
            ("smollm", 134_515_008, ["Smollm", "", "", "", "", ""]),
        ] {
            let p = parse(id, parameters);
            assert_eq!(
                [
                    &*p.name,
                    &*p.organization,
                    &*p.basename,
                    &*p.finetune,
                    &*p.version,
                    &*p.size_label
                ],
                expected,
                "{id}"
            );
        }
        assert_eq!(
            [999, 28_400, 1_234_567, 134_515_008, 7_248_023_552].map(rounded),
            ["1.0K", "28K", "1.2M", "135M", "7.2B"]
        );
    }
}
