//! The `dram` program as a person or a script uses it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A small random llama with a byte-level tokenizer, written by another GGUF writer.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny.gguf")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dram"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// What it printed; panics with its complaint when it failed.
fn good(args: &[&str]) -> String {
    let output = run(args);
    assert!(
        output.status.success(),
        "dram {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    let text = good(args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("dram {args:?}: {e}: {text}"))
}

#[test]
fn every_help_teaches() {
    let all = good(&["--help"]);
    for name in [
        "demo", "pretrain", "distill", "eval", "export", "verify", "run", "chat", "bench",
        "inspect", "imatrix",
    ] {
        assert!(all.contains(name), "dram --help does not name {name}");
        let help = good(&[name, "--help"]);
        assert!(
            help.contains("Example") && help.contains(&format!("dram {name}")),
            "dram {name} --help gives no example:\n{help}"
        );
    }
    assert!(good(&["--version"]).starts_with("dram "));
}

#[test]
fn an_importance_matrix_is_collected_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, text, matrix) = (tiny(), at("text"), at("imatrix.gguf"));
    let model = model.to_str().unwrap();
    std::fs::write(&text, "the cat and the hat ".repeat(40)).unwrap();
    let args = ["imatrix", model, "--text", &text, "--out", &matrix];
    let said = good(&[&args[..], &["--chunk", "32", "--chunks", "3"]].concat());
    assert!(said.contains("3 chunks of 32 tokens"), "{said}");
    let quantized = |name: &str, more: &[&str]| {
        good(&[&["quantize", model, &at(name), "--format", "q4_0"], more].concat());
        std::fs::read(at(name)).unwrap()
    };
    let with = quantized("with.gguf", &["--imatrix", &matrix]);
    assert_ne!(with, quantized("without.gguf", &[]));
    let short = run(&[&args[..], &["--chunk", "128", "--chunks", "0"]].concat());
    assert!(!short.status.success());
    // A matrix is no adapter.
    let output = run(&[
        "run",
        model,
        "the",
        "--raw",
        "--lora",
        &format!("{matrix}:0.5"),
    ]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        complaint.contains("`adapter`, got `imatrix`"),
        "{complaint}"
    );
}

#[test]
fn inspect_run_and_bench_speak_json() {
    let model = tiny();
    let model = model.to_str().unwrap();
    let file = json(&["inspect", model, "--check", "--json"]);
    assert_eq!(file["metadata"]["general.architecture"], "llama");
    assert_eq!(file["tensors"].as_array().unwrap().len(), 11);
    assert!(good(&["inspect", model]).contains("token_embd.weight"));

    let ask = ["run", model, "--raw", "-n", "6", "--json", "the end"];
    let first = json(&ask);
    let stable = |v: &Value| (v["text"].clone(), v["tokens"].clone(), v["finish"].clone());
    assert_eq!(
        stable(&first),
        stable(&json(&ask)),
        "greedy answers are the same each time"
    );
    assert!(first["tokens"].as_array().unwrap().len() <= 6);
    let warm = [
        "run",
        model,
        "--raw",
        "-n",
        "6",
        "--json",
        "--temperature",
        "1",
        "--seed",
        "7",
        "the end",
    ];
    assert_eq!(
        stable(&json(&warm)),
        stable(&json(&warm)),
        "the same seed gives the same answer"
    );

    let rows = json(&[
        "bench", "-m", model, "-p", "4,8", "-n", "4", "-r", "1", "-t", "1", "-o", "json",
    ]);
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");
    // The device's limits are there, and the shares are of them.
    let number = |key: &str| rows[0][key].as_f64().unwrap();
    let bytes = number("decode_tokens_per_second") * number("decode_bytes_per_token");
    let share = bytes / number("limit_read_bytes_per_second");
    assert!(share > 0.0 && (share / number("decode_share_of_limit") - 1.0).abs() < 1e-9);
}

/// `dram … | head`: the reader has gone before the first line.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_quietly() {
    let model = tiny();
    let model = model.to_str().unwrap();
    for args in [
        &["inspect", model][..],
        &["inspect", model, "--json"],
        &["run", model, "the", "-n", "20"],
        &["bench", "-m", model, "-p", "8", "-n", "4"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(args);
        let output = command
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains("panicked"),
            "{args:?}: {}: {said}",
            output.status
        );
    }
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let student =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../train/assets/actions-student.gguf");
    let student = student.to_str().unwrap();
    let ask = |args: &[&str]| {
        json(
            &[
                &["run", student, "set a timer for ten minutes", "--json"],
                args,
            ]
            .concat(),
        )
    };
    let list = r#"{"type": "array", "items": {"type": "integer", "maximum": 9}, "minItems": 2, "maxItems": 3}"#;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for schema in [list, &file("list.json", list)] {
        let answer = ask(&["--json-schema", schema]);
        let value: Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
        assert!((2..=3).contains(&value.as_array().unwrap().len()));
    }
    // What is truncated, or violates its schema, is printed and is an error.
    let twice = r#"{"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2, "uniqueItems": true}"#;
    for (form, finish, why) in [
        (
            ["--regex", "a{40}", "-n", "3"],
            "unfinished_max_tokens",
            "truncated before it satisfied the constraint",
        ),
        (
            ["--json-schema", twice, "-n", "30"],
            "invalid",
            "expected items that differ, got 1 twice",
        ),
    ] {
        let broken = run(&[&["run", student, "x", "--json"], &form[..]].concat());
        let printed: Value = serde_json::from_slice(&broken.stdout).unwrap();
        let error = String::from_utf8_lossy(&broken.stderr);
        assert_eq!(printed["finish"], finish);
        assert!(!broken.status.success() && error.contains(why), "{error}");
    }
    assert_eq!(
        ask(&["--grammar", &file("g.gbnf", "root ::= \"x\" [y]")])["text"],
        "xy"
    );
    assert_eq!(
        ask(&["--grammar", &file("g", "start: \"x\" \"y\"")])["text"],
        "xy"
    );

    let tools = r#"[{"type": "function", "function": {"name": "set_timer", "parameters": {
        "type": "object", "properties": {"duration": {"type": "string"}}, "required": ["duration"]}}}]"#;
    let call = &ask(&["--tools", &file("tools.json", tools)])["tool_call"]["function"];
    assert_eq!(call["name"], "set_timer");
    assert_eq!(call["arguments"], r#"{"duration":"10 minutes"}"#);
    let wrong = run(&["run", student, "x", "--regex", "(a"]);
    assert!(
        !wrong.status.success()
            && String::from_utf8_lossy(&wrong.stderr).contains("regular expression")
    );
}

#[test]
fn mistakes_are_told_and_fail() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, b"not a model at all").unwrap();
    let broken = broken.to_str().unwrap();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, "[train]\nstesp = 3\n").unwrap();
    let recipe = recipe.to_str().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    for (args, fragment) in [
        (&["run", "absent.gguf", "hello"][..], "absent.gguf"),
        (&["run", broken, "hello"], "broken.gguf"),
        (&["inspect", broken], "broken.gguf"),
        (&["bench", "-m", broken], "broken.gguf"),
        (&["pretrain", recipe, "--out", out], "stesp"),
        (&["distill", "absent.toml", "--out", out], "absent.toml"),
    ] {
        let output = run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "dram {args:?}: {complaint}");
        assert!(
            complaint.contains("error: ") && complaint.contains(fragment),
            "dram {args:?}: {complaint}"
        );
        assert!(
            !complaint.contains("panicked"),
            "dram {args:?}: {complaint}"
        );
    }
    assert_eq!(run(&["run", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

/// Errors and notes name flags and commands, not what the library calls its parts.
#[test]
fn messages_are_in_the_words_of_the_command_line() {
    let (model, golden) = (
        tiny(),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"),
    );
    let (model, encoder) = (
        model.to_str().unwrap(),
        golden.join("families/bert-mean.gguf"),
    );
    let encoder = encoder.to_str().unwrap();
    let reranker = golden.join("families/xlmr-rank.gguf");
    let reranker = reranker.to_str().unwrap();
    let long = "the end ".repeat(400);
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template.jinja");
    std::fs::write(
        &template,
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    )
    .unwrap();
    let template = template.to_str().unwrap();
    for (args, expected) in [
        (&["run", encoder, "hi"][..], "use `dram embed`"),
        (&["embed", model], "use `dram run`"),
        (&["rerank", encoder, "hi"], "use `dram embed`"),
        (&["embed", reranker], "use `dram rerank`"),
        (
            &["embed", encoder, "--dimension", "33"],
            "--dimension: expected from 1 to the model's 32",
        ),
        (&["run", model, "--raw", &long], "--context"),
        (
            &["run", model, "--raw", "x", "--top-p", "7"],
            "--top-p: expected",
        ),
        (
            &["run", model, "--raw", "x", "--threads", "0"],
            "--threads: expected",
        ),
        (&["run", model, "--raw", "x", "--tools", template], "--raw"),
        (
            &[
                "run",
                model,
                "x",
                "--chat-template",
                template,
                "--template-arg",
                "messages=1",
            ],
            "--template-arg: expected",
        ),
        // A system prompt is not dropped in silence.
        (
            &[
                "run",
                model,
                "x",
                "--chat-template",
                template,
                "--system",
                "be brief",
            ],
            "--system",
        ),
        (
            &[
                "chat",
                model,
                "--chat-template",
                template,
                "--system",
                "be brief",
            ],
            "--system",
        ),
    ] {
        let output = run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "dram {args:?}: {complaint}");
        assert!(complaint.contains(expected), "dram {args:?}: {complaint}");
        for word in ["Model::", "session", "template_args", "top_p"] {
            assert!(!complaint.contains(word), "dram {args:?}: {complaint}");
        }
    }
    if json(&["inspect", model, "--json"])["metadata"]["tokenizer.chat_template"].is_null() {
        let output = run(&["run", model, "x", "--system", "be brief"]);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("--chat-template FILE"), "{complaint}");
    }
    let output = run(&["run", model, "--raw", "the", "-n", "2"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("sampling: temperature 0.7"), "{said}");
    assert!(
        said.contains("truncated after 2 tokens; raise -n"),
        "{said}"
    );
    let output = run(&[
        "run",
        model,
        "--raw",
        "the",
        "-n",
        "2",
        "--temperature",
        "0",
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("sampling: greedy"), "{said}");
}

/// What is said in several lines is one message; a full context leaves out the oldest.
#[test]
fn a_conversation_in_the_terminal() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let template = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}";
    std::fs::write(at("template.jinja"), template).unwrap();
    let model = tiny();
    let args = [
        "chat",
        model.to_str().unwrap(),
        "--chat-template",
        &at("template.jinja"),
    ];
    let more = ["-n", "4", "--context", "64", "--system", "brief"];
    let mut child = command(&[&args[..], &more].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let talk = format!(
        "one\\\ntwo\n\"\"\"\n/a\n\n  b\n\"\"\"\n{}/save {}\n",
        "and so on and on\n".repeat(6),
        at("talk.json")
    );
    child
        .stdin
        .take()
        .unwrap()
        .write_all(talk.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !said.contains("error"), "{said}");
    assert!(said.contains("oldest messages are left out"), "{said}");
    let talk = std::fs::read_to_string(at("talk.json")).unwrap();
    let talk: Value = serde_json::from_str(&talk).unwrap();
    let messages = talk["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1 + 2 * 8);
    assert_eq!(messages[1]["content"], "one\ntwo");
    assert_eq!(messages[3]["content"], "/a\n\n  b");
}

/// A text and a recipe for a model that takes seconds.
fn recipe(folder: &Path, steps: u64, more: &str) -> PathBuf {
    let text: String = (0..600)
        .map(|i| format!("count {} then {} and rest.\n", i % 10, (i + 1) % 10))
        .collect();
    std::fs::write(folder.join("text.txt"), text).unwrap();
    let path = folder.join(format!("recipe-{steps}.toml"));
    let recipe = format!(
        "data = {{ kind = 'text', path = 'text.txt', vocabulary = 300, sequence = 32 }}\n\
         student = {{ embedding_length = 64, layers = 2, heads = 2, feed_forward_length = 96, context_length = 64 }}\n\
         train = {{ steps = {steps}, batch = 8, threads = 2 }}\n{more}"
    );
    std::fs::write(&path, recipe).unwrap();
    path
}

#[test]
fn pretrain_distill_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let pretraining = recipe(folder.path(), 300, "");
    let teacher = json(&[
        "pretrain",
        pretraining.to_str().unwrap(),
        "--out",
        &at("teacher"),
        "--json",
        "-",
    ]);
    assert_eq!(
        (&teacher["finished"], &teacher["steps"]),
        (&true.into(), &300.into())
    );

    let distilling = recipe(
        folder.path(),
        400,
        "quant = { linear = 'q4_0' }\nteacher = { path = 'teacher/model.gguf' }\n",
    );
    let student = json(&[
        "distill",
        distilling.to_str().unwrap(),
        "--out",
        &at("student"),
        "--json",
        "-",
    ]);
    assert!(
        student["parity"]["top1"].as_f64().unwrap() >= 0.999,
        "{student}"
    );
    let model = at("student/model.gguf");
    assert!(good(&["inspect", &model, "--check"]).contains("q4_0"));
    let answer = json(&[
        "run",
        &model,
        "--raw",
        "--temperature",
        "0",
        "--stop",
        "\n",
        "--json",
        "count 3 then 4 and rest.\ncount 4 then",
    ]);
    assert!(
        answer["text"].as_str().unwrap().contains("and rest"),
        "{answer}"
    );
}

/// Ctrl-C stops after a step; the same command goes on from there.
#[cfg(unix)]
#[test]
fn interrupted_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), 300, "");
    let out = folder.path().join("out");
    let args = [
        "pretrain",
        recipe.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--json",
        "-",
    ];
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines =
        || std::fs::read_to_string(out.join("train.jsonl")).map_or(0, |text| text.lines().count());
    let start = Instant::now();
    while lines() < 5 {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "no step in two minutes"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let stopped = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&stopped.stderr);
    assert!(!complaint.contains("panicked"), "{complaint}");
    let done = lines();
    assert!(
        done < 300
            && out.join("checkpoint.safetensors").is_file()
            && !out.join("model.gguf").exists(),
        "{done} lines\n{complaint}"
    );
    let rest = json(&args);
    assert_eq!(
        (&rest["finished"], &rest["steps"]),
        (&true.into(), &300.into()),
        "{rest}"
    );
}
