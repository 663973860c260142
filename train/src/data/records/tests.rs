use std::io::Write as _;

use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Records> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, text).unwrap();
    read_records(&path)
}

fn one(text: &str) -> Record {
    let mut records = read(text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
    assert_eq!(records.len(), 1, "{text}");
    records.records.remove(0)
}

/// `role: content {thinking} [name arguments id] <name tool_call_id>` a turn, `*` before answers to learn.
fn said(record: &Record) -> String {
    let Record::Chat(chat) = record else {
        panic!("no chat: {record:?}")
    };
    let turns = chat.messages.iter().zip(&chat.answers).map(|(m, answer)| {
        let mut text = format!(
            "{}{}: {}",
            if *answer { "*" } else { "" },
            m.role,
            m.content
        );
        text.extend(m.reasoning.iter().map(|r| format!(" {{{r}}}")));
        let calls = m.tool_calls.iter();
        text.extend(calls.map(|c| format!(" [{} {} {}]", c.name, c.arguments, c.id)));
        if m.role == "tool" {
            let text_of = |t: &Option<String>| t.clone().unwrap_or_default();
            text += &format!(" <{} {}>", text_of(&m.name), text_of(&m.tool_call_id));
        }
        text
    });
    turns.collect::<Vec<_>>().join(" | ")
}

#[test]
fn conversations_in_every_spelling() {
    for (text, expected) in [
        // OpenAI's and TRL's.
        (
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "x"}]}"#,
            "system: s | user: u | *assistant: x",
        ),
        (
            r#"{"messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "x", "reasoning_content": "r"}]}"#,
            "developer: d | user: u | *assistant: x {r}",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "thinking": "r", "content": "x"}]}"#,
            "user: u | *assistant: x {r}",
        ),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "x"}]}]}"#,
            "user: uv | *assistant: x {r}",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "no", "weight": 0}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "x", "weight": 1}]}"#,
            "user: u | assistant: no | user: v | *assistant: x",
        ),
        // Calls: arguments as an object or as a string, results by id or in order.
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "id": "c1", "function": {"name": "f", "arguments": "{\"a\": 1}"}}, {"id": "c2", "function": {"name": "g", "arguments": {"b": 2}}}]}, {"role": "tool", "tool_call_id": "c2", "content": "2"}, {"role": "tool", "content": {"n": 1}}, {"role": "assistant", "content": "x"}]}"#,
            r#"user: u | *assistant:  [f {"a": 1} c1] [g {"b":2} c2] | tool: 2 <g c2> | tool: {"n":1} <f c1> | *assistant: x"#,
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": "1"}, {"role": "assistant", "content": "x"}]}"#,
            "user: u | *assistant:  [f {} call00001] | tool: 1 <f call00001> | *assistant: x",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": [{"type": "text", "text": "so"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "1"}]}]}, {"role": "assistant", "content": "x"}]}"#,
            r#"user: u | *assistant: so [f {"a":1} c] | tool: 1 <f c> | *assistant: x"#,
        ),
        // ShareGPT's.
        (
            r#"{"system": "s", "conversations": [{"from": "human", "value": "u"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"}, {"from": "observation", "value": "1"}, {"from": "gpt", "value": "x"}]}"#,
            r#"system: s | user: u | *assistant:  [f {"a":1} call00001] | tool: 1 <f call00001> | *assistant: x"#,
        ),
        (
            r#"{"conversations": [{"from": "human", "value": "u"}, {"from": "function_call", "value": "{}"}, {"from": "gpt", "value": "x"}]}"#,
            "user: u | *assistant: {} | *assistant: x",
        ),
        // JSON in a text, and an object of lists.
        (
            r#"{"conversation": "[{\"role\": \"USER\", \"content\": \"u\"}, {\"role\": \"model\", \"content\": \"x\"}]"}"#,
            "user: u | *assistant: x",
        ),
        (
            r#"{"messages": {"role": ["user", "assistant"], "content": ["u", "x"]}}"#,
            "user: u | *assistant: x",
        ),
        // TRL's prompts and completions, and preferences.
        (
            r#"{"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "old"}, {"role": "user", "content": "v"}], "completion": [{"role": "assistant", "content": "x"}]}"#,
            "user: u | assistant: old | user: v | *assistant: x",
        ),
        (
            r#"{"prompt": "u", "completion": [{"role": "assistant", "content": "x"}]}"#,
            "user: u | *assistant: x",
        ),
        (
            r#"{"prompt": [{"role": "user", "content": "u"}], "chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}]}"#,
            "user: u | *assistant: x",
        ),
        (
            r#"{"chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "old"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "x"}], "rejected": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "old"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "y"}]}"#,
            "user: u | assistant: old | user: v | *assistant: x",
        ),
        (
            r#"{"prompt": "u", "chosen": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "x"}], "rejected": []}"#,
            "user: u | *assistant: x",
        ),
        // LLaMA-Factory's preferences.
        (
            r#"{"conversations": [{"from": "human", "value": "u"}], "chosen": {"from": "gpt", "value": "x"}, "rejected": {"from": "gpt", "value": "y"}}"#,
            "user: u | *assistant: x",
        ),
        // Alpaca's, questions and answers, calls as answers.
        (
            r#"{"instruction": "i", "input": "more", "output": "x", "system": "s", "history": [["u", "w"]], "text": "all of it"}"#,
            "system: s | user: u | *assistant: w | user: i\n\nmore | *assistant: x",
        ),
        (
            r#"{"instruction": "i", "input": "", "output": "x"}"#,
            "user: i | *assistant: x",
        ),
        (
            r#"{"system_prompt": "s", "question": "u", "response": "x"}"#,
            "system: s | user: u | *assistant: x",
        ),
        (
            r#"{"query": "u", "tools": "[{\"name\": \"f\"}]", "answers": "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]"}"#,
            r#"user: u | *assistant:  [f {"a":1} call00001]"#,
        ),
    ] {
        assert_eq!(said(&one(text)), expected, "{text}");
    }
}

#[test]
fn texts_and_what_stands_beside_a_conversation() {
    let completion = |prompt: &str, completion: &str| Record::Completion {
        prompt: prompt.into(),
        completion: completion.into(),
    };
    assert_eq!(
        one(r#"{"text": "a", "id": 3}"#),
        Record::Document("a".into())
    );
    assert_eq!(
        one(r#"{"prompt": "a", "completion": "b"}"#),
        completion("a", "b")
    );
    let preference = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    assert_eq!(one(preference), completion("a", "b"));
    assert!(read(preference).unwrap().notes()[0].contains("chosen one alone"));
    let implicit = r#"{"chosen": "It is blue.", "rejected": "It is green."}"#;
    assert_eq!(one(implicit), completion("It is", " blue."));
    let labels = "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":true}\n{\"prompt\":\"a\",\"completion\":\"c\",\"label\":false}";
    assert_eq!(one(labels), completion("a", "b"));
    assert!(read(labels).unwrap().notes()[0].contains("1 records with label"));

    let function = json!({ "name": "f", "parameters": { "type": "object", "properties": {} } });
    let messages =
        json!([{ "role": "user", "content": "u" }, { "role": "assistant", "content": "x" }]);
    for tools in [
        json!([{ "type": "function", "function": function }]),
        json!([function]),
        json!(json!([function]).to_string()),
    ] {
        let line = json!({ "messages": messages, "tools": tools, "chat_template_kwargs": { "enable_thinking": false } });
        let Record::Chat(chat) = one(&line.to_string()) else {
            panic!("no chat")
        };
        assert!(format!("{:?}", chat.tools).contains("\"f\""), "{tools}");
        assert_eq!(chat.arguments["enable_thinking"], false);
    }
    for tools in [json!(null), json!([]), json!("")] {
        let line = json!({ "messages": messages, "tools": tools }).to_string();
        assert!(matches!(one(&line), Record::Chat(chat) if chat.tools.is_none()));
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, needle) in [
        ("{\"prompt\":\"a\",\"completion\":\"b\"}\n{", "data.jsonl:2"),
        ("{\"prompt\":\"a\"}", "\"completion\""),
        ("{\"words\":\"a\"}", "the keys words"),
        ("{\"messages\":[{\"role\":\"user\"}]}", "turn 0"),
        (
            "{\"messages\":[{\"role\":\"wizard\",\"content\":\"\"}]}",
            "wizard",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
            "no assistant turn",
        ),
        (
            "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
            "image_url",
        ),
        (
            "{\"messages\":[{\"role\":\"assistant\",\"content\":null}]}",
            "\"content\"",
        ),
        (
            "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}",
            "\"name\"",
        ),
        (
            "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\"}],\"tools\":\"nonsense\"}",
            "\"tools\"",
        ),
        (
            "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":false}",
            "no record",
        ),
        ("[1]", "record 1"),
        ("\n", "no record"),
        ("PAR1 and no more", "Parquet"),
    ] {
        let error = format!("{:#}", read(text).unwrap_err());
        assert!(
            error.contains(needle) && error.contains("data.jsonl"),
            "{text}: {error}"
        );
    }
}

#[test]
fn packed_files_and_arrays_are_read_by_their_first_bytes() {
    let lines = "\u{feff}{\"text\": \"a\"}\n\n{\"text\": \"ü\"}\r\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    for bytes in [
        lines.into(),
        gzip.finish().unwrap(),
        zstd::encode_all(lines.as_bytes(), 1).unwrap(),
        " [{\"text\": \"a\"},\n {\"text\": \"ü\"}]".into(),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let records = read_records(&path).unwrap();
        let texts: Vec<&str> = records.records.iter().flat_map(|r| r.texts()).collect();
        assert_eq!(texts, ["a", "ü"]);
        // A file that ends too early is no shorter data set.
        if bytes[0] != 0xef {
            std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
            assert!(read_records(&path).is_err());
        }
    }
}

/// Conversations of two rows, one in each row group, in Parquet's own nesting.
fn parquet_file() -> Vec<u8> {
    use ::parquet::basic::Compression;
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use ::parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    use ::parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    let schema = "message m {
        optional group messages (LIST) { repeated group list { optional group element {
            optional binary role (UTF8);
            optional binary content (UTF8);
            optional binary reasoning_content (UTF8);
        } } }
        optional int32 score;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).unwrap();
    for (said, answer, reasoning) in [("u", "x", Some("r")), ("v", "y", None)] {
        let mut group = writer.next_row_group().unwrap();
        for column in [
            vec!["user", "assistant"],
            vec![said, answer],
            reasoning.into_iter().collect(),
        ] {
            let levels: &[i16] = match column.len() {
                2 => &[4, 4],
                1 => &[3, 4],
                _ => &[3, 3],
            };
            let values: Vec<ByteArray> = column.into_iter().map(ByteArray::from).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<ByteArrayType>();
            typed
                .write_batch(&values, Some(levels), Some(&[0, 1]))
                .unwrap();
            column.close().unwrap();
        }
        let mut score = group.next_column().unwrap().unwrap();
        let typed = score.typed::<Int32Type>();
        typed.write_batch(&[7], Some(&[1]), None).unwrap();
        score.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn parquet_holds_what_json_lines_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no-extension");
    let bytes = parquet_file();
    std::fs::write(&path, &bytes).unwrap();
    let lines = r#"
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "x", "reasoning_content": "r"}]}
        {"messages": [{"role": "user", "content": "v"}, {"role": "assistant", "content": "y"}]}"#;
    let records = read_records(&path).unwrap();
    assert_eq!(records.records, read(lines).unwrap().records);
    assert!(records.place(1).ends_with("no-extension: row 2"));
    // Whatever is wrong with a file is an error, or wrong text.
    for at in (0..bytes.len()).step_by(3) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x15;
        std::fs::write(&path, &broken).unwrap();
        if let Err(error) = read_records(&path) {
            assert!(
                format!("{error:#}").contains("no-extension"),
                "{at}: {error:#}"
            );
        }
    }
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(read_records(&path).is_err());
}
