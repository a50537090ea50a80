//! Jinja2 as transformers runs it.
//!
//! A template is a program from a stranger. It sees nothing but the conversation, and what it may use is limited: see
//! `limits`. The engine is our own because no published one counts the memory that a template takes (a dozen doublings
//! of a string need a hundred steps and gigabytes), and because Python's values and printing decide about tokens. One
//! file for each step: `lexer`, `parser` and `expressions` make the tree of `ast`; `run`, `evaluate` and `calls` walk it; `value`
//! holds Python's values; the rest is what templates can do with them.

mod ast;
mod attributes;
mod calls;
mod characters;
mod evaluate;
mod expressions;
mod filters;
mod format;
mod item_filters;
mod json;
mod lexer;
mod limits;
mod numbers;
mod operators;
mod parser;
mod print;
mod printf;
mod run;
mod strings;
mod tests;
mod text_filters;
mod time;
#[cfg(test)]
mod unit_tests;
mod value;

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use crate::TextError;
use limits::{Budget, Fault};
use value::Value;

/// Reads a template; nothing of it runs.
pub(super) fn check(source: &str) -> Result<(), TextError> {
    parser::parse(source).map(|_| ()).map_err(|fault| describe(*fault))
}

/// Runs a template with these variables. `now` is the time that it is told, in seconds since 1970; `None`: the present.
pub(super) fn render(
    source: &str,
    variables: &Map<String, Json>,
    now: Option<i64>,
) -> Result<String, TextError> {
    let run = || {
        let body = parser::parse(source)?;
        let budget = Rc::new(Budget::default());
        let mut context = HashMap::new();
        for (name, value) in variables {
            context.insert(name.clone(), Value::from_json(&budget, value)?);
        }
        run::render(&budget, &body, &context, now)
    };
    run().map_err(|fault| describe(*fault))
}

fn describe(fault: Fault) -> TextError {
    match fault {
        Fault::Limit { what, got, limit } => TextError::TemplateLimit { what, got, limit },
        Fault::Raised(message) => TextError::Rejected { message },
        Fault::Failed { message, line } => {
            let message: String = message.chars().take(1000).collect();
            let message = line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"));
            TextError::Template { message }
        }
    }
}
