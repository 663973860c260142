use std::collections::{HashMap, HashSet};

use super::*;
use dram_core::hash::fnv1a;

#[test]
fn a_request_means_one_call() {
    let mut seen: HashMap<String, String> = HashMap::new();
    for (set, count) in [
        (Set::Train, 200_000),
        (Set::HeldOut, 40_000),
        (Set::NoFunction, 10_000),
    ] {
        for i in 0..count {
            let s = sample(set, 1, i);
            let key = s.request.to_lowercase().replace(['.', '?', ','], "");
            let call = s.call.to_lowercase();
            if let Some(before) = seen.insert(key.clone(), call.clone()) {
                // punctuation inside a copied value ("7.", "a.m.") is ignored in the key only
                assert_eq!(
                    before.replace(['.', ','], ""),
                    call.replace(['.', ','], ""),
                    "{key}"
                );
            }
        }
    }
}

#[test]
fn held_out_phrasings_are_not_in_training() {
    let plain = |phrasing: &str| phrasing.to_lowercase().replace('\'', "");
    let seen: HashSet<String> = (0..200_000)
        .map(|i| plain(&sample(Set::Train, 3, i).phrasing))
        .collect();
    let both: Vec<_> = PARSED
        .kept
        .iter()
        .map(|p| plain(p))
        .filter(|p| seen.contains(p))
        .collect();
    assert!(both.is_empty(), "{both:?}");
    assert!(
        seen.len() > 10_000 && PARSED.kept.len() > 350,
        "{} {}",
        seen.len(),
        PARSED.kept.len()
    );
}

#[test]
fn held_out_values_are_not_in_training() {
    // Closed sets that every split must share; everything else is disjoint.
    const SHARED: [&str; 4] = ["state", "type", "mode", "camera"];
    let closed_date =
        |v: &Argument| matches!(v, Argument::Text(t) if !t.contains('-') && !t.starts_with("next"));
    let mut train: HashMap<&str, HashSet<Argument>> = HashMap::new();
    let values = |set, count| {
        (0..count).flat_map(move |i| {
            let s = sample(set, 3, i);
            s.arguments
                .into_iter()
                .filter(move |(k, v)| !(SHARED.contains(k) || *k == "date" && closed_date(v)))
        })
    };
    for (key, value) in values(Set::Train, 150_000) {
        train.entry(key).or_default().insert(fold(value));
    }
    for (key, value) in values(Set::HeldOut, 30_000) {
        let value = fold(value);
        assert!(!train[key].contains(&value), "{key}: {value:?}");
    }
}

fn fold(value: Argument) -> Argument {
    match value {
        Argument::Text(t) => Argument::Text(t.to_lowercase().replace('\'', "")),
        number => number,
    }
}

#[test]
fn held_out_carriers_use_known_words() {
    let words = |split: Split| -> HashSet<String> {
        let functions = PARSED.functions.iter().flat_map(|f| &f[split as usize]);
        let mut words: HashSet<String> = functions
            .flat_map(|t| t.expansions())
            .flat_map(|s| s.split_whitespace().map(str::to_string).collect::<Vec<_>>())
            .collect();
        words.extend(render::wrapper_words(split).into_iter().map(str::to_string));
        words
    };
    let mut known = words(Split::Train);
    let out_of_scope = &PARSED.out_of_scope[Split::Train as usize];
    known.extend(
        out_of_scope
            .iter()
            .flat_map(|t| t.expansions())
            .flat_map(|s| s.split_whitespace().map(str::to_string).collect::<Vec<_>>()),
    );
    let mut unknown: Vec<_> = words(Split::HeldOut).difference(&known).cloned().collect();
    unknown.sort();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn calls_are_json_with_known_keys_and_copied_values_are_in_the_request() {
    const COPIED: [&str; 12] = [
        "to",
        "text",
        "name",
        "destination",
        "title",
        "artist",
        "genre",
        "city",
        "item",
        "list",
        "app",
        "number",
    ];
    for set in [Set::Train, Set::HeldOut, Set::NoFunction] {
        for i in 0..20_000 {
            let s = sample(set, 5, i);
            let value: serde_json::Value = serde_json::from_str(&s.call).unwrap();
            assert_eq!(value["name"], s.function);
            assert_eq!(
                value["arguments"].as_object().unwrap().len(),
                s.arguments.len(),
                "{}",
                s.call
            );
            assert_eq!(s.function == NONE, s.arguments.is_empty(), "{s:?}");
            for (key, argument) in &s.arguments {
                if let (true, Argument::Text(text)) = (COPIED.contains(key), argument) {
                    assert!(s.request.contains(text.as_str()), "{s:?}");
                    assert!(!text.is_empty() && text.trim() == text, "{s:?}");
                }
            }
            assert!(
                !s.request.contains("  ") && s.request.trim() == s.request,
                "{}",
                s.request
            );
            let known = FUNCTIONS.iter().find(|f| f.name == s.function);
            assert!(known.is_some() || s.function == NONE);
        }
    }
}

#[test]
fn an_index_always_gives_the_same_example() {
    for i in [0, 1, 77, u64::MAX] {
        assert_eq!(train(9, i), train(9, i));
    }
    assert_ne!(train(9, 1), train(9, 2));
    assert_ne!(train(9, 1), train(10, 1));
    // The streams are part of every figure that was reported: a change here is a change of the task, and needs new models.
    let fingerprint = |set| {
        fnv1a((0..1_000).flat_map(|i| {
            let s = sample(set, 0, i);
            (s.request + &s.call).into_bytes()
        }))
    };
    let found = [Set::Train, Set::HeldOut, Set::NoFunction].map(fingerprint);
    assert_eq!(
        found,
        [
            17_360_716_301_789_444_729,
            3_582_049_760_338_877_085,
            13_684_225_834_509_193_267,
        ],
        "the task's data changed"
    );
}
