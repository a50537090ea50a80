//! How a conversation is written out: with the model's chat template, or the page's.

use girih_model::text::chat::{CHATML, CHATML_END};
use girih_model::{ChatTemplates, Model, TextError};

/// A template and what belongs to it.
#[derive(Clone, Debug)]
pub struct Template {
    /// The template.
    pub templates: ChatTemplates,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

impl Template {
    /// The template that `chatTemplate` names or is, with the model's special tokens; the model's own if left out.
    pub fn choose(given: Option<&str>, model: &Model) -> Result<Self, TextError> {
        let own = model.chat().clone();
        Ok(match given {
            None => Self { templates: own, stop: Vec::new() },
            Some("chatml") => {
                Self { templates: own.with_template(CHATML)?, stop: vec![CHATML_END.to_owned()] }
            }
            Some(text) => Self { templates: own.with_template(text)?, stop: Vec::new() },
        })
    }
}

/// Refuses a text that is no template, before a model is loaded.
pub fn check(given: &str) -> Result<(), TextError> {
    if given == "chatml" { Ok(()) } else { ChatTemplates::from_source(given).map(|_| ()) }
}
