use super::*;
use crate::{Error, Result};
use std::time::{Duration, Instant};

fn render(template: &str) -> Result<String> {
    let messages = [
        Message::new("system", "Be brief."),
        Message::new("user", " Hello "),
    ];
    Chat {
        messages: &messages,
        bos: "<s>",
        eos: "</s>",
        add_generation_prompt: true,
        ..Chat::default()
    }
    .render(template)
}

#[test]
fn renders_a_template_with_python_methods() {
    let template = "{{ bos_token }}{% for m in messages %}\n<|{{ m['role'] }}|>{{ m.content.strip() }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
    assert_eq!(
        render(template).unwrap(),
        "<s><|system|>Be brief.</s><|user|>Hello</s><|assistant|>"
    );
}

#[test]
fn a_bad_template_is_an_error_that_says_where_and_why() {
    for (template, expected) in [
        ("{% for m in %}", "line 1: expected an expression, got `%}`"),
        (
            "\n{{ raise_exception('only user turns') }}",
            "line 2: only user turns",
        ),
        (
            "a\n{{ x.y }}",
            "line 2: an undefined value has no attribute `y`",
        ),
        ("{{ 'a' | nope }}", "no filter named `nope`"),
        ("{% include 'x' %}", "reads no other template"),
    ] {
        let message = render(template).unwrap_err().to_string();
        assert!(message.contains("chat template"), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

/// Templates that grow, nest or go on without end. Each is an error soon, on any thread, however small its stack.
#[test]
fn hostile_templates_are_errors_within_bounds() {
    let grow = |step: &str, end: &str| {
        format!(
            "{{% set ns = namespace(x=[1], y=[1], s='a&') %}}{{% for i in range(99999) %}}{step}{{% endfor %}}{end}"
        )
    };
    let deep = "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}";
    let few = |end: &str| grow(deep, end).replace("99999", "60");
    let nest = |open: &str, middle: &str, close: &str, n: usize| {
        [&open.repeat(n), middle, &close.repeat(n)].concat()
    };
    let mut templates = vec![
        // Values that hold each other.
        grow("{% set ns.x = [ns.x] %}", "ok"),
        grow("{% set ns.x = [ns.x] %}", "ok").replace("99999", "200"),
        grow("{% set ns.x = {'a': ns.x} %}", "ok"),
        grow("{% set ns.x = (ns.x,) %}", "ok"),
        grow("{% set ns.x = ns.x | list | batch(1) | list %}", "ok"),
        grow("{% set ns.x = [ns.x].copy %}", "ok"),
        grow(
            "{% for j in [ns.x] %}{% set ns.x = loop %}{% endfor %}",
            "ok",
        ),
        grow("{% set ns.x = namespace(x=ns.x) %}", "{{ ns }}"),
        grow("{% set ns.x = ns %}", "{{ ns }}"),
        grow("{% set ns.x = dict(a=ns.x) %}", "ok"),
        // Values that hold another twice, sixty times over.
        few("{{ ns.x | tojson }}"),
        few("{{ ns.x | tojson(indent=4) }}"),
        few("{{ ns.x }}"),
        few("{{ '' ~ ns.x }}"),
        few("{{ ns.x == ns.y }}"),
        few("{{ ns.x < ns.y }}"),
        few("{{ ns.x in [ns.y] }}"),
        few("{{ [ns.x, ns.y] | unique | list | length }}"),
        few("{{ [ns.x, ns.y] | sort | length }}"),
        few("{{ [ns.x] | join }}"),
        few("{{ ns.x | string | length }}"),
        few("{{ '%s' % ns.x }}"),
        few("{{ '{}'.format(ns.x) }}"),
        few("{{ ns.x | upper }}"),
        few("{{ {(ns.x,): 1, (ns.y,): 2} }}"),
        // Texts and lists that double.
        grow("{% set ns.s = ns.s + ns.s %}", ""),
        grow("{% set ns.s = ns.s ~ ns.s %}", ""),
        grow("{% set ns.s = ns.s * 2 %}", ""),
        grow("{% set ns.x = ns.x + ns.x %}", ""),
        grow("{% set ns.x = ns.x * 2 %}", ""),
        grow("{% set ns.s = [ns.s, ns.s] | join %}", ""),
        grow("{% set ns.s = ns.s | replace('a', ns.s) %}", ""),
        grow("{% set ns.s = ns.s.replace('', ns.s) %}", ""),
        grow("{% set ns.s = '{0}{0}'.format(ns.s) %}", ""),
        grow("{% set ns.s = '%s%s' % (ns.s, ns.s) %}", ""),
        grow("{% set ns.s = ns.s | indent(i * 1000, true) %}", ""),
        grow("{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}", ""),
        grow("{{ 'x' * 100000 }}", ""),
        grow("{% set ns.x = ns.x + ['y' * 100000] %}", ""),
        grow("{% set ns.s = ns.s | tojson %}", ""),
        grow("{% set ns.s = ns.s | urlencode %}", ""),
        grow("{% set ns.s = (ns.s | e) ~ '' %}", ""),
        grow(
            "{% set ns.x = ns.x + [namespace(**{'k' * 100000: 1})] %}",
            "",
        ),
        grow("{% set ns.x = ns.x + [ns.s.upper] %}", ""),
        // One step that asks for much.
        "{{ '{:>1000000000}'.format(1) }}".into(),
        "{{ '{:.1000000000f}'.format(1.0) }}".into(),
        "{{ '{:{}}'.format(1, 1000000000) }}".into(),
        "{{ '%1000000000d' % 1 }}".into(),
        "{{ 'a' * 10 ** 12 }}".into(),
        "{{ [1] * 10 ** 12 }}".into(),
        "{{ 10 ** 10 ** 10 }}".into(),
        "{{ range(10 ** 12) }}".into(),
        "{{ 'a'.center(10 ** 10) }}".into(),
        "{{ 'a'.ljust(10 ** 10) }}".into(),
        "{{ '1'.zfill(10 ** 10) }}".into(),
        "{{ 'a' | center(10 ** 10) }}".into(),
        "{{ 'a' | indent(10 ** 10, true) }}".into(),
        "{{ [1] | batch(10 ** 10, 1) | list }}".into(),
        "{{ [1] | slice(10 ** 10) | list }}".into(),
        "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}".into(),
        "{{ ('a' * 1000000).split('a') | length }}".into(),
        "{{ ('a ' * 4000000).split() | length }}".into(),
        // Steps.
        grow("{% for j in range(99999) %}{% endfor %}", ""),
        "{% for i in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}".into(),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(),
        "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(),
        "{% macro f() %}{% call f() %}{% endcall %}{% endmacro %}{{ f() }}".into(),
        // Names that differ at their end alone, looked for again and again.
        format!(
            "{{% set k = 'k' * 8000 %}}{{% set ns = namespace(p=[]) %}}{{% for i in range(700) %}}{{% set ns.p = ns.p + [(k ~ i, i)] %}}{{% endfor %}}{{% set d = dict(ns.p) %}}{{% set n = k ~ 'x' %}}{}",
            "{% for i in range(99999) %}{{ d[n] }}{% endfor %}".repeat(40)
        ),
        "{% set ns = namespace(p=[]) %}{% for i in range(9999) %}{% set ns.p = [('k' ~ i, i)] + ns.p[:50] %}{% endfor %}{% set d = dict(ns.p, **{'x': 1}) %}{% for i in range(99) %}{{ ('{x}' * 1000000).format(**d) }}{% endfor %}".into(),
        "{{ range(1, 0 - 2 ** 126 - 2 ** 126, -1) }}".into(),
        // Sources.
        format!("{{{{ 1 | {}a }}}}", "a.".repeat(30_000)),
        format!("{{{{ {} }}}}", vec!["1"; 6000].join("+")),
        format!("{{{{ {} }}}}", vec!["1"; 6000].join(" and ")),
        format!("{{{{ {} }}}}", vec!["1"; 6000].join(" if 1 else ")),
        format!("{{{{ {}1 }}}}", "-".repeat(6000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(6000)),
        format!("{{{{ x{} }}}}", ".a".repeat(6000)),
        format!("{{{{ x{} }}}}", "[0]".repeat(6000)),
        format!("{{{{ x{} }}}}", "()".repeat(6000)),
        format!("{{{{ 1{} }}}}", "|string".repeat(6000)),
        format!("{{{{ 1{} }}}}", " is defined".repeat(6000)),
        nest("{{ ", &nest("(", "1", ")", 6000), " }}", 1),
        nest("{{ ", &nest("[", "1", "]", 6000), " }}", 1),
        nest("{{ ", &nest("{1:", "1", "}", 6000), " }}", 1),
        nest("{{ ", &nest("x[", "1", "]", 6000), " }}", 1),
        nest("{{ ", &nest("f(", "1", ")", 6000), " }}", 1),
        nest("{% if 1 %}", "x", "{% endif %}", 3000),
        nest("{% for i in [1] %}", "x", "{% endfor %}", 3000),
        nest("{% macro f() %}", "x", "{% endmacro %}", 3000),
        nest("{% set x %}", "x", "{% endset %}", 3000),
        nest("{% generation %}", "x", "{% endgeneration %}", 3000),
        format!("{{% set {}x = 1 %}}", "(".repeat(6000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(2200)),
        "x".repeat(1 << 20),
        "{{ 1".into(),
        "{% raw %}".into(),
        "{# ".into(),
    ];
    templates.push(grow(
        "{% set x %}{% endset %}{% set ns.y = ns.y + [x] %}",
        "",
    ));
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let all = move || {
        for template in &templates {
            let begin = Instant::now();
            let result = render(template);
            let took = begin.elapsed();
            let shown: String = template.chars().take(160).collect();
            assert!(
                matches!(result, Err(Error::ChatTemplate { .. })),
                "{shown}: {:?}",
                result.map(|text| text.chars().take(100).collect::<String>())
            );
            assert!(took < Duration::from_secs(10), "{shown}: {took:?}");
            println!("{took:>12?} {shown}");
        }
    };
    small.spawn(all).unwrap().join().unwrap();
}

#[test]
fn a_rendering_is_cancelled() {
    let template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let chat = Chat::default();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2;
    let result = chat.render_until(template, &stop);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

#[test]
fn long_conversations_render() {
    let turn = |i: usize| Message::new(["user", "assistant"][i % 2], "word ".repeat(100));
    let messages: Vec<Message> = (0..20_000).map(turn).collect();
    let chat = Chat {
        messages: &messages,
        ..Chat::default()
    };
    let template = "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}{{ ns.last }}";
    let text = chat.render(template).unwrap();
    assert!(text.ends_with("<|im_end|>\n19998"));
}

/// Expected: what Python's Jinja2 gives; the comparison with it is in the leg `peers`.
#[test]
fn values_are_pythons() {
    for (template, expected) in [
        (
            "{{ none is iterable }} {{ x is iterable }} {{ 'a' is iterable }}",
            "False True True",
        ),
        ("{{ {'é': '🙂\"\\n'} | tojson }}", "{\"é\": \"🙂\\\"\\n\"}"),
        (
            "{{ 'é🙂' | tojson(ensure_ascii=true) }}",
            "\"\\u00e9\\ud83d\\ude42\"",
        ),
        (
            "{{ {'b': [1, 2.0], 'a': none} | tojson(sort_keys=true, separators=(',', ':')) }}",
            "{\"a\":null,\"b\":[1,2.0]}",
        ),
        (
            "{{ [1, {'a': []}] | tojson(indent=2) }}",
            "[\n  1,\n  {\n    \"a\": []\n  }\n]",
        ),
        (
            "{{ [1, 'a', none, true, 1e20, 1e-5, {'a': ('x',)}] }}",
            "[1, 'a', None, True, 1e+20, 1e-05, {'a': ('x',)}]",
        ),
        (
            "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ 1.5 | round }}",
            "-4 2 3.5 0.5 2.0",
        ),
        (
            "{% for i in [1, 2] %}{{ x }}{% set x = i %}{% endfor %}{{ x }}",
            "",
        ),
        (
            "{{ 'abcd'[::-1] }}{{ [1, 2, 3][-2:] }}{{ 'abc'[5] }}",
            "dcba[2, 3]",
        ),
        (
            "{% for c in [1] %}{% if false %}x{% endif %}[{{ c }}]{% endfor %}",
            "[1]",
        ),
        (
            "{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a  b '.split() }}",
            "['a,b', 'c']['a', 'b']",
        ),
    ] {
        assert_eq!(render(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn reasoning_has_the_name_that_the_template_asks_for() {
    let messages = [Message {
        reasoning: Some("because".into()),
        ..Message::new("assistant", "so")
    }];
    for name in REASONING {
        let template = format!(
            "{{% for m in messages %}}{{% if m.{name} is defined %}}<{{{{ m.{name} }}}}>{{% endif %}}{{{{ m.content }}}}{{% endfor %}}"
        );
        let chat = Chat {
            messages: &messages,
            ..Chat::default()
        };
        assert_eq!(chat.render(&template).unwrap(), "<because>so");
    }
}

#[test]
fn variables_are_given_beside_the_conversations_own() {
    let variables = [("think", "false"), ("who", "Ann \"A\""), ("messages", "1")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let messages = [Message::new("user", "hi")];
    let chat = Chat {
        messages: &messages,
        variables: &variables,
        ..Chat::default()
    };
    let template = "{{ think is false }} {{ who }} {{ messages[0].content }} {{ documents }}";
    assert_eq!(chat.render(template).unwrap(), "True Ann \"A\" hi None");
}
