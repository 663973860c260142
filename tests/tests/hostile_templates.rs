//! Chat templates in model files that go on without end: a request with one is an error soon, or ends at once when it is cancelled.

use dram_core::{
    Error, Finish, Message, Model, OpenOptions, Prompt, Request, SessionOptions, gguf,
};
use dram_tests::gguf::Value;
use dram_tests::toy::Shape;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

fn model(template: &str) -> Model {
    let mut file = Shape::default().gguf();
    file.set("tokenizer.chat_template", Value::Str(template.into()));
    let file = gguf::File::from_bytes("hostile.gguf", file.bytes()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

#[test]
fn a_hostile_template_ends_its_request_and_nothing_else() {
    let steps = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let deep = "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}ok";
    let wide = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}";
    for template in [steps, deep, wide] {
        let model = model(template);
        let mut session = model.session(SessionOptions::default()).unwrap();
        let chat = Request::new(Prompt::Chat(vec![Message::new("user", "hi")]));
        let begin = Instant::now();
        let result = session.generate(&chat, &mut |_| ControlFlow::Continue(()));
        assert!(
            matches!(result, Err(Error::ChatTemplate { .. })),
            "{result:?}"
        );
        assert!(begin.elapsed() < Duration::from_secs(10), "{template}");
        // The session goes on.
        let text = Request {
            max_tokens: 2,
            ..Request::new(Prompt::Tokens(vec![1, 2]))
        };
        let completion = session.generate(&text, &mut |_| ControlFlow::Continue(()));
        assert_eq!(completion.unwrap().prompt_tokens, 2);
    }
}

#[test]
fn a_request_is_cancelled_while_its_template_is_rendered() {
    let model =
        model("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
    let mut session = model.session(SessionOptions::default()).unwrap();
    session.cancel_token().cancel();
    let chat = Request::new(Prompt::Chat(vec![Message::new("user", "hi")]));
    let completion = session.generate(&chat, &mut |_| ControlFlow::Continue(()));
    assert_eq!(completion.unwrap().finish, Finish::Cancelled);
}
