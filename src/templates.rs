//! The chat template of a conversation: the checkpoint's, or the one that `--template` names.

use std::path::{Path, PathBuf};

use clap::Args;
use girih_model::text::chat::{CHATML, CHATML_END};
use girih_model::{ChatTemplates, Model, RunError};
use serde_json::Value;

use crate::commands::read_text;
use crate::error::Failure;

/// Which template.
#[derive(Clone, Debug, Args)]
pub struct TemplateArgs {
    /// Write the conversation with this template instead of the checkpoint's: chatml, or a file with a Jinja template
    #[arg(long, value_name = "chatml|FILE")]
    template: Option<PathBuf>,
}

/// A template and what belongs to it.
#[derive(Clone, Debug)]
pub struct Template {
    /// The template.
    pub templates: ChatTemplates,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

impl TemplateArgs {
    /// Reads the file that is named; before a model is loaded, so that a mistake costs no time.
    pub fn read(&self) -> Result<Option<Given>, Failure> {
        let Some(name) = &self.template else { return Ok(None) };
        let (text, stop) = if name.as_os_str() == "chatml" {
            (CHATML.to_owned(), vec![CHATML_END.to_owned()])
        } else {
            (read_text(name)?, Vec::new())
        };
        match ChatTemplates::from_source(&text) {
            Ok(_) => Ok(Some(Given { text, stop })),
            Err(e) => Err(Failure::Argument(format!("--template {}: {e}", name.display()))),
        }
    }
}

/// A template that was given.
#[derive(Clone, Debug)]
pub struct Given {
    text: String,
    stop: Vec<String>,
}

/// The template that was given, or the model's own; special tokens are the model's in either case.
pub fn choose(
    given: Option<Given>,
    model: &Model,
    path: Option<&Path>,
    name: &str,
) -> Result<Template, Failure> {
    let own = model.chat().clone();
    if let Some(Given { text, stop }) = given {
        return Ok(Template { templates: own.with_template(&text).map_err(RunError::from)?, stop });
    }
    if own.is_empty() {
        return Err(missing(path, name));
    }
    Ok(Template { templates: own, stop: Vec::new() })
}

/// What is said of a model without a template.
fn missing(path: Option<&Path>, name: &str) -> Failure {
    let place = if path.is_some_and(is_gguf) {
        "its metadata hold no tokenizer.chat_template"
    } else {
        "there is no chat_template.jinja, and no chat_template in tokenizer_config.json"
    };
    Failure::Argument(format!(
        "{name} has no chat template: {place}. If it was trained to chat, give one: `--template chatml`, or \
         `--template FILE` with the template of its publisher; `girih generate` continues texts without one"
    ))
}

/// Whether a model is a GGUF file, or a folder that holds one and no checkpoint.
fn is_gguf(path: &Path) -> bool {
    path.is_file() || !path.join("config.json").exists()
}

/// A conversation, written out and as tokens.
pub fn encode(template: &Template, model: &Model, messages: &[Value]) -> Result<Vec<u32>, RunError> {
    let conversation = girih_model::Conversation {
        messages: messages.to_vec().into(),
        add_generation_prompt: true,
        ..girih_model::Conversation::default()
    };
    let text = template.templates.render(&conversation)?;
    Ok(model.tokenizer()?.encode(&text, false)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chatml_is_what_its_models_were_trained_with() {
        let read = TemplateArgs { template: Some("chatml".into()) }.read().expect("a template").expect("one");
        let conversation = girih_model::Conversation {
            messages: json!([{ "role": "system", "content": "S" }, { "role": "user", "content": "U" }]),
            add_generation_prompt: true,
            ..girih_model::Conversation::default()
        };
        let text = ChatTemplates::from_source(&read.text)
            .expect("a template")
            .render(&conversation)
            .expect("renders");
        assert_eq!(
            text,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(read.stop, ["<|im_end|>"]);
    }

    #[test]
    fn the_key_of_the_right_format_is_named() {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        let said = |path: &str| missing(Some(&goldens.join(path)), "m").to_string();
        for gguf in ["ops/tiny.gguf", "ops"] {
            let said = said(gguf);
            assert!(said.contains("tokenizer.chat_template") && !said.contains("jinja"), "{gguf}: {said}");
        }
        let folder = said("models/cohere");
        assert!(
            folder.contains("chat_template.jinja") && folder.contains("tokenizer_config.json"),
            "{folder}"
        );
        assert!(!folder.contains("metadata") && folder.contains("--template chatml"), "{folder}");
    }
}
