//! Text: tokenizers and chat templates.

use std::sync::Arc;

use girih_model::Tokenizer;
use girih_model::checkpoint::source::ByteSource;
use girih_model::text::chat::{ChatTemplates, Conversation};
use pollster::block_on;
use serde_json::{Map, Value, json};

use super::{Target, bounded, source};
use crate::Files;

/// `tokenizer.json` and what stands beside it: reading, encoding, decoding.
pub const TOKENIZER: Target = Target {
    name: "tokenizer",
    only: None,
    words: &[
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens",
        "added_tokens_decoder",
        "model",
        "vocab",
        "merges",
        "BPE",
        "Unigram",
        "WordPiece",
        "WordLevel",
        "unk_token",
        "unk_id",
        "byte_fallback",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "decoder",
        "Sequence",
        "Prepend",
        "Replace",
        "pattern",
        "Regex",
        "String",
        "Split",
        "ByteLevel",
        "Metaspace",
        "Precompiled",
        "precompiled_charsmap",
        "TemplateProcessing",
        "BertProcessing",
        "RobertaProcessing",
        "Strip",
        "Truncate",
        "NFKC",
        "Digits",
        "Punctuation",
        "(a|a)*b",
        "(?i:'s|'t)|\\p{L}{1,3}",
        "<0x0A>",
        "▁",
        "Ġ",
        "id",
        "content",
        "special",
        "single_word",
        "lstrip",
        "rstrip",
        "normalized",
    ],
    run: tokenizer,
};

/// A chat template: compiling, and writing out a conversation.
pub const CHAT_TEMPLATE: Target = Target {
    name: "chat_template",
    only: Some("chat_template.jinja"),
    words: &[
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "{%- ",
        " -%}",
        "{# ",
        " #}",
        "for m in messages",
        "endfor",
        "if ",
        "else",
        "elif ",
        "endif",
        "set ",
        "endset",
        "set ns = namespace(x='ab')",
        "set ns.x = ns.x + ns.x",
        "macro f(x)",
        "endmacro",
        "call f(1)",
        "endcall",
        "filter upper",
        "endfilter",
        "raw",
        "endraw",
        "generation",
        "endgeneration",
        "loop.index0",
        "loop(m)",
        "recursive",
        "break",
        "continue",
        "messages",
        "m['content']",
        "tools",
        "add_generation_prompt",
        "bos_token",
        "range(1000000000)",
        "|join('x')",
        "|replace('a', 'aaaa')",
        "|tojson",
        "|tojson(indent=1000000000)",
        "|length",
        "|list",
        "|string",
        "|trim",
        "|items",
        "|dictsort",
        "|map(attribute='role')",
        "|selectattr('role')",
        "|sort",
        "|batch(3)",
        "|default('x', true)",
        "|first",
        "|indent(1000000000)",
        "|center(1000000000)",
        "|format(1)",
        "%1000000000d",
        " ~ ",
        " * 1000000000",
        " ** 99",
        " // 0",
        " % 0",
        ".split('a')",
        ".strip()",
        ".format(1)",
        "'{:1000000000}'",
        "[::-1]",
        "[0:9]",
        "[-1]",
        " is defined",
        " is string",
        " is mapping",
        " in ",
        " not ",
        " and ",
        " or ",
        "lambda",
        "raise_exception('x')",
        "strftime_now('%Y')",
        "strftime_now('%1000000000d')",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'",
        "\"",
        "\\",
        "cycler(1)",
        "joiner(',')",
        "namespace()",
        "dict(a=1)",
        "none",
        "true",
        "1e999",
        "9223372036854775807",
        "{{ f(f) }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}",
        "import ",
        "include 'x'",
        "extends 'x'",
        "block x",
    ],
    run: |input| {
        let text = String::from_utf8_lossy(input.file("chat_template.jinja").unwrap_or_default());
        match bounded(ChatTemplates::from_source(&text))? {
            Some(chat) => converse(&chat),
            None => Ok(()),
        }
    },
};

/// Characters of a rendered conversation at most; the documented bound of `docs/fuzzing.md`.
const RENDERED: usize = 64 << 20;

/// Writes out a conversation with every template.
pub fn converse(chat: &ChatTemplates) -> Result<(), String> {
    let call =
        json!([{ "type": "function", "function": { "name": "f", "arguments": { "x": [1, 2.5, null] } } }]);
    let conversation = Conversation {
        messages: json!([
            { "role": "system", "content": "Sei knapp." },
            { "role": "user", "content": "<b>Hi</b> \u{1F642} \"quoted\" {{ 1 }}\n" },
            { "role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.", "tool_calls": call },
            { "role": "tool", "content": "3", "name": "f" },
            { "role": "user", "content": [{ "type": "text", "text": "and?" }] },
        ]),
        tools: json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]),
        add_generation_prompt: true,
        extra: Map::from_iter([("enable_thinking".to_owned(), Value::Bool(false))]),
        now: Some(1_700_000_000),
    };
    let plain = Conversation {
        messages: json!([{ "role": "user", "content": "a" }]),
        tools: Value::Null,
        extra: Map::new(),
        ..conversation.clone()
    };
    let names: Vec<String> = chat.names().map(str::to_owned).collect();
    for name in names.iter().take(4) {
        for conversation in [&conversation, &plain] {
            let rendered = bounded(chat.render_named(name, conversation))?;
            if rendered.is_some_and(|text| text.len() > RENDERED) {
                return Err(format!("a conversation of more than {RENDERED} bytes"));
            }
        }
    }
    Ok(())
}

/// The tokenizer of a folder.
pub fn read_tokenizer(source: &Arc<dyn ByteSource>) -> Result<Option<Tokenizer>, String> {
    Ok(bounded(block_on(Tokenizer::load(&**source)))?.flatten())
}

fn tokenizer(input: &Files) -> Result<(), String> {
    const TEXTS: [&str; 4] = [
        "Hello, world! It's 1234\n\n  caf\u{e9} \u{65e5}\u{672c}",
        "<s>[INST] <|im_start|>user</s>",
        "",
        "\u{fffd}\t\u{0}\r\n",
    ];
    let source = source(input);
    if let Some(chat) = bounded(block_on(ChatTemplates::read(&*source)))? {
        converse(&chat)?;
    }
    let Some(tokenizer) = read_tokenizer(&source)? else { return Ok(()) };
    let _ = tokenizer.vocab_size();
    for text in TEXTS {
        let ids = [true, false].map(|special| bounded(tokenizer.encode(text, special)));
        for ids in ids {
            let Some(ids) = ids? else { continue };
            bounded(tokenizer.decode(&ids, false))?;
            bounded(tokenizer.decode(&ids, true))?;
            let mut stream = tokenizer.stream(true);
            for id in ids {
                bounded(stream.push(id))?;
                let _ = (tokenizer.id_to_token(id), tokenizer.is_special(id));
            }
            bounded(stream.finish())?;
        }
        bounded(tokenizer.encode_pair(text, "b"))?;
        bounded(tokenizer.encode_with_offsets(text, true))?;
    }
    bounded(tokenizer.decode(&[0, 1, 2, 3, 5, 100, 1000, u32::MAX], true))?;
    Ok(())
}
