//! The templates of a checkpoint, and conversations written out with them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::files::TemplateFiles;
use super::jinja;
use crate::checkpoint::source::ByteSource;
use crate::{LoadError, TextError};

/// The template that many models without one of their own were trained with.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// What ends the messages of [`CHATML`], and so an answer.
pub const CHATML_END: &str = "<|im_end|>";

/// The chat templates of a model.
#[derive(Clone, Debug, Default)]
pub struct ChatTemplates {
    /// A template that cannot be read is an error when it is used: a checkpoint can do more than chat.
    templates: BTreeMap<String, Result<String, TextError>>,
    special: Map<String, Json>,
}

/// A conversation to be written out.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// Messages: a list of objects with `role` and `content`.
    pub messages: Json,
    /// Descriptions of tools; `null` if there are none.
    pub tools: Json,
    /// Whether the text ends with the opening of the assistant's answer.
    pub add_generation_prompt: bool,
    /// More variables of the template: `enable_thinking`, ...
    pub extra: Map<String, Json>,
    /// The time that `strftime_now` tells, in seconds since 1970 (UTC); `None`: now.
    pub now: Option<i64>,
}

impl ChatTemplates {
    /// Collects the templates and special tokens of a checkpoint. Nothing of a template is run; one that cannot be
    /// read is an error when it is used.
    ///
    /// # Errors
    /// Those of the source, and those of [`ChatTemplates::load`].
    pub async fn read(source: &dyn ByteSource) -> Result<Self, LoadError> {
        Ok(Self::load(&TemplateFiles::read(source).await?)?)
    }

    /// As [`ChatTemplates::read`], of files that are read already.
    ///
    /// # Errors
    /// A configuration of another form.
    pub fn load(files: &TemplateFiles) -> Result<Self, TextError> {
        let (templates, special) = files.collect()?;
        let checked = |(name, text): (String, String)| {
            let checked = jinja::check(&text);
            (name, checked.map(|()| text))
        };
        let templates = templates.into_iter().map(checked).collect();
        Ok(Self { templates, special })
    }

    /// A single template without special tokens.
    ///
    /// # Errors
    /// A template that cannot be read.
    pub fn from_source(text: &str) -> Result<Self, TextError> {
        Self::default().with_template(text)
    }

    /// The same special tokens with another template ([`CHATML`], a user's file) in place of all templates.
    ///
    /// # Errors
    /// A template that cannot be read.
    pub fn with_template(self, text: &str) -> Result<Self, TextError> {
        jinja::check(text)?;
        let templates = [("default".to_owned(), Ok(text.to_owned()))].into();
        Ok(Self { templates, special: self.special })
    }

    /// Whether there is no template.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// Names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// A special token's text, by its name in the configuration: `eos_token`.
    pub fn special(&self, name: &str) -> Option<&str> {
        self.special.get(name)?.as_str()
    }

    /// Writes a conversation out, with the template for tools if there are tools and such a template.
    ///
    /// # Errors
    /// No template; [`TextError::Rejected`] if the template refuses the conversation; [`TextError::TemplateLimit`] if
    /// it asks for too much; anything else that it does wrong.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TextError> {
        let with_tools = !conversation.tools.is_null() && self.templates.contains_key("tool_use");
        self.render_named(if with_tools { "tool_use" } else { "default" }, conversation)
    }

    /// As [`ChatTemplates::render`], with the template of a name.
    ///
    /// # Errors
    /// As [`ChatTemplates::render`].
    pub fn render_named(&self, name: &str, conversation: &Conversation) -> Result<String, TextError> {
        let mut variables = self.special.clone();
        variables.insert("messages".into(), conversation.messages.clone());
        variables.insert("tools".into(), conversation.tools.clone());
        variables.insert("documents".into(), Json::Null);
        variables.insert("add_generation_prompt".into(), conversation.add_generation_prompt.into());
        variables.extend(conversation.extra.iter().map(|(k, v)| (k.clone(), v.clone())));
        self.render_with(name, &variables, conversation.now)
    }

    /// Runs a template with exactly these variables.
    ///
    /// # Errors
    /// As [`ChatTemplates::render`].
    pub fn render_with(
        &self,
        name: &str,
        variables: &Map<String, Json>,
        now: Option<i64>,
    ) -> Result<String, TextError> {
        let template = self.templates.get(name).ok_or_else(|| TextError::NoTemplate {
            got: name.to_owned(),
            known: self.templates.keys().cloned().collect(),
        })?;
        jinja::render(template.as_ref().map_err(Clone::clone)?, variables, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(config: &str) -> TemplateFiles {
        TemplateFiles { tokenizer_config: Some(config.as_bytes().to_vec()), ..TemplateFiles::default() }
    }

    fn rendered(files: &TemplateFiles) -> String {
        let templates = ChatTemplates::load(files).expect("loads");
        templates.render(&Conversation::default()).expect("renders")
    }

    #[test]
    fn named_templates() {
        let mut files = files(
            r#"{"eos_token": {"content": "</s>"}, "bos_token": null, "chat_template":
            [{"name": "default", "template": "d{{ eos_token }}"}, {"name": "tool_use", "template": "t"}]}"#,
        );
        let templates = ChatTemplates::load(&files).expect("loads");
        let mut conversation = Conversation::default();
        assert_eq!(templates.render(&conversation).expect("renders"), "d</s>");
        conversation.tools = serde_json::json!([{}]);
        assert_eq!(templates.render(&conversation).expect("renders"), "t");
        // Files of templates replace what the configuration says, with all its names.
        files.jinja = Some(b"j".to_vec());
        files.additional = vec![("rag".into(), b"r{{ eos_token }}".to_vec())];
        let templates = ChatTemplates::load(&files).expect("loads");
        assert_eq!(templates.names().collect::<Vec<_>>(), ["default", "rag"]);
        assert_eq!(templates.render(&conversation).expect("renders"), "j");
        assert_eq!(templates.render_named("rag", &conversation).expect("renders"), "r</s>");
    }

    #[test]
    fn a_processor_has_a_template_where_the_tokenizer_has_none() {
        let mut files = files("{}");
        files.processor = Some(br#"{"chat_template": "p"}"#.to_vec());
        assert_eq!(rendered(&files), "p");
        files.tokenizer_config = Some(br#"{"chat_template": "c"}"#.to_vec());
        assert_eq!(rendered(&files), "c");
    }

    #[test]
    fn special_tokens_of_the_older_file() {
        let mut files = TemplateFiles {
            special_tokens_map: Some(br#"{"eos_token": "<e>", "bos_token": {"content": "<b>"}}"#.to_vec()),
            jinja: Some(b"{{ bos_token }}|{{ eos_token }}|{{ image_token }}".to_vec()),
            ..TemplateFiles::default()
        };
        assert_eq!(rendered(&files), "<b>|<e>|");
        files.tokenizer_config = Some(br#"{"eos_token": "<x>", "image_token": "<i>"}"#.to_vec());
        assert_eq!(rendered(&files), "<b>|<e>|<i>");
        files.tokenizer_config = Some(br#"{"eos_token": "<x>", "added_tokens_decoder": {}}"#.to_vec());
        assert_eq!(rendered(&files), "|<x>|");
        files.tokenizer_config =
            Some(br#"{"added_tokens_decoder": {}, "extra_special_tokens": {"image_token": "<i>"}}"#.to_vec());
        assert_eq!(rendered(&files), "||<i>");
    }

    #[test]
    fn another_template_keeps_special_tokens() {
        let files = files(r#"{"eos_token": "</s>", "chat_template": "c"}"#);
        let templates = ChatTemplates::load(&files).expect("loads");
        let other = templates.clone().with_template("o{{ eos_token }}").expect("compiles");
        assert_eq!(other.render(&Conversation::default()).expect("renders"), "o</s>");
        let chatml = templates.with_template(CHATML).expect("compiles");
        let conversation = Conversation {
            messages: serde_json::json!([{"role": "user", "content": "hi"}]),
            add_generation_prompt: true,
            ..Conversation::default()
        };
        let want = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(chatml.render(&conversation).expect("renders"), want);
    }

    #[test]
    fn broken_templates_are_errors_where_they_are_used() {
        let templates = ChatTemplates::load(&files(r#"{"chat_template": "{% if %}"}"#)).expect("loads");
        let error = templates.render(&Conversation::default()).expect_err("broken");
        assert!(matches!(error, TextError::Template { .. }));
        assert!(ChatTemplates::from_source("{% if %}").is_err());
        let error = ChatTemplates::default().render(&Conversation::default()).expect_err("no template");
        assert!(matches!(error, TextError::NoTemplate { .. }));
        for bad in [r"{", r"[]", r#"{"chat_template": 3}"#, r#"{"chat_template": [{"name": "x"}]}"#] {
            assert!(ChatTemplates::load(&files(bad)).is_err());
        }
    }
}
