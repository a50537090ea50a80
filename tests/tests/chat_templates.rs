//! Chat templates against Jinja2 as transformers runs it.

use girih_model::TextError;
use girih_model::text::chat::{ChatTemplates, Conversation, TemplateFiles};
use girih_model::text::tokenizer::Tokenizer;
use girih_tests::goldens;
use serde_json::{Map, Value};

/// What Python raised is only compared where the template itself speaks.
fn compare(what: &str, got: Result<String, TextError>, case: &Value, failures: &mut Vec<String>) {
    let want = case["rendered"].as_str();
    match (got, want, case["error"].as_str()) {
        (Ok(got), Some(want), _) if got == want => {}
        (Err(TextError::Rejected { message }), None, Some(error))
            if error == format!("TemplateError: {message}") => {}
        (Err(TextError::Template { .. } | TextError::TemplateLimit { .. }), None, Some(error))
            if !error.starts_with("TemplateError:") => {}
        (got, want, error) => failures.push(format!("{what}\n got {got:?}\nwant {want:?} {error:?}")),
    }
}

fn map(v: &Value) -> Map<String, Value> {
    v.as_object().cloned().unwrap_or_default()
}

#[test]
fn conversations() {
    let (mut failures, mut count) = (Vec::new(), 0);
    for folder in goldens::folders("tokenizers") {
        let golden = folder.join("golden_chat.json");
        if !golden.exists() {
            continue;
        }
        let golden = goldens::json(&golden);
        let files = TemplateFiles {
            tokenizer_config: std::fs::read(folder.join("tokenizer_config.json")).ok(),
            special_tokens_map: std::fs::read(folder.join("special_tokens_map.json")).ok(),
            jinja: std::fs::read(folder.join("chat_template.jinja")).ok(),
            ..TemplateFiles::default()
        };
        let templates = ChatTemplates::load(&files).expect("loads");
        let tokenizer = Tokenizer::from_bytes(&std::fs::read(folder.join("tokenizer.json")).expect("file"));
        let tokenizer = tokenizer.expect("loads");
        for (name, want) in map(&golden["template_globals"]) {
            if let (true, Some(want)) = (name.ends_with("_token"), want.as_str()) {
                assert_eq!(templates.special(&name), Some(want), "{name}");
            }
        }
        for case in golden["cases"].as_array().expect("cases") {
            let mut extra = map(&case["kwargs"]);
            let add_generation_prompt =
                extra.remove("add_generation_prompt").is_some_and(|v| v.as_bool() == Some(true));
            let conversation = Conversation {
                messages: case["messages"].clone(),
                tools: case["tools"].clone(),
                add_generation_prompt,
                extra,
                now: None,
            };
            let got = templates.render(&conversation);
            let what = format!("{}: {}", golden["name"], case["name"]);
            if let (Ok(text), Some(want)) = (&got, case["ids"].as_array()) {
                let ids = tokenizer.encode(text, false).expect("encodes");
                if ids.iter().map(|&id| u64::from(id)).ne(want.iter().filter_map(Value::as_u64)) {
                    failures.push(format!("{what}: other ids"));
                }
            }
            compare(&what, got, case, &mut failures);
            count += 1;
        }
    }
    goldens::counted("tokenizers: conversations", count);
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn jinja() {
    let golden = goldens::cases("tokenizers/jinja_cases");
    let cases = golden["cases"].as_array().expect("cases");
    let mut failures = Vec::new();
    for case in cases {
        let source = case["template"].as_str().expect("a template");
        let got = ChatTemplates::from_source(source)
            .and_then(|t| t.render_with("default", &map(&case["context"]), None));
        compare(&case["name"].to_string(), got, case, &mut failures);
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Every filter, test, method, statement and operator, white space, printing, and odd combinations.
#[test]
fn jinja_table() {
    let golden = goldens::cases("tokenizers/jinja_table");
    let cases = golden["cases"].as_array().expect("cases");
    let context = map(&golden["context"]);
    let mut failures = Vec::new();
    for case in cases {
        let source = case["template"].as_str().expect("a template");
        let got = ChatTemplates::from_source(source).and_then(|t| t.render_with("default", &context, None));
        compare(source, got, case, &mut failures);
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
