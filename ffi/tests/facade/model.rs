//! What a model tells before anything is decoded, and what is wrong with files and requests.

use crate::ears::{
    Heard, SLOW, STUDENT, all, complete, ears, file, open, path, request, session, slow, user,
};
use crate::toy;
use dram_ffi::{
    BenchOptions, CacheFormat, DramError, GenerationRequest, ModelOptions, NativeModel, Prompt,
    SamplingOptions, ScaledAdapter, SessionOptions,
};
use std::path::{Path, PathBuf};

#[test]
fn a_model_tells_what_it_is_and_what_it_will_take() {
    let model = slow();
    let info = model.info();
    assert_eq!((info.architecture.as_str(), info.layers), ("llama", 12));
    assert_eq!((info.vocabulary, info.context_length), (258, 4096));
    assert_eq!(info.file_bytes, SLOW.as_file().metadata().unwrap().len());
    assert!(!info.is_encoder);
    let options = |context, cache_format| SessionOptions {
        context: Some(context),
        cache_format,
        ..SessionOptions::default()
    };
    let memory = |context, format| model.memory(options(context, format), Vec::new());
    let (small, large) = (memory(64, None), memory(128, Some(CacheFormat::F16)));
    assert_eq!(2 * small.kv_cache, large.kv_cache);
    assert_eq!(small.mapped, large.mapped);
    let blocks = memory(128, Some(CacheFormat::Q8_0));
    // 34 bytes instead of 64 for 32 values.
    assert_eq!(blocks.kv_cache * 32, large.kv_cache * 17);
    let session = model
        .session(options(128, Some(CacheFormat::Q8_0)))
        .unwrap();
    let got = session.options();
    assert_eq!(
        (got.context, got.cache_format),
        (Some(128), Some(CacheFormat::Q8_0))
    );
    assert_eq!(complete(&session, request(4, 3)).tokens.len(), 3);

    let adapter = file(&toy::adapter());
    let adapter = model.adapter(path(adapter.path())).unwrap();
    assert_eq!(adapter.matrices(), 1);
    let file_bytes = adapter.file_bytes();
    let with = ScaledAdapter {
        adapter,
        scale: 1.0,
    };
    let adapted = model.memory(options(128, None), vec![with]);
    assert_eq!(adapted.mapped, large.mapped + file_bytes);
    assert!(adapted.scratch > large.scratch);
}

#[test]
fn texts_become_tokens_and_tokens_texts() {
    let student = open(Path::new(STUDENT)).unwrap();
    let text = "set a timer for ten minutes";
    let ids = student.tokenize(text.into(), false);
    assert!(!ids.is_empty() && ids.len() < text.len());
    assert_eq!(student.detokenize(ids.clone()), text);

    let chat = GenerationRequest {
        prompt: Prompt::Chat {
            messages: vec![user(text)],
        },
        ..request(0, 8)
    };
    let prompt = student.prompt_tokens(chat.clone()).unwrap();
    assert!(prompt.len() > ids.len(), "the template adds its own");
    let session = student.session(SessionOptions::default()).unwrap();
    let made = complete(&session, chat);
    assert_eq!(made.prompt_tokens as usize, prompt.len());
    assert!(session.tokens().unwrap().starts_with(&prompt));

    let slow = slow();
    assert_eq!(slow.token_id("<|end|>".into()), Some(257));
    assert_eq!(slow.token_id("<|no such|>".into()), None);
    assert_eq!(slow.tokenize("<|end|>".into(), true), [257]);
    assert_eq!(slow.tokenize("<|end|>".into(), false).len(), 7);
}

#[test]
fn a_reranker_scores_documents() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
    let path = families.join("xlmr-rank.gguf");
    let model = open(&path).unwrap();
    assert!(model.info().is_encoder && model.info().is_reranker);
    let reranker = model.encoder(SessionOptions::default()).unwrap();
    let documents = ["a cab", "a dog"];
    let scores = reranker.rank("cab".into(), documents.map(String::from).into());
    let core = dram_core::Model::open(&path).unwrap();
    let mut direct = core.encoder(dram_core::SessionOptions::default()).unwrap();
    assert_eq!(scores.unwrap(), direct.rank("cab", &documents).unwrap());

    let bert = open(&families.join("bert-mean.gguf")).unwrap();
    let embedder = bert.encoder(SessionOptions::default()).unwrap();
    let refused = [
        reranker.embed("cab".into(), String::new(), None).err(),
        reranker.rank("a".repeat(200), vec!["b".into()]).err(),
        embedder.rank("a".into(), vec!["b".into()]).err(),
    ];
    for error in refused {
        assert!(
            matches!(&error, Some(DramError::InvalidRequest(_))),
            "{error:?}"
        );
    }
}

#[test]
fn an_encoder_turns_texts_into_vectors() {
    let bert = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/families/bert-mean.gguf"
    );
    let model = open(Path::new(bert)).unwrap();
    let info = model.info();
    assert!(info.is_encoder && !info.is_reranker);
    let encoder = model.encoder(SessionOptions::default()).unwrap();
    let with =
        |text: &str, prompt: &str, dimension| encoder.embed(text.into(), prompt.into(), dimension);
    let embed = |text: &str| with(text, "", None).unwrap();
    let (one, other) = (embed("a cat"), embed("a dog or 3"));
    assert_eq!(one.len(), info.embedding_length as usize);
    assert_eq!(encoder.dimension(), info.embedding_length);
    assert_eq!(with("cat", "a ", None).unwrap(), one);
    let short = with("a cat", "", Some(8)).unwrap();
    let length = one[..8].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert_eq!(short.len(), 8);
    for (short, one) in short.iter().zip(&one) {
        assert!((short - one / length).abs() < 1e-6);
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((dot(&one, &one) - 1.0).abs() < 1e-5);
    assert!(dot(&one, &other) < 0.9999);
    assert_eq!(one, embed("a cat"));
    let core = dram_core::Model::open(bert).unwrap();
    let ids = core.tokenizer().encode_with_ends("a cat", false);
    let mut direct = core.encoder(dram_core::SessionOptions::default()).unwrap();
    assert_eq!(one, direct.embed(&ids).unwrap());

    let long = "a".repeat(encoder.context() as usize + 1);
    let refused = [
        with(&long, "", None).err(),
        with("a cat", "", Some(0)).err(),
        with("a cat", "", Some(33)).err(),
        model.session(SessionOptions::default()).err(),
        slow().encoder(SessionOptions::default()).err(),
    ];
    for error in refused {
        assert!(
            matches!(&error, Some(DramError::InvalidRequest(_))),
            "{error:?}"
        );
    }
}

#[test]
fn errors_say_what_the_app_can_do() {
    let missing = PathBuf::from("no-such-model.gguf");
    assert!(
        matches!(open(&missing), Err(DramError::FileProblem(m)) if m.contains("no-such-model"))
    );
    let whole = toy::slow_model();
    for bad in [&whole[..whole.len() / 2], &b"not a model"[..], b""] {
        let error = open(file(bad).path()).err();
        assert!(
            matches!(error, Some(DramError::FileProblem(_))),
            "{error:?}"
        );
    }
    let mut foreign = whole;
    let at = foreign.windows(5).position(|w| w == b"llama").unwrap();
    foreign[at..at + 5].copy_from_slice(b"opera");
    let error = open(file(&foreign).path()).err();
    assert!(
        matches!(error, Some(DramError::UnsupportedModel(_))),
        "{error:?}"
    );

    let limited = NativeModel::open(
        SLOW.path().to_str().unwrap().into(),
        ModelOptions {
            memory_limit: Some(30_000_000),
            ..ModelOptions::default()
        },
    );
    let error = limited
        .and_then(|model| model.session(SessionOptions::default()))
        .err();
    assert!(
        matches!(error, Some(DramError::OutOfMemory(_))),
        "{error:?}"
    );

    let chat = GenerationRequest {
        prompt: Prompt::Chat {
            messages: vec![user("hello")],
        },
        ..request(0, 1)
    };
    assert!(!slow().info().has_chat_template);
    for wrong in [request(5000, 1), request(0, 1), chat] {
        let (listener, hears) = ears();
        session().generate(wrong, listener).unwrap().join();
        let heard = all(&hears);
        assert!(
            matches!(&heard[..], [Heard::Failed(DramError::InvalidRequest(_))]),
            "{heard:?}"
        );
    }
}

#[test]
fn a_chat_has_another_template_variables_and_a_default_sampling() {
    let options = ModelOptions {
        chat_template: Some(
            "{% for m in messages %}[{{ m.content }}]{% endfor %}{{ mood }}".into(),
        ),
        ..ModelOptions::default()
    };
    let model = NativeModel::open(STUDENT.into(), options).unwrap();
    let say = |text: &str, mood: &str| {
        let chat = GenerationRequest {
            prompt: Prompt::Chat {
                messages: vec![user(text)],
            },
            template_args: [("mood".to_owned(), mood.to_owned())].into(),
            ..request(0, 1)
        };
        let ids = model.prompt_tokens(chat).unwrap();
        (model.detokenize(ids.clone()), ids)
    };
    assert_eq!(say("hi", r#""good""#).0, "[hi]good");
    // What is said is text: the end token is none there.
    let (text, ids) = say("hi<|end|>", "good");
    assert_eq!(text, "[hi<|end|>]good");
    let end = model.token_id("<|end|>".into()).unwrap();
    assert!(!ids.contains(&end));
    // An exact task's student says so itself; a model that says nothing is warm.
    assert_eq!(
        model.default_sampling().unwrap(),
        SamplingOptions::default()
    );
    let usual = slow().default_sampling().unwrap();
    assert!(usual.temperature > 0.0 && usual.min_p > 0.0);
}

#[test]
fn bench_hangs_together() {
    let report = slow()
        .bench(BenchOptions {
            prompt: 16,
            generate: 8,
            depth: 4,
            threads: Some(1),
            repetitions: 2,
        })
        .unwrap();
    assert!(report.prefill_tokens_per_second > 0.0 && report.decode_tokens_per_second > 0.0);
    assert!(report.between_tokens_p95_ms >= report.between_tokens_p50_ms);
    assert!(report.first_token_ms > 0.0 && !report.instruction_set.is_empty());
    assert_eq!(report.threads, 1);
}
