//! `tojson`: what `json.dumps` writes.

use std::fmt::Write as _;
use std::rc::Rc;

use super::limits::{Budget, Buffer, Res, fail};
use super::operators;
use super::print;
use super::value::Value;

/// Options of `json.dumps`.
pub(super) struct Options {
    pub ascii: bool,
    pub indent: Option<String>,
    pub item: String,
    pub key: String,
    pub sort: bool,
}

/// Writes a value as JSON.
pub(super) fn write(budget: &Rc<Budget>, value: &Value, options: &Options) -> Res<Value> {
    let mut writer = Writer { budget, out: Buffer::new(budget)?, options };
    writer.write(value, 0)?;
    Ok(writer.out.value())
}

struct Writer<'a> {
    budget: &'a Rc<Budget>,
    out: Buffer,
    options: &'a Options,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value, depth: usize) -> Res<()> {
        self.budget.work(1)?;
        match value {
            Value::Str(text) => self.string(&text.text),
            Value::Dict(dict) => {
                let mut keyed: Vec<(Value, Value)> = dict.entries.clone();
                if self.options.sort {
                    operators::sort(self.budget, &mut keyed, false)?;
                }
                self.out.push("{")?;
                for (i, (k, v)) in keyed.iter().enumerate() {
                    self.separate(i, depth + 1)?;
                    match (k, scalar(k)) {
                        (Value::Str(text), _) => self.string(&text.text)?,
                        (_, Some(text)) => self.string(&text)?,
                        _ => {
                            return fail(format!(
                                "keys must be str, int, float, bool or None, not {}",
                                k.type_name()
                            ));
                        }
                    }
                    self.out.push(&self.options.key)?;
                    self.write(v, depth + 1)?;
                }
                self.close(keyed.len(), depth)?;
                self.out.push("}")
            }
            Value::List(seq) | Value::Tuple(seq) => {
                self.out.push("[")?;
                for (i, item) in seq.items.iter().enumerate() {
                    self.separate(i, depth + 1)?;
                    self.write(item, depth + 1)?;
                }
                self.close(seq.items.len(), depth)?;
                self.out.push("]")
            }
            other => match scalar(other) {
                Some(text) => self.out.push(&text),
                None => fail(format!("Object of type {} is not JSON serializable", other.type_name())),
            },
        }
    }

    fn separate(&mut self, i: usize, depth: usize) -> Res<()> {
        if i > 0 {
            self.out.push(&self.options.item)?;
        }
        self.line(depth)
    }

    fn close(&mut self, len: usize, depth: usize) -> Res<()> {
        if len > 0 { self.line(depth) } else { Ok(()) }
    }

    fn line(&mut self, depth: usize) -> Res<()> {
        let Some(indent) = &self.options.indent else { return Ok(()) };
        self.out.push("\n")?;
        self.out.repeat(indent, depth)
    }

    fn string(&mut self, text: &str) -> Res<()> {
        self.out.push("\"")?;
        let ascii = self.options.ascii;
        let mut plain = 0;
        for (i, c) in text.char_indices() {
            let mut units = String::new();
            let escape = match c {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\u{8}' => "\\b",
                '\u{c}' => "\\f",
                c if (c as u32) < 0x20 || (ascii && (!c.is_ascii() || c == '\u{7f}')) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(units, "\\u{unit:04x}");
                    }
                    &units
                }
                _ => continue,
            };
            self.budget.work(1)?;
            self.out.push(&text[plain..i])?;
            self.out.push(escape)?;
            plain = i + c.len_utf8();
        }
        self.out.push(&text[plain..])?;
        self.out.push("\"")
    }
}

fn scalar(value: &Value) -> Option<String> {
    Some(match value {
        Value::None => "null".into(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float(v) if v.is_nan() => "NaN".into(),
        Value::Float(v) if v.is_infinite() => if *v > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Float(v) => print::float(*v),
        _ => return None,
    })
}
