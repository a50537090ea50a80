//! Chat templates: Jinja2 as transformers runs it.

mod engine;
mod files;
mod templates;

pub use files::TemplateFiles;
pub use templates::{CHATML, ChatTemplates, Conversation};
