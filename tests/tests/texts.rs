//! What a checkpoint says of texts: tokens without embeddings, penalties, ends, special tokens.

use std::ops::ControlFlow;
use std::sync::Arc;

use girih_model::checkpoint::source::MemorySource;
use girih_model::{
    Conversation, Finish, GenerateOptions, Generated, LoadOptions, Model, RunError, Session, SessionOptions,
    generate,
};
use girih_tests::{files, goldens};
use pollster::block_on;
use serde_json::{Value, json};

/// What the checkpoint writes behind "Hello world".
const GREEDY: [u32; 3] = [243, 126, 376];

/// A golden checkpoint with some of its files changed; `null` stands for a file that is not there.
fn checkpoint(change: impl Fn(&str, &mut Value)) -> Arc<Model> {
    let folder = goldens::dir().join("models/llama_llama3rope");
    let mut source = MemorySource::new();
    let mut names = files::below(&folder);
    names.extend(["special_tokens_map.json", "added_tokens.json"].map(str::to_owned));
    names.sort();
    names.dedup();
    for name in names.iter().filter(|name| !name.starts_with("reference")) {
        let bytes = files::read(&folder.join(name)).ok();
        if name.rsplit_once('.').is_none_or(|(_, kind)| kind != "json") {
            source = source.with(name.as_str(), bytes.expect("a file"));
            continue;
        }
        let mut value = bytes.map_or(Value::Null, |b| serde_json::from_slice(&b).expect("JSON"));
        change(name, &mut value);
        if !value.is_null() {
            source = source.with(name.as_str(), value.to_string().into_bytes());
        }
    }
    girih_tests::load(&girih_tests::gpu(), Arc::new(source), LoadOptions::default())
}

fn options(model: &Model, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        sampling: model.generation().sampling.clone(),
        stop: Vec::new(),
        stop_ids: model.stop_ids(),
        continues: true,
        slot: 0,
    }
}

fn run(model: &Arc<Model>, prompt: &str, options: &GenerateOptions) -> Result<Generated, RunError> {
    let tokenizer = model.tokenizer()?;
    let ids = tokenizer.encode(prompt, true)?;
    let mut session = Session::new(model, SessionOptions::default())?;
    let mut shown = String::new();
    let told = block_on(generate(&mut session, Some(tokenizer), &ids, options, |text| {
        shown += text;
        ControlFlow::Continue(())
    }))?;
    assert_eq!(shown, told.text, "what is shown piece by piece is the text");
    Ok(told)
}

/// The spelling of a token in the golden vocabulary.
fn spelling(model: &Model, id: u32) -> String {
    model.tokenizer().expect("a tokenizer").id_to_token(id).expect("a token")
}

#[test]
fn tokens_without_an_embedding_are_refused_where_they_occur() {
    let model = checkpoint(|file, value| {
        if file == "tokenizer.json" {
            let mut token = value["added_tokens"][0].clone();
            token["id"] = 512.into();
            token["content"] = "<image_soft_token>".into();
            value["added_tokens"].as_array_mut().expect("a list").push(token);
        }
    });
    assert!(model.notes().iter().any(|n| n.contains("<image_soft_token>")), "{:?}", model.notes());
    let told = run(&model, "Hello", &options(&model, 4)).expect("generates");
    assert_eq!(told.token_ids, [461, 422, 422, 422]); // transformers
    let refused = run(&model, "Hello<image_soft_token>", &options(&model, 4));
    assert!(matches!(refused, Err(RunError::TokenId { id: 512, vocab_size: 512 })));
}

/// As transformers' `generate` without `do_sample`.
#[test]
fn penalties_of_the_checkpoint_hold_when_it_is_greedy() {
    const WANT: [u32; 20] =
        [243, 126, 376, 7, 350, 339, 248, 181, 218, 48, 34, 172, 60, 324, 386, 435, 114, 490, 122, 91];
    let model = checkpoint(|file, value| {
        if file == "generation_config.json" {
            *value = json!({"repetition_penalty": 1.8, "eos_token_id": [507, 510], "num_beams": 3});
        }
    });
    assert_eq!(run(&model, "Hello world", &options(&model, 20)).expect("generates").token_ids, WANT);
    assert!(model.notes().iter().any(|n| n.contains("num_beams")), "{:?}", model.notes());
}

#[test]
fn an_answer_ends_where_any_file_says() {
    let plain = checkpoint(|_, _| ());
    let told = run(&plain, "Hello world", &options(&plain, 3)).expect("generates");
    assert_eq!((told.token_ids.as_slice(), told.finish), (&GREEDY[..], Finish::Length));
    let end = spelling(&plain, GREEDY[2]);
    // The tokenizer's alone.
    let model = checkpoint(|file, value| match file {
        "config.json" | "generation_config.json" => value["eos_token_id"] = 507.into(),
        "tokenizer_config.json" => value["eos_token"] = end.clone().into(),
        _ => {}
    });
    assert_eq!(model.stop_ids(), [507, GREEDY[2]]);
    let told = run(&model, "Hello world", &options(&model, 12)).expect("generates");
    assert_eq!((told.token_ids.as_slice(), told.finish), (&GREEDY[..2], Finish::Stop));
    // The special tokens of a checkpoint without a tokenizer configuration.
    let model = checkpoint(|file, value| match file {
        "config.json" | "generation_config.json" => value["eos_token_id"] = 507.into(),
        "tokenizer_config.json" => *value = Value::Null,
        "special_tokens_map.json" => *value = json!({"eos_token": end, "bos_token": "<|begin_of_text|>"}),
        _ => {}
    });
    assert_eq!((model.stop_ids(), model.special_id("bos_token")), (vec![507, GREEDY[2]], Some(506)));
    // What the template writes behind an answer.
    let template =
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %} <|eot_id|>
        {% endif %}{% endfor %}";
    let model = checkpoint(|file, value| match file {
        "config.json" | "generation_config.json" => value["eos_token_id"] = 507.into(),
        "tokenizer_config.json" => {
            value["eos_token"] = "<|end_of_text|>".into();
            value["chat_template"] = template.into();
        }
        _ => {}
    });
    assert_eq!((model.stop_ids(), model.answer_stop_ids(model.chat())), (vec![507], vec![507, 510]));
    let greeting = Conversation { messages: json!([{"role": "user", "content": "a"}]), ..Default::default() };
    assert_eq!(model.chat().render(&greeting).expect("renders"), "<|begin_of_text|>a");
}

#[test]
fn stop_texts_may_be_special_tokens() {
    let plain = checkpoint(|_, _| ());
    let spelt = spelling(&plain, GREEDY[2]);
    let model = checkpoint(|file, value| {
        if file == "tokenizer_config.json" {
            value["additional_special_tokens"] = json!([spelt]);
            value.as_object_mut().expect("an object").remove("added_tokens_decoder");
        }
    });
    let free = run(&model, "Hello world", &options(&model, 4)).expect("generates");
    assert_eq!(free.token_ids[..3], GREEDY, "it goes on behind the special token");
    assert!(!free.text.contains(&spelt), "which is not shown");
    for stop in [spelt.clone(), format!("\u{fffd}{spelt}")] {
        let options = GenerateOptions { stop: vec![stop.clone()], ..options(&model, 4) };
        let told = run(&model, "Hello world", &options).expect("generates");
        assert_eq!(told.finish, Finish::Stop, "{stop}");
        let left = if stop == spelt { "\u{fffd}\u{fffd}" } else { "\u{fffd}" };
        assert_eq!(told.text, left, "{stop}");
    }
}

/// Bytes that are no character before the end are shown as transformers decodes them.
#[test]
fn what_is_held_back_before_an_end_is_shown() {
    let model = checkpoint(|file, value| {
        if file == "generation_config.json" {
            *value = json!({"eos_token_id": [GREEDY[1]]});
        }
    });
    let told = run(&model, "Hello world", &options(&model, 9)).expect("generates");
    assert_eq!((told.token_ids.as_slice(), told.finish), (&GREEDY[..1], Finish::Stop));
    assert_eq!(told.text, "\u{fffd}");
}
