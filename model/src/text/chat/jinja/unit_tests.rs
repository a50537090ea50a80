//! Tests of the engine that need no golden data: limits above all.

use serde_json::{Map, json};

use crate::TextError;
use crate::text::chat::{ChatTemplates, Conversation};

fn render(text: &str) -> Result<String, TextError> {
    ChatTemplates::from_source(text)?.render_with("default", &Map::new(), Some(1_735_689_600))
}

/// Three quarters of the stack of WASM.
const STACK: usize = 768 << 10;

/// What limit a template passes; on a small stack.
#[expect(clippy::unnecessary_wraps, reason = "what is compared with is optional")]
fn limit(text: &str) -> Option<&'static str> {
    let text = text.to_owned();
    let thread =
        std::thread::Builder::new().stack_size(STACK).spawn(move || render(&text)).expect("a thread");
    match thread.join().expect("no panic") {
        Err(TextError::TemplateLimit { what, got, limit }) => {
            assert!(got > limit, "{what}: {got} of {limit}");
            Some(what)
        }
        other => {
            let shown = format!("{other:?}");
            panic!("no limit: {}", shown.chars().take(200).collect::<String>())
        }
    }
}

#[test]
fn memory_is_limited() {
    let doubled = |start: &str, step: &str, end: &str| {
        format!(
            "{{% set ns = namespace(x={start}) %}}{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}{{{{ {end} }}}}"
        )
    };
    let memory = Some("bytes of memory");
    for step in [
        "ns.x + ns.x",
        "ns.x ~ ns.x",
        "ns.x * 2",
        "[ns.x, ns.x] | join",
        "ns.x | replace('a', 'aa')",
        "ns.x.replace('a', 'aa')",
        "'%s%s' % (ns.x, ns.x)",
        "'%s%s' | format(ns.x, ns.x)",
        "'{}{}'.format(ns.x, ns.x)",
        "ns.x.join([ns.x, ns.x, ns.x])",
        "(ns.x ~ '\n' ~ ns.x) | indent(9, true)",
        "ns.x | urlencode ~ ns.x",
        "ns.x | e ~ ns.x",
        "[ns.x, ns.x] | tojson",
        "[ns.x, ns.x] | string",
        "ns.x | upper ~ ns.x",
    ] {
        // What looks at every character may run out of steps before.
        let what = limit(&doubled("'aaaa'", step, "ns.x|length"));
        let by_character =
            ["replace", "tojson", "string", "urlencode", ".format"].iter().any(|word| step.contains(word));
        assert!(what == memory || (by_character && what == Some("steps")), "{step}: {what:?}");
    }
    for step in ["ns.x + ns.x", "ns.x * 2", "(ns.x|list) + (ns.x|list)", "ns.x + ns.x|reverse|list"] {
        // What makes a list item by item may run out of steps before.
        let what = limit(&doubled("[1]", step, "ns.x|length"));
        assert!(what == memory || (step.contains("|list") && what == Some("steps")), "{step}: {what:?}");
    }
    for text in [
        "{{ 'a' * 99999999999999999999 }}",
        "{{ 'a'.center(9999999999) }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{{ 'a'.zfill(9999999999) }}",
        "{{ 'a\tb'.expandtabs(9999999999) }}",
        "{{ 'a' | center(9999999999) }}",
        "{{ 'a' | indent(9999999999, true) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{{ '{:9999999999}'.format('a') }}",
        "{{ [1] * 9999999999 }}",
        "{{ [1] | batch(9999999999, 0) | list }}",
        "{{ [1] | slice(9999999999) | list }}",
        "{{ {} | tojson(indent=9999999999) }}",
        "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='aaaa') %}\
         {% for i in range(60) %}{% set ns.x = f(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}\
         {% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    ] {
        assert_eq!(limit(text), memory, "{text}");
    }
}

/// Names cost what looking them up costs: their bytes, in each of the blocks around.
#[test]
fn long_names_and_deep_blocks_cost_steps() {
    let name = "a".repeat(20_000);
    assert_eq!(
        limit(&format!("{{% for i in range(99999) %}}{{% set x = {name} %}}{{% endfor %}}")),
        Some("steps")
    );
    let (open, close) = ("{% for a in [1] %}".repeat(70), "{% endfor %}".repeat(70));
    let inner = "{% for b in range(9999) %}{% set x = [n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n] %}{% endfor %}";
    assert_eq!(limit(&format!("{open}{inner}{inner}{close}")), Some("steps"));
    // What is said of an undefined value holds the beginning of its name.
    let error = render(&format!("{{{{ {name}.x }}}}")).expect_err("undefined");
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn a_text_that_grows_is_charged_for_its_room() {
    assert_eq!(limit("{{ 'ab' | indent(116905441, true) }}"), Some("bytes of memory"));
    assert_eq!(render("{{ ('ab' | indent(50000000, true)) | length }}").expect("fits"), "50000002");
}

#[test]
fn nothing_many_times_is_nothing() {
    assert_eq!(render("{{ '' * 2147483646 }}{{ [] * 2147483646 }}").expect("nothing"), "[]");
}

#[test]
fn output_and_work_are_limited() {
    let million = "{% set ns = namespace(x='a' * 1000000) %}";
    assert_eq!(
        limit(&format!("{million}{{% for i in range(100) %}}{{{{ ns.x }}}}{{% endfor %}}")),
        Some("bytes of output")
    );
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let doubled = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}\
        {% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";
    for text in [
        loops,
        "{% for a in range(99999) %}{% set x = range(99999) | sort | list %}{% endfor %}",
        "{% for a in range(99999) %}{% set x = 'a' in ('b' * 1000000) %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        &format!("{doubled}{{{{ ns.x == ns.y }}}}"),
        &format!("{doubled}{{{{ ns.x < ns.y }}}}"),
    ] {
        assert_eq!(limit(text), Some("steps"), "{text}");
    }
    for text in [
        // Many names, long names, many arguments: what is looked up by name costs no more for it.
        &format!(
            "{{% set ns = namespace({}) %}}{loops}",
            (0..9999).map(|i| format!("a{i}=1")).collect::<Vec<_>>().join(",")
        ),
        "{% set l = ['map'] * 1000000 %}{% for i in range(9999) %}{% set x = 'a' | map(*l) | list %}{% endfor %}",
        "{{ ('a' * 1000000) | wordwrap(1) }}",
        "{% set s = '\n' * 10000000 %}{% for i in range(9999) %}{% set x = s | tojson | length %}{% endfor %}",
        "{% set s = '%(a)s' * 1000000 %}{% for i in range(9999) %}{% set x = s % {'a': 1} %}{% endfor %}",
    ] {
        assert!(limit(text).is_some(), "{}", text.chars().take(100).collect::<String>());
    }
    // What is shared within a value is written out as often as it occurs.
    for text in ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x | pprint }}", "{{ [ns.x] | join }}"] {
        assert!(limit(&format!("{doubled}{text}")).is_some(), "{text}");
    }
    assert_eq!(limit("{{ range(100001) }}"), Some("items of a range"));
}

#[test]
fn nesting_is_limited() {
    let nested = Some("blocks and brackets inside each other");
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("f(", "1", ")"),
        ("x[", "1", "]"),
        ("1 if 1 else ", "1", ""),
        ("x if (", "1", ")"),
        ("x is a(", "1", ")"),
        ("x|a(", "1", ")"),
    ] {
        for count in [100, 20_000] {
            let text = format!("{{{{ {}{inner}{} }}}}", open.repeat(count), close.repeat(count));
            assert_eq!(limit(&text), nested, "{open}");
        }
    }
    for block in
        ["if 1", "for x in y", "with", "filter upper", "macro f()", "call f()", "set x", "generation"]
    {
        for count in [100, 20_000] {
            assert_eq!(limit(&format!("{{% {block} %}}").repeat(count)), nested, "{block}");
        }
    }
    let target = format!("{{% for {}x{} in y %}}{{% endfor %}}", "(".repeat(20_000), ")".repeat(20_000));
    assert_eq!(limit(&target), nested);
    let deep = "{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert_eq!(limit(deep), Some("lists and dictionaries inside each other"));
    let calls = Some("calls and expressions inside each other");
    assert_eq!(limit("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), calls);
    assert_eq!(
        limit("{% macro f(x) %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}"),
        calls
    );
    assert_eq!(limit("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), calls);
    assert_eq!(limit("{{ 'a' | map(*(['map'] * 5000)) | list }}"), calls);
    assert_eq!(limit(&"x".repeat(600 << 10)), Some("bytes of source"));
}

/// Chains are lists, however long: they are computed, or fail for what they compute.
#[test]
fn chains_are_no_nesting() {
    let on_a_small_stack = |text: String| {
        let thread =
            std::thread::Builder::new().stack_size(STACK).spawn(move || render(&text)).expect("a thread");
        thread.join().expect("no panic")
    };
    let count = 20_000;
    for (start, step, want) in [
        ("'a'", "~'b'", Some(format!("a{}", "b".repeat(count)))),
        ("1", "+1", Some((count + 1).to_string())),
        ("1", " and 1", Some("1".into())),
        ("0", " or 0", Some("0".into())),
        ("1", "<=1", Some("True".into())),
        ("1", "**1", Some("1".into())),
        ("1", "*1", Some("1".into())),
        ("1", "|abs", Some("1".into())),
        ("[]", "[:]", Some("[]".into())),
        ("'a'", ".lower()", Some("a".into())),
        ("'a'", " 'a'", Some("a".repeat(count + 1))),
        ("x", ".y", None),
    ] {
        let got = on_a_small_stack(format!("{{{{ {start}{} }}}}", step.repeat(count))).ok();
        assert!(got == want, "{start}{step}: {got:?}");
    }
    for (step, want) in [("not ", "True"), ("- ", "1"), ("+ ", "1")] {
        let got = on_a_small_stack(format!("{{{{ {}1 }}}}", step.repeat(count))).expect("renders");
        assert_eq!(got, want, "{step}");
    }
    let branches = format!("{{% if 0 %}}{}{{% else %}}x{{% endif %}}", "{% elif 0 %}".repeat(count));
    assert_eq!(on_a_small_stack(branches).expect("renders"), "x");
    assert_eq!(on_a_small_stack("{{ 1 }}".repeat(count)).expect("renders"), "1".repeat(count));
}

/// The deepest that is allowed still fits into the small stack.
#[test]
fn what_is_allowed_fits_the_stack() {
    let text = "{% macro f(x) %}{% if 1 %}{% for y in [1] %}{{ [(x and (f((x + 1)) ~ ''))] }}{% endfor %}{% endif %}\
        {% endmacro %}{{ f(1) }}";
    assert_eq!(limit(text), Some("calls and expressions inside each other"));
    let text = format!("{{{{ {}1{} }}}}", "[-(1 + 1 * 1 ** ".repeat(39), ")]".repeat(39));
    assert!(matches!(render(&text), Err(TextError::Template { .. })));
}

/// Published shapes of templates on a conversation of megabytes.
#[test]
fn long_conversations_pass() {
    let line = "A line of some words, as people write them. ".repeat(25);
    let messages: Vec<_> = (0..2000)
        .map(|i| json!({"role": if i % 2 == 0 { "user" } else { "assistant" }, "content": line}))
        .collect();
    let template = "{%- set ns = namespace(n=0, system='') -%}{%- for m in messages -%}\
        {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('alternate') }}{%- endif -%}\
        {%- set ns.n = ns.n + 1 -%}{%- set content = m['content'] | trim -%}\
        {{- '<' + m.role + '>' + content.split('</think>')[-1].lstrip('\\n') + '</s>' -}}\
        {%- endfor -%}{{ messages | tojson | length }}";
    let templates = ChatTemplates::from_source(template).expect("parses");
    let conversation = Conversation { messages: json!(messages), ..Conversation::default() };
    let text = templates.render(&conversation).expect("renders");
    assert!(text.len() > 2_000_000);
}

#[test]
fn dates() {
    let got = render("{{ strftime_now('%d %b %Y %A %j %-d/%-m %H:%M:%S %I %p') }}").expect("renders");
    assert_eq!(got, "01 Jan 2025 Wednesday 001 1/1 00:00:00 12 AM");
    let got = render("{{ strftime_now('%c|%D|%R|%X|%x|%u%w|%C') }}").expect("renders");
    assert_eq!(got, "Wed Jan  1 00:00:00 2025|01/01/25|00:00|00:00:00|01/01/25|33|20");
    assert!(render("{{ strftime_now('%Q') }}").is_err());
}

#[test]
fn errors_are_told_apart() {
    assert!(
        matches!(render("{{ raise_exception('no') }}"), Err(TextError::Rejected { message }) if message == "no")
    );
    match render("a\n{{ 1 }}\n{{ 'a' + [1] }}") {
        Err(TextError::Template { message }) => assert!(message.starts_with("line 3: "), "{message}"),
        other => panic!("{other:?}"),
    }
    let templates = ChatTemplates::default();
    let error = templates.render(&Conversation::default()).expect_err("no template");
    assert!(matches!(error, TextError::NoTemplate { .. }));
    // What is not supported is refused, not done in another way.
    for text in [
        "lipsum()",
        "[1]|random",
        "'a.b'|urlize",
        "'a-b'|wordwrap(2)",
        "'a'.encode()",
        "2 ** 200",
        "'\\N{DASH}'",
    ] {
        assert!(matches!(render(&format!("{{{{ {text} }}}}")), Err(TextError::Template { .. })), "{text}");
    }
}
