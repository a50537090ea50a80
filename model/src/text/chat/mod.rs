//! Chat templates: Jinja2 as transformers runs it.

mod files;
mod jinja;
mod templates;

pub use files::TemplateFiles;
pub use templates::{CHATML, CHATML_END, ChatTemplates, Conversation};
