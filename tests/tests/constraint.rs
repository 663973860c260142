//! Output that follows a schema, an expression or a grammar; function calling.

use dram_core::{
    Completion, Constraint, Error, Event, Finish, Limit, Message, Model, OpenOptions, Prompt,
    Request, Sampling, Session, SessionOptions, ToolChoice, Tools, gguf,
};
use dram_tests::gguf::Value as Meta;
use dram_tests::toy::{Shape, splitmix};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// A random model, with a chat template if one is given.
fn random(template: Option<&str>) -> Model {
    let mut file = Shape::default().gguf();
    file.set("llama.context_length", Meta::U32(1024));
    if let Some(template) = template {
        file.set("tokenizer.chat_template", Meta::Str(template.into()));
    }
    let file = gguf::File::from_bytes("random.gguf", file.bytes()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn student_path() -> &'static str {
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../train/assets/actions-student.gguf"
    )
}

fn student() -> Model {
    Model::open(student_path()).unwrap()
}

fn session(model: &Model) -> Session {
    let options = SessionOptions {
        threads: Some(1),
        ..SessionOptions::default()
    };
    model.session(options).unwrap()
}

fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
        ..Sampling::default()
    }
}

fn ask(session: &mut Session, request: &Request) -> dram_core::Result<Completion> {
    session.generate(request, &mut |_| ControlFlow::Continue(()))
}

fn constrained(prompt: &str, constraint: Constraint) -> Request {
    Request {
        constraint: Some(constraint),
        max_tokens: 900,
        ..Request::new(Prompt::Text(prompt.into()))
    }
}

/// Random schemas: what people write, nested at most three deep.
struct Schemas(u64, u64);

impl Schemas {
    fn below(&mut self, n: u64) -> u64 {
        self.1 += 1;
        splitmix(self.0, self.1) % n
    }

    fn any(&mut self, depth: u64) -> Value {
        match self.below(if depth == 0 { 7 } else { 11 }) {
            0 => json!({ "type": "boolean" }),
            1 => json!({ "type": (["null", "boolean", "integer"][self.below(3) as usize]) }),
            2 => self.integer(),
            3 => self.number(),
            4 => self.string(),
            5 => self.choice(),
            6 => json!({ "const": (["a\"b", "ß", "x y"][self.below(3) as usize]) }),
            7 => self.array(depth - 1),
            8 => json!({ "anyOf": [self.any(depth - 1), self.any(depth - 1), { "type": "null" }] }),
            _ => self.object(depth - 1),
        }
    }

    fn integer(&mut self) -> Value {
        let low = self.below(2000) as i64 - 1000;
        let high = low + self.below(500) as i64;
        match self.below(4) {
            0 => json!({ "type": "integer", "minimum": low, "maximum": high }),
            1 => json!({ "type": "integer", "exclusiveMinimum": low, "maximum": high + 1 }),
            2 => json!({ "type": "integer", "minimum": 0, "maximum": 99, "multipleOf": 7 }),
            _ => json!({ "type": "integer" }),
        }
    }

    fn number(&mut self) -> Value {
        let low = self.below(400) as f64 / 16.0 - 10.0;
        match self.below(4) {
            0 => json!({ "type": "number", "minimum": low, "maximum": low + 2.5 }),
            1 => {
                json!({ "type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + 0.75 })
            }
            2 => {
                json!({ "type": "number", "minimum": -low.abs() - 0.5, "exclusiveMaximum": -low.abs().floor() })
            }
            _ => json!({ "type": "number" }),
        }
    }

    fn string(&mut self) -> Value {
        let least = self.below(4);
        match self.below(5) {
            0 => json!({ "type": "string" }),
            1 => json!({ "type": "string", "pattern": "^[a-f]{2,5}-[0-9]+$", "maxLength": 12 }),
            2 => json!({ "type": "string", "format": "date" }),
            3 => json!({ "type": "string", "pattern": "^(uno|dos|tres)$" }),
            _ => {
                json!({ "type": "string", "minLength": least, "maxLength": least + self.below(9) })
            }
        }
    }

    fn choice(&mut self) -> Value {
        let all = [
            json!("red"),
            json!("redder"),
            json!(7),
            json!(null),
            json!(false),
            json!([1]),
            json!({"a": 2}),
        ];
        let from = self.below(5) as usize;
        json!({ "enum": all[from..from + 2] })
    }

    fn array(&mut self, depth: u64) -> Value {
        let least = self.below(3);
        json!({ "type": "array", "items": self.any(depth), "minItems": least, "maxItems": least + self.below(3) })
    }

    fn object(&mut self, depth: u64) -> Value {
        let names = ["name", "na", "größe", "x y", "n\"q"];
        let count = self.below(5) as usize;
        let (mut properties, mut required) = (json!({}), Vec::new());
        for name in &names[..count] {
            properties[name] = self.any(depth);
            if self.below(2) == 0 {
                required.push(*name);
            }
        }
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }
}

#[test]
fn outputs_for_random_schemas_are_valid() {
    let (model, start) = (random(None), Instant::now());
    let mut session = session(&model);
    let tokenizer = model.tokenizer();
    // A random model would rarely end a string or a number that has no bound.
    let ends: Vec<(u32, f32)> = ["\"", "}", "]", ","]
        .map(|text| (tokenizer.encode(text, false)[0], 2.0))
        .into();
    let (mut schemas, mut finished, mut huge, mut tokens, mut forced) =
        (Schemas(77, 0), 0, 0, 0, 0);
    for seed in 0..500 {
        let schema = schemas.any(3);
        let mut request = constrained("json", Constraint::json_schema(&schema.to_string()));
        request.sampling = Sampling {
            logit_bias: ends.clone(),
            ..hot(seed)
        };
        let done = ask(&mut session, &request).unwrap_or_else(|error| panic!("{schema}: {error}"));
        match done.finish {
            Finish::EndOfText => {}
            Finish::Unfinished(Limit::MaxTokens) => continue,
            other => panic!("{schema}: {other:?}"),
        }
        finished += 1;
        tokens += done.tokens.len();
        forced += done.forced_tokens;
        let value: Value = match serde_json::from_str(&done.text) {
            Ok(value) => value,
            // A number without bounds may be larger than a float.
            Err(error) if error.to_string().contains("out of range") => {
                huge += 1;
                continue;
            }
            Err(error) => panic!("{schema}: {error} in {}", done.text),
        };
        let valid = jsonschema::validator_for(&schema).unwrap().is_valid(&value);
        assert!(valid, "{schema}: {}", done.text);
    }
    println!(
        "{finished} of 500 finished, {huge} of them with a number beyond f64; {tokens} tokens, {forced} of them forced, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    assert!(finished >= 480 && huge < finished / 20 && forced > tokens / 10);
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn expressions_and_grammars_are_matched() {
    let model = random(None);
    let mut session = session(&model);
    for expression in [
        "[a-c]{3,5}(x|yz)",
        "[0-9]{4}-[0-9][0-9]",
        "(é|ß|日本){2,4}",
        r"(a/b|\\|[^a-z]){1,3}",
    ] {
        // jsonschema has a matcher of its own.
        let schema = json!({ "pattern": format!("^(?:{expression})$") });
        let matcher = jsonschema::validator_for(&schema).unwrap();
        for seed in 0..20 {
            let mut request = constrained("re", Constraint::regex(expression));
            request.sampling = hot(seed);
            let done = ask(&mut session, &request).unwrap();
            assert_eq!(done.finish, Finish::EndOfText);
            assert!(
                matcher.is_valid(&json!(done.text)),
                "{expression}: {}",
                done.text
            );
        }
    }

    // Balanced brackets, which no regular expression matches, between two special tokens.
    let grammar = "start: <|user|> list <|assistant|>\nlist: \"(\" list{0,2} \")\""
        .replace("list{0,2}", "(list list?)?");
    for seed in 0..20 {
        let mut request = constrained("lark", Constraint::lark(&grammar));
        request.sampling = hot(seed);
        let done = ask(&mut session, &request).unwrap();
        if done.finish == Finish::Unfinished(Limit::MaxTokens) {
            continue;
        }
        let depth = done.text.chars().try_fold(0i32, |depth, c| {
            let depth = depth + if c == '(' { 1 } else { -1 };
            (depth >= 0).then_some(depth)
        });
        assert_eq!(depth, Some(0), "{}", done.text);
        let ends = [done.tokens[0], *done.tokens.last().unwrap()];
        let names =
            ["<|user|>", "<|assistant|>"].map(|name| model.tokenizer().token_id(name).unwrap());
        assert_eq!(ends, names);
    }
}

const REQUESTS: [&str; 4] = [
    "set a timer for ten minutes",
    "how is the weather in Oslo",
    "play some jazz",
    "turn the brightness up",
];

fn chat(text: &str) -> Request {
    Request::new(Prompt::Chat(vec![Message::new("user", text)]))
}

const CALL: &str = r#"{
    "type": "object",
    "properties": { "name": { "type": "string", "pattern": "^[a-z_]+$" }, "arguments": { "type": "object" } },
    "required": ["name", "arguments"], "additionalProperties": false
}"#;

#[test]
fn a_student_says_within_its_own_schema_what_it_says_anyway() {
    let model = student();
    let mut session = session(&model);
    for text in REQUESTS {
        let free = ask(&mut session, &chat(text)).unwrap();
        let mut request = chat(text);
        request.constraint = Some(Constraint::json_schema(CALL));
        let held = ask(&mut session, &request).unwrap();
        assert_eq!((held.text, held.finish), (free.text, Finish::EndOfText));
        assert!(free.forced_tokens == 0 && free.decode_steps == free.tokens.len());
    }
}

#[test]
fn forced_tokens_are_evaluated_together_and_change_nothing() {
    let model = student();
    let mut session = session(&model);
    let schema = json!({
        "type": "object",
        "properties": { "unforeseen_name": { "const": "a long text that must stand there" }, "count": { "type": "integer", "minimum": 1, "maximum": 99 } },
        "required": ["unforeseen_name", "count"], "additionalProperties": false,
        "x-guidance": { "whitespace_flexible": false },
    });
    for (seed, text) in (0..).zip(REQUESTS) {
        let mut request = chat(text);
        request.constraint = Some(Constraint::json_schema(&schema.to_string()));
        request.sampling = hot(seed);
        let together = ask(&mut session, &request).unwrap();
        // Probabilities are wanted of each token: one step each.
        request.logprobs = Some(0);
        let single = ask(&mut session, &request).unwrap();
        assert_eq!(
            (&together.text, &together.tokens, together.forced_tokens),
            (&single.text, &single.tokens, single.forced_tokens)
        );
        let tokens = single.tokens.len();
        assert_eq!(single.logprobs.unwrap().len(), tokens);
        assert!(together.forced_tokens > tokens / 2, "{together:?}");
        assert!(tokens - 1 <= single.decode_steps && together.decode_steps < tokens / 2);

        // Every shorter limit cuts the same text, and says that it is not finished.
        request.logprobs = None;
        for most in 0..tokens {
            request.max_tokens = most;
            let cut = ask(&mut session, &request).unwrap();
            assert_eq!(cut.tokens, together.tokens[..most]);
            assert_eq!(cut.finish, Finish::Unfinished(Limit::MaxTokens));
        }
    }
}

#[test]
fn a_full_context_a_stop_string_and_a_cancel_end_it() {
    let model = random(None);
    let options = SessionOptions {
        context: Some(40),
        threads: Some(1),
        ..SessionOptions::default()
    };
    let mut session = model.session(options).unwrap();
    let long = format!("({}|b)", "a".repeat(100));
    let full = ask(
        &mut session,
        &constrained("full", Constraint::regex(&long[..])),
    )
    .unwrap();
    if full.text.len() > 1 {
        assert_eq!(full.finish, Finish::Unfinished(Limit::Context));
        assert_eq!(session.position(), 40);
    }
    // Of what may go on for ever, every beginning is enough.
    let mut request = constrained("full", Constraint::regex("a+"));
    request.sampling.logit_bias = vec![(model.tokenizer().eos().unwrap(), f32::NEG_INFINITY)];
    assert_eq!(
        ask(&mut session, &request).unwrap().finish,
        Finish::ContextFull
    );
    request.max_tokens = 5;
    assert_eq!(
        ask(&mut session, &request).unwrap().finish,
        Finish::MaxTokens
    );
    request.max_tokens = 100;
    request.context_policy = dram_core::ContextPolicy::Slide { keep_first: 4 };
    let slid = ask(&mut session, &request).unwrap();
    assert_eq!((slid.finish, slid.tokens.len()), (Finish::MaxTokens, 100));

    let mut request = constrained("stop", Constraint::regex("one, two, three"));
    request.stop = vec![", th".into()];
    let stopped = ask(&mut session, &request).unwrap();
    assert_eq!(
        (stopped.text.as_str(), stopped.finish),
        ("one, two", Finish::StopString(", th".into()))
    );
    let cancelled = session.generate(&request, &mut |event| match event {
        Event::Piece { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(cancelled.unwrap().finish, Finish::Cancelled);
    // With penalties, bias and everything else, still only what is allowed.
    request.stop.clear();
    request.sampling = Sampling {
        penalties: dram_core::sampling::Penalties {
            repetition: 1.5,
            ..Default::default()
        },
        dry: dram_core::sampling::Dry {
            multiplier: 1.0,
            ..Default::default()
        },
        ..hot(1)
    };
    assert_eq!(ask(&mut session, &request).unwrap().text, "one, two, three");
}

#[test]
fn what_cannot_be_followed_is_refused_in_time() {
    let model = random(None);
    let mut session = session(&model);
    let schema = Constraint::json_schema;
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let nested = format!("{}{{}}{}", r#"{"items":"#.repeat(5000), "}".repeat(5000));
    let chain: String = (0..1700)
        .map(|i| format!(r##""d{i}":{{"$ref":"#/$defs/d{}"}},"##, i + 1))
        .collect();
    let chain =
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{chain}"d1700":{{"type":"null"}}}}}}"##);
    let anys: Vec<Value> = (0..24).map(|i| json!({ "anyOf": [{ "required": [format!("a{i}")] }, { "required": [format!("b{i}")] }] })).collect();
    let bounds = json!({ "type": "array", "minItems": 4_000_000_000u64, "items": { "type": "string", "minLength": 4_000_000_000u64 } });
    let cases: Vec<(&str, Constraint)> = vec![
        ("no JSON", schema("{\"type\":")),
        ("no object", schema("[1]")),
        ("no such type", schema(r#"{"type":"complex"}"#)),
        (
            "nothing valid",
            schema(r#"{"type":"integer","minimum":3,"maximum":2}"#),
        ),
        ("false", schema(r#"{"not":{}}"#)),
        (
            "a bad pattern",
            schema(r#"{"type":"string","pattern":"[a"}"#),
        ),
        ("no such reference", schema(r##"{"$ref":"#/$defs/none"}"##)),
        ("a reference to itself", schema(r##"{"$ref":"#"}"##)),
        (
            "elsewhere",
            schema(r#"{"$ref":"https://example.com/schema"}"#),
        ),
        ("nested", schema(&nested)),
        ("a chain of references", schema(&chain)),
        (
            "alternatives multiplied",
            schema(&json!({ "allOf": anys }).to_string()),
        ),
        ("endless bounds", schema(&bounds.to_string())),
        (
            "large",
            schema(&format!("{{\"title\":\"{}\"}}", "a".repeat(300_000))),
        ),
        ("an open class", Constraint::regex("[a-")),
        ("an empty expression", Constraint::regex("")),
        ("look-ahead", Constraint::regex("a(?=b)")),
        ("nested groups", Constraint::regex(&deep("(", ")", 30_000))),
        (
            "repetitions multiplied",
            Constraint::regex("((((a{1,999}){1,999}){1,999}){1,999}b){1,999}"),
        ),
        ("no start", Constraint::lark("begin: \"a\"")),
        ("no such rule", Constraint::lark("start: other")),
        ("no such token", Constraint::lark("start: <|nothing|>")),
        (
            "no token of that number",
            Constraint::lark("start: <[999999]>"),
        ),
        (
            "left recursion without end",
            Constraint::lark("start: start"),
        ),
        (
            "nested brackets",
            Constraint::lark(&format!("start: {}", deep("(", ")", 30_000))),
        ),
        ("text", Constraint::lark("}{")),
        ("nothing", Constraint::lark("")),
        ("zero bytes", Constraint::lark("\0\0")),
    ];
    for (name, constraint) in cases {
        let start = Instant::now();
        let mut request = constrained("hostile", constraint);
        request.max_tokens = 20;
        let result = ask(&mut session, &request);
        let time = start.elapsed();
        assert!(time < Duration::from_secs(10), "{name}: {time:?}");
        match result {
            Err(Error::Constraint { what, .. }) => println!("{name}: {what:.100} ({time:.1?})"),
            // What is only long is begun.
            Ok(done) => {
                println!("{name}: {} ({time:.1?})", done.text);
                assert!(
                    [
                        "endless bounds",
                        "a chain of references",
                        "alternatives multiplied"
                    ]
                    .contains(&name),
                    "{name}"
                );
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    // The session is as it was.
    let fine = constrained("fine", Constraint::regex("fine"));
    assert_eq!(ask(&mut session, &fine).unwrap().text, "fine");
}

const TOOLS: &str = r##"[
    {"type": "function", "function": {"name": "set_timer", "description": "Starts a timer", "parameters": {
        "type": "object", "properties": {"duration": {"type": "string"}, "label": {"type": "string"}}, "required": ["duration"]}}},
    {"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"place": {"$ref": "#/$defs/place"}}, "required": ["place"],
        "$defs": {"place": {"type": "string", "maxLength": 8}}}}},
    {"type": "function", "function": {"name": "now"}}
]"##;

fn tools(choice: ToolChoice) -> Option<Tools> {
    Some(Tools::from_json(TOOLS, choice).unwrap())
}

#[test]
fn a_student_calls_the_tools_it_is_given() {
    let model = student();
    let mut session = session(&model);
    let mut call = |text: &str, choice| {
        let request = Request {
            tools: tools(choice),
            ..chat(text)
        };
        let call = ask(&mut session, &request).unwrap().tool_call;
        call.map(|call| (call.name, call.arguments))
    };
    let expected = |name: &str, arguments: &str| Some((name.to_owned(), arguments.to_owned()));
    let timer = expected("set_timer", r#"{"duration":"10 minutes"}"#);
    assert_eq!(call(REQUESTS[0], ToolChoice::Auto), timer);
    assert_eq!(call(REQUESTS[0], ToolChoice::Required), timer);
    let weather = expected("get_weather", r#"{"place":"Oslo"}"#);
    assert_eq!(call(REQUESTS[1], ToolChoice::Required), weather);
    let named = call(REQUESTS[1], ToolChoice::Named("set_timer".into()));
    assert_eq!(named.unwrap().0, "set_timer");
    assert_eq!(call(REQUESTS[0], ToolChoice::None), None);
}

#[test]
fn a_call_has_the_form_of_the_template() {
    for (words, begin) in [
        ("", "{"),
        ("<|start_header_id|> ipython", "{"),
        ("<tool_call></tool_call>", "<tool_call>"),
        ("<|tool_call|> Granite", "<|tool_call|>["),
        ("[TOOL_CALLS]", "[TOOL_CALLS]["),
        ("[TOOL_CALLS][ARGS]", "[TOOL_CALLS]"),
    ] {
        let model = random(Some(&format!(
            "{{# {words} #}}{{{{ tools }}}}{{{{ messages[-1].content }}}}"
        )));
        let mut session = session(&model);
        let quote = model.tokenizer().encode("\"", false)[0];
        let (mut names, mut texts) = (Vec::new(), 0);
        for seed in 0..24 {
            let auto = seed % 2 == 1;
            let mut request = chat("call");
            request.tools = tools(if auto {
                ToolChoice::Auto
            } else {
                ToolChoice::Required
            });
            request.max_tokens = 300;
            request.sampling = Sampling {
                logit_bias: vec![(quote, 3.0), (model.tokenizer().eos().unwrap(), 3.0)],
                ..hot(seed)
            };
            let done = ask(&mut session, &request).unwrap();
            if done.finish != Finish::EndOfText {
                continue;
            }
            let Some(call) = done.tool_call else {
                assert!(auto && !done.text.contains(begin), "{words}: {}", done.text);
                texts += 1;
                continue;
            };
            assert!(
                auto || done.text.replace(['\n', ' '], "").starts_with(begin),
                "{words}: {}",
                done.text
            );
            assert!(call.id.len() == 9 && call.id.chars().all(|c| c.is_ascii_alphanumeric()));
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            let schema: Value = serde_json::from_str(TOOLS).unwrap();
            let schema = schema
                .as_array()
                .unwrap()
                .iter()
                .find(|t| t["function"]["name"] == *call.name);
            let schema = &schema.unwrap()["function"]["parameters"];
            assert!(
                schema.is_null() || jsonschema::is_valid(schema, &arguments),
                "{}",
                done.text
            );
            names.push(call.name);
        }
        names.sort();
        names.dedup();
        println!("{words}: {names:?}, {texts} texts");
        assert!(names.len() > 1 && texts > 3, "{words}: {names:?} {texts}");
    }
}

#[test]
fn several_calls_stand_in_one_answer() {
    for words in [
        "",
        "<|start_header_id|> ipython",
        "<tool_call></tool_call>",
        "<|tool_call|> Granite",
        "[TOOL_CALLS]",
        "[TOOL_CALLS][ARGS]",
    ] {
        let model = random(Some(&format!(
            "{{# {words} #}}{{{{ tools }}}}{{{{ messages[-1].content }}}}"
        )));
        let mut session = session(&model);
        let quote = model.tokenizer().encode("\"", false)[0];
        let mut counts = Vec::new();
        for seed in 0..24 {
            let auto = seed % 2 == 1;
            let choice = if auto {
                ToolChoice::Auto
            } else {
                ToolChoice::Required
            };
            let mut request = chat("call");
            request.tools = tools(choice).map(Tools::in_parallel);
            request.max_tokens = 400;
            request.sampling = Sampling {
                logit_bias: vec![(quote, 3.0)],
                ..hot(seed)
            };
            let done = ask(&mut session, &request).unwrap();
            if done.finish != Finish::EndOfText {
                continue;
            }
            assert!(
                auto || !done.tool_calls.is_empty(),
                "{words}: {}",
                done.text
            );
            assert_eq!(done.tool_call.as_ref(), done.tool_calls.first());
            // As many names as calls: none was passed over.
            let known = ["set_timer", "get_weather", "now"];
            let named = known.iter().map(|name| done.text.matches(name).count());
            assert!(
                done.tool_calls.is_empty() || done.tool_calls.len() == named.sum::<usize>(),
                "{words}: {}",
                done.text
            );
            let mut ids: Vec<&str> = done.tool_calls.iter().map(|call| &*call.id).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), done.tool_calls.len(), "{words}: {}", done.text);
            for call in &done.tool_calls {
                assert!(
                    serde_json::from_str::<Value>(&call.arguments)
                        .unwrap()
                        .is_object()
                );
            }
            counts.push(done.tool_calls.len());
        }
        println!("{words}: {counts:?}");
        assert!(counts.iter().any(|&n| n > 1), "{words}: {counts:?}");
    }
}

#[test]
fn what_constraints_share_is_counted() {
    let fine = constrained("x", Constraint::regex("fine"));
    let model = student();
    let options = session(&model).options();
    let (before, own) = (model.memory_for(&options), model.constraint_memory());
    assert_eq!(before.constraint, 0);
    assert!(own > 1 << 20);
    ask(&mut session(&model), &fine).unwrap();
    let after = model.memory_for(&options);
    assert_eq!(
        (after.constraint, after.anonymous() - before.anonymous()),
        (own, own)
    );
    // A limit that leaves room for the session alone.
    let limited = |memory_limit| {
        let options = OpenOptions {
            memory_limit: Some(memory_limit),
            ..OpenOptions::default()
        };
        let model = Model::open_with(student_path(), &options).unwrap();
        ask(&mut session(&model), &fine)
    };
    let error = limited(before.total() + own - 1).unwrap_err();
    assert!(
        matches!(error, Error::MemoryLimit { constraint, .. } if constraint == own),
        "{error}"
    );
    assert_eq!(limited(before.total() + own).unwrap().text, "fine");
}

#[test]
fn tools_that_mean_nothing_are_refused() {
    let item = |function: Value| json!([{ "type": "function", "function": function }]).to_string();
    for (text, part) in [
        ("{}".to_owned(), "another form"),
        ("[]".into(), "got 0"),
        ("[1]".into(), "got 1"),
        ("[".into(), "EOF"),
        (item(json!({ "name": "two words" })), "two words"),
        (item(json!({ "name": "f", "parameters": 7 })), "got 7"),
        (
            format!("[{0},{0}]", r#"{"function":{"name":"f"}}"#),
            "twice",
        ),
    ] {
        let error = Tools::from_json(&text, ToolChoice::Auto)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let unknown = Tools::from_json(TOOLS, ToolChoice::Named("none".into()));
    assert!(matches!(unknown, Err(Error::Tools { .. })));

    let model = student();
    let mut session = session(&model);
    let request = |prompt, constraint| Request {
        tools: tools(ToolChoice::Required),
        constraint,
        ..Request::new(prompt)
    };
    let text = request(Prompt::Text("set".into()), None);
    assert!(matches!(
        ask(&mut session, &text),
        Err(Error::InvalidOption {
            option: "tools",
            ..
        })
    ));
    let both = request(chat("set").prompt, Some(Constraint::regex("a")));
    assert!(matches!(
        ask(&mut session, &both),
        Err(Error::InvalidOption {
            option: "constraint",
            ..
        })
    ));
    let mut bad = request(chat("set").prompt, None);
    bad.tools = Some(
        Tools::from_json(
            &item(json!({ "name": "f", "parameters": { "type": "odd" } })),
            ToolChoice::Auto,
        )
        .unwrap(),
    );
    assert!(matches!(
        ask(&mut session, &bad),
        Err(Error::Constraint { .. })
    ));
}
