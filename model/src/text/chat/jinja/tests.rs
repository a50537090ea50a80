//! What stands behind `is`.

use super::ast::Compare;
use super::characters;
use super::filters;
use super::limits::{Res, fail};
use super::operators;
use super::print;
use super::run::{Args, Interpreter};
use super::value::Value;

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether Jinja2 has a test.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Interpreter<'_> {
    /// `value is name(args)`
    pub(super) fn test(&mut self, name: &str, value: &Value, args: Args) -> Res<bool> {
        let budget = &self.budget.clone();
        budget.work(1)?;
        let op = match name {
            "==" | "eq" | "equalto" => Some(Compare::Eq),
            "!=" | "ne" => Some(Compare::Ne),
            ">" | "gt" | "greaterthan" => Some(Compare::Gt),
            ">=" | "ge" => Some(Compare::Ge),
            "<" | "lt" | "lessthan" => Some(Compare::Lt),
            "<=" | "le" => Some(Compare::Le),
            "in" => Some(Compare::In),
            _ => None,
        };
        if let Some(op) = op {
            let other = args.bind(name, [if name == "in" { "seq" } else { "" }], 1)?;
            let [Some(other)] = other else { return fail(format!("the test '{name}' takes a value")) };
            return operators::compare(budget, op, value, &other);
        }
        if name == "divisibleby" {
            let [Some(other)] = args.bind(name, ["num"], 1)? else {
                return fail("divisibleby takes a number");
            };
            return self.remainder(value, &other).map(|v| !v.truth());
        }
        if name == "sameas" {
            let [Some(other)] = args.bind(name, ["other"], 1)? else { return fail("sameas takes a value") };
            // Equal strings of a template are one object in CPython.
            let text = value.as_str().is_some() && value.as_str() == other.as_str();
            return Ok(text || operators::same(value, &other));
        }
        if !is_known(name) {
            return fail(format!("no test named '{}'", name.chars().take(100).collect::<String>()));
        }
        args.bind::<0>(name, [], 0)?;
        Ok(match name {
            "odd" | "even" => {
                let rest = self.remainder(value, &Value::Int(2))?;
                let want = Value::Int(i128::from(name == "odd"));
                operators::equal(budget, &rest, &want)?
            }
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "filter" => value.as_str().is_some_and(filters::is_known),
            "test" => value.as_str().is_some_and(is_known),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "false" => matches!(value, Value::Bool(false)),
            "true" => matches!(value, Value::Bool(true)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "lower" => characters::is_lower(&print::string_of(budget, value)?),
            "upper" => characters::is_upper(&print::string_of(budget, value)?),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "number" => value.as_float().is_some(),
            "sequence" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Str(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
            ),
            "iterable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Str(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
                    | Value::Iter(_)
                    | Value::View(..)
                    | Value::Loop(_)
            ),
            "callable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Function(_)
                    | Value::Method(_)
                    | Value::Macro(_)
                    | Value::Loop(_)
                    | Value::Joiner(_)
            ),
            _ => matches!(value, Value::Str(text) if text.safe),
        })
    }

    fn remainder(&mut self, value: &Value, other: &Value) -> Res<Value> {
        operators::binary(&self.budget, super::ast::Binary::Mod, value, other)
    }
}
