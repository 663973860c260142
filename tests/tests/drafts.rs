//! Drafts under a constraint: what is guessed and breaks it is rejected, and the answer is that of a token at a time.

use dram_core::{
    Completion, Constraint, Model, OpenOptions, Prompt, Request, Sampling, Session, SessionOptions,
    Speculation, gguf,
};
use dram_tests::toy::Shape;
use std::ops::ControlFlow;

fn model() -> Model {
    let file = gguf::File::from_bytes("random.gguf", Shape::default().gguf().bytes()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

fn ask(session: &mut Session, sampling: &Sampling) -> Completion {
    let request = Request {
        // Looking up foresees a letter that has just been there, where the expression wants the other pair.
        constraint: Some(Constraint::regex("([ab]{5}[cd]{5}){6}")),
        sampling: sampling.clone(),
        max_tokens: 100,
        ..Request::new(Prompt::Text("abc".into()))
    };
    session
        .generate(&request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

#[test]
fn drafts_do_not_change_what_a_constraint_makes_of_an_answer() {
    let model = model();
    let mut session = model.session(SessionOptions::default()).unwrap();
    let (mut drafted, mut accepted) = (0, 0);
    for seed in 0..6 {
        let sampling = Sampling {
            temperature: if seed == 0 { 0.0 } else { 0.7 },
            seed,
            ..Sampling::default()
        };
        session.set_speculation(&Speculation::Off).unwrap();
        let expected = ask(&mut session, &sampling);
        assert_eq!(expected.text.len(), 60, "{}", expected.text);
        session.set_speculation(&Speculation::lookup(1)).unwrap();
        let got = ask(&mut session, &sampling);
        assert_eq!(got.tokens, expected.tokens, "seed {seed}");
        assert_eq!(got.finish, expected.finish);
        drafted += got.drafted_tokens;
        accepted += got.accepted_tokens;

        // The same model as its own draft: greedy answers stay, sampled ones still keep to the expression.
        let own = Speculation::Draft {
            model: model.clone(),
            most: 5,
        };
        session.set_speculation(&own).unwrap();
        let got = ask(&mut session, &sampling);
        let letter = |(i, c): (usize, char)| if i % 10 < 5 { "ab" } else { "cd" }.contains(c);
        assert!(got.text.chars().enumerate().all(letter), "{}", got.text);
        assert_eq!(got.text.len(), 60);
        if seed == 0 {
            assert_eq!(got.tokens, expected.tokens);
        }
    }
    println!("{accepted} of {drafted} drafted tokens accepted");
    assert!(
        0 < accepted && accepted < drafted,
        "{accepted} of {drafted}"
    );
}
