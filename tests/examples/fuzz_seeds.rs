//! Writes the fuzz targets' first inputs: `cargo run --release -p dram-tests --example fuzz_seeds -- FOLDER [TEMPLATES]` makes FOLDER/TARGET/…;
//! chat templates (*.jinja) of the folder TEMPLATES become seeds too.

use dram_core::gguf::File;
use dram_core::{Model, OpenOptions, SessionOptions};
use dram_tests::adapter::Lora;
use dram_tests::folder::Facts;
use dram_tests::golden;
use dram_tests::merges::{Writing, vocabulary};
use dram_tests::toy::Shape;
use dram_tests::unigram;
use std::fs;
use std::path::{Path, PathBuf};

/// Between the parts of an input that is several files; fuzz/src/lib.rs splits there.
const SEPARATOR: &[u8] = b"\n\0---\0\n";

fn toy(format: &str) -> Vec<u8> {
    let shape = Shape {
        width: 32,
        ffn: 64,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        format: format.into(),
        ..Shape::default()
    };
    shape.bytes()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().ok_or("expected the folder to write to")?;
    let templates = arguments.next();
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };

    for format in ["f32", "q8_0", "q4_0"] {
        put("gguf", &format!("toy-{format}"), &toy(format))?;
    }
    for entry in fs::read_dir(golden::folder().join("families"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "gguf") {
            put("gguf", &file_name(&path), &fs::read(&path)?)?;
        }
    }
    let texts = ["Hello".to_owned(), " world 12".to_owned()];
    put(
        "gguf",
        "vocabulary",
        &vocabulary(&texts, Writing::Bytes, &["<|end|>"], &["<think>"]).bytes(),
    )?;
    for (i, golden) in unigram::goldens().1.into_iter().enumerate() {
        put("gguf", &format!("unigram-{i}"), &golden.file.bytes())?;
    }

    let base = File::from_bytes("toy.gguf", toy("f32"))?;
    for rank in [1, 4] {
        for embedding in [false, true] {
            let lora = Lora {
                rank,
                embedding,
                ..Lora::default()
            };
            put(
                "adapter",
                &format!("rank-{rank}-{embedding}"),
                &lora.gguf(&base).bytes(),
            )?;
        }
    }

    let model = Model::from_gguf(base, &OpenOptions::default())?;
    let mut session = model.session(SessionOptions {
        context: Some(32),
        threads: Some(1),
        ..SessionOptions::default()
    })?;
    for tokens in [1, 9] {
        session.reset();
        session.prefill(&vec![3; tokens])?;
        let path = folder.join("saved.tmp");
        session.save(&path)?;
        put("saved_session", &tokens.to_string(), &fs::read(&path)?)?;
        fs::remove_file(&path)?;
    }

    for (i, text) in TEXTS.iter().enumerate() {
        for which in 0..12 {
            put(
                "tokenizer",
                &format!("{i}-{which}"),
                &[&[which, i as u8], text.as_bytes()].concat(),
            )?;
        }
    }
    for (i, template) in TEMPLATES.iter().enumerate() {
        put("chat_template", &i.to_string(), template.as_bytes())?;
    }
    if let Some(folder) = templates {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "jinja") {
                put("chat_template", &file_name(&path), &fs::read(&path)?)?;
            }
        }
    }
    for (i, (kind, text)) in CONSTRAINTS.iter().enumerate() {
        put(
            "constraint",
            &i.to_string(),
            &[&[*kind], text.as_bytes()].concat(),
        )?;
    }
    for case in Facts::read().cases {
        let parent = folder.join("folder.tmp");
        let built = case.build(&parent, false);
        let file = |name: &str| fs::read(built.join(name)).unwrap_or_default();
        let names = [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "model.safetensors",
        ];
        put("convert", &case.name, &names.map(file).join(SEPARATOR))?;
        fs::remove_dir_all(&parent)?;
    }
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    for entry in fs::read_dir(recipes)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            put("recipe", &file_name(&path), &fs::read(&path)?)?;
        }
    }
    for (i, record) in RECORDS.iter().enumerate() {
        put("records", &i.to_string(), record.as_bytes())?;
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

const TEXTS: &[&str] = &[
    "Hello world, it's 12345 o'clock",
    "\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c} \u{1f636}\u{200d}\u{1f32b}\u{fe0f} na\u{ef}ve e\u{301}",
    "<think>x</think><|end|> \r\n\t   y",
];

const TEMPLATES: &[&str] = &[
    "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}{% macro f(x) %}{{ x ~ x }}{% endmacro %}{{ f('a') * 3 }}{{ messages[1:] | length }}",
    "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i ** 2 %}{% endfor %}{{ '%05d' | format(ns.n) }}{{ [1, 2] | join(',') }}",
    "{{ messages[0].content.split('\\n')[-1].upper().replace('A', 'B').startswith('x') }}{{ {'a': [1, none, 2.5]} | tojson }}{{ strftime_now('%Y') }}",
    "{% if messages[0]['role'] == 'system' and x is not defined %}{{ raise_exception('no ' ~ messages | map(attribute='role') | list) }}{% endif %}",
];

/// Schema, regular expression, Lark grammar, tools.
const CONSTRAINTS: &[(u8, &str)] = &[
    (
        4,
        "root ::= \"[\" (item (\", \" item)*)? \"]\" # a list\nitem ::= root | [a-z^-]{1,3} | \"\\x41\"+ | [^a-z\\n]?",
    ),
    (
        0,
        r#"{"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"enum": ["x", null]}}, "required": ["a"]}"#,
    ),
    (
        0,
        r##"{"$defs": {"n": {"type": ["number", "null"]}}, "type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 3, "uniqueItems": true}"##,
    ),
    (
        0,
        r#"{"anyOf": [{"type": "string", "pattern": "^[a-c]{2,4}$"}, {"const": {"k": [1.5]}}, {"type": "string", "format": "date"}]}"#,
    ),
    (1, r"(yes|no){1,3}\d+[^\w]?"),
    (2, "start: (\"a\" | word)+ \"!\"?\nword: /[a-z]{1,5}/"),
    (
        3,
        r#"[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}}}]"#,
    ),
];

const RECORDS: &[&str] = &[
    "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"plain\"}\n",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"u\"}]}, {\"role\": \"assistant\", \"content\": \"x\"}]}",
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"u\"}, {\"from\": \"function_call\", \"value\": \"{}\"}, {\"from\": \"gpt\", \"value\": \"x\"}], \"tools\": \"[]\"}",
    "[{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\"}]",
];
