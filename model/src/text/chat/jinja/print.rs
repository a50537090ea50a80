//! `str` and `repr` of Python.

use std::fmt::Write as _;
use std::rc::Rc;

use super::limits::{Budget, Buffer, Res, fail};
use super::value::{Value, View};

/// Steps of writing a number: several times what other small values take.
const NUMBER: u64 = 4;

/// Steps of finding out the class of a character that is not ASCII: the table is long.
const CLASS: u64 = 4;

/// `str(value)`, into a buffer. Undefined values print as nothing.
pub(super) fn str_into(budget: &Rc<Budget>, value: &Value, out: &mut Buffer) -> Res<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) => out.push(&text.text),
        other => repr_into(budget, other, out),
    }
}

/// `str(value)`: a string is itself.
pub(super) fn str_of(budget: &Rc<Budget>, value: &Value) -> Res<Value> {
    if matches!(value, Value::Str(_)) {
        return Ok(value.clone());
    }
    let mut out = Buffer::new(budget)?;
    str_into(budget, value, &mut out)?;
    Ok(out.value())
}

/// `str(value)` as text.
pub(super) fn string_of(budget: &Rc<Budget>, value: &Value) -> Res<String> {
    let mut out = Buffer::new(budget)?;
    str_into(budget, value, &mut out)?;
    Ok(out.into_string())
}

/// `repr(value)`
pub(super) fn repr_into(budget: &Rc<Budget>, value: &Value, out: &mut Buffer) -> Res<()> {
    budget.work(if matches!(value, Value::Int(_) | Value::Float(_)) { NUMBER } else { 1 })?;
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(v) => out.push(if *v { "True" } else { "False" }),
        Value::Int(v) => out.push(&v.to_string()),
        Value::Float(v) => out.push(&float(*v)),
        Value::Str(text) => {
            if text.safe {
                out.push("Markup(")?;
            }
            repr_text(budget, &text.text, out)?;
            if text.safe { out.push(")") } else { Ok(()) }
        }
        Value::List(seq) => {
            out.push("[")?;
            commas(budget, &seq.items, out)?;
            out.push("]")
        }
        Value::Tuple(seq) => {
            out.push("(")?;
            commas(budget, &seq.items, out)?;
            out.push(if seq.items.len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => {
            out.push("{")?;
            for (i, (k, v)) in dict.entries.iter().enumerate() {
                out.push(if i > 0 { ", " } else { "" })?;
                repr_into(budget, k, out)?;
                out.push(": ")?;
                repr_into(budget, v, out)?;
            }
            out.push("}")
        }
        Value::Range(range) => out.push(&match range.step {
            1 => format!("range({}, {})", range.start, range.stop),
            step => format!("range({}, {}, {step})", range.start, range.stop),
        }),
        Value::View(view, dict) => {
            out.push(value.type_name())?;
            out.push("([")?;
            for (i, (k, v)) in dict.entries.iter().enumerate() {
                out.push(if i > 0 { ", " } else { "" })?;
                match view {
                    View::Keys => repr_into(budget, k, out)?,
                    View::Values => repr_into(budget, v, out)?,
                    View::Items => {
                        out.push("(")?;
                        repr_into(budget, k, out)?;
                        out.push(", ")?;
                        repr_into(budget, v, out)?;
                        out.push(")")?;
                    }
                }
            }
            out.push("])")
        }
        // Python prints an address in memory.
        other => fail(format!("printing a {} is not supported", other.type_name())),
    }
}

fn commas(budget: &Rc<Budget>, items: &[Value], out: &mut Buffer) -> Res<()> {
    for (i, item) in items.iter().enumerate() {
        out.push(if i > 0 { ", " } else { "" })?;
        repr_into(budget, item, out)?;
    }
    Ok(())
}

/// `repr` of a string.
pub(super) fn repr_text(budget: &Budget, text: &str, out: &mut Buffer) -> Res<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    // Runs of plain characters are copied at once.
    let mut plain = 0;
    for (i, c) in text.char_indices() {
        if !c.is_ascii() {
            budget.work(CLASS)?;
        }
        let mut escape = String::new();
        match c {
            '\\' => escape.push_str("\\\\"),
            '\n' => escape.push_str("\\n"),
            '\r' => escape.push_str("\\r"),
            '\t' => escape.push_str("\\t"),
            c if c == quote => {
                escape.push('\\');
                escape.push(c);
            }
            c if is_printable(c) => continue,
            c => {
                let code = c as u32;
                let _ = match code {
                    0..=0xff => write!(escape, "\\x{code:02x}"),
                    0x100..=0xffff => write!(escape, "\\u{code:04x}"),
                    _ => write!(escape, "\\U{code:08x}"),
                };
            }
        }
        budget.work(1)?;
        out.push(&text[plain..i])?;
        out.push(&escape)?;
        plain = i + c.len_utf8();
    }
    out.push(&text[plain..])?;
    out.push_char(quote)
}

/// Python's `str.isprintable` of a character: no control, no separator but the space, nothing that is not assigned.
/// `char::escape_debug` knows the same classes, but escapes marks that extend the character before, too.
pub(super) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_control() => false,
        c if c.is_whitespace() => false,
        c => {
            // Behind a letter, marks stay as they are.
            let mut bytes = [b'a'; 5];
            let len = 1 + c.encode_utf8(&mut bytes[1..]).len();
            str::from_utf8(&bytes[..len]).is_ok_and(|text| text.escape_debug().eq(text.chars()))
        }
    }
}

/// `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(v: f64) -> String {
    if v.is_nan() {
        return "nan".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{v:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if v != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = v.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}
