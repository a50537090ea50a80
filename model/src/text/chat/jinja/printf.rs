//! Formatting with `%`, and the numbers of both ways to format.

use std::fmt::Write as _;

use std::rc::Rc;

use super::limits::{Budget, Buffer, PRECISION, Res, fail, fault, over};
use super::operators::escape_into;
use super::print;
use super::value::{Text, Value};

/// One `%` specification.
#[derive(Default)]
struct Spec {
    left: bool,
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

/// The values to be formatted.
struct Args<'a> {
    all: &'a Value,
    list: &'a [Value],
    at: usize,
}

impl<'a> Args<'a> {
    fn next(&mut self) -> Res<&'a Value> {
        self.at += 1;
        self.list.get(self.at - 1).ok_or_else(|| fault("not enough arguments for format string"))
    }

    fn number(&mut self) -> Res<i128> {
        self.next()?.as_int().ok_or_else(|| fault("* wants int"))
    }
}

/// `format % args`
pub(super) fn format(budget: &Rc<Budget>, format: &Text, args: &Value) -> Res<Value> {
    let single = std::slice::from_ref(args);
    let list = if let Value::Tuple(seq) = args { &seq.items[..] } else { single };
    let mut args = Args { all: args, list, at: 0 };
    let mut out = Buffer::new(budget)?;
    let mut rest = format.text.as_str();
    let mut keyed = false;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        if let Some(after) = rest[at + 1..].strip_prefix('%') {
            out.push("%")?;
            rest = after;
            continue;
        }
        budget.work(1)?;
        let mut chars = rest[at + 1..].chars();
        let mut value = None;
        if let Some(inner) = chars.as_str().strip_prefix('(') {
            let Value::Dict(dict) = args.all else { return fail("format requires a mapping") };
            let mut depth = 1;
            let end = inner.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let Some(end) = end else { return fail("incomplete format key") };
            let name = &inner[..end];
            value = Some(dict.get_str(name).ok_or_else(|| fault(format!("format: no key '{name}'")))?);
            keyed = true;
            chars = inner[end + 1..].chars();
        }
        let mut spec = Spec::default();
        let mut next = chars.next();
        while let Some(c @ ('-' | '+' | ' ' | '#' | '0')) = next {
            match c {
                '-' => spec.left = true,
                '+' => spec.sign = Some('+'),
                ' ' => spec.sign = spec.sign.or(Some(' ')),
                '#' => spec.alternate = true,
                _ => spec.zeros = true,
            }
            next = chars.next();
        }
        if next == Some('*') {
            let width = args.number()?;
            spec.left |= width < 0;
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
            next = chars.next();
        } else {
            while let Some(digit) = next.and_then(|c| c.to_digit(10)) {
                spec.width = spec.width.saturating_mul(10).saturating_add(digit as usize);
                next = chars.next();
            }
        }
        if next == Some('.') {
            next = chars.next();
            let mut precision = 0usize;
            if next == Some('*') {
                precision = usize::try_from(args.number()?.max(0)).unwrap_or(usize::MAX);
                next = chars.next();
            } else {
                while let Some(digit) = next.and_then(|c| c.to_digit(10)) {
                    precision = precision.saturating_mul(10).saturating_add(digit as usize);
                    next = chars.next();
                }
            }
            spec.precision = Some(precision);
        }
        while matches!(next, Some('h' | 'l' | 'L')) {
            next = chars.next();
        }
        let Some(kind) = next else { return fail("incomplete format") };
        rest = chars.as_str();
        let value = match value {
            Some(value) => value,
            None => args.next()?,
        };
        one(budget, &spec, kind, value, format.safe, &mut out)?;
    }
    out.push(rest)?;
    let mapping = matches!(args.all, Value::Dict(_) | Value::List(_) | Value::Range(_) | Value::Undefined(_));
    if args.at < args.list.len() && !keyed && !mapping {
        return fail("not all arguments converted during string formatting");
    }
    Ok(out.marked(format.safe))
}

fn one(budget: &Rc<Budget>, spec: &Spec, kind: char, value: &Value, safe: bool, out: &mut Buffer) -> Res<()> {
    match kind {
        's' | 'r' | 'a' => {
            let mut text = Buffer::new(budget)?;
            match kind {
                's' => print::str_into(budget, value, &mut text)?,
                _ => print::repr_into(budget, value, &mut text)?,
            }
            let mut text = text.into_string();
            if kind == 'a' {
                text = ascii(&text);
            }
            if safe && !matches!(value, Value::Str(text) if text.safe) {
                let mut escaped = Buffer::new(budget)?;
                escape_into(&text, &mut escaped)?;
                text = escaped.into_string();
            }
            if let Some(precision) = spec.precision {
                let end = text.char_indices().nth(precision).map_or(text.len(), |(i, _)| i);
                text.truncate(end);
            }
            pad(spec, "", &text, false, out)
        }
        'c' => {
            let text = match (value, value.as_int()) {
                (Value::Str(text), _) if text.text.chars().count() == 1 => text.text.clone(),
                (_, Some(code)) => u32::try_from(code)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or_else(|| fault("%c arg not in range(0x110000)"))?
                    .to_string(),
                _ => return fail("%c requires int or char"),
            };
            pad(spec, "", &text, false, out)
        }
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let number = match value {
                Value::Float(v) if matches!(kind, 'd' | 'i' | 'u') => truncate(*v)?,
                Value::Undefined(message) => return fail(message.to_string()),
                other => {
                    if let Some(v) = other.as_int() {
                        v
                    } else {
                        let got = other.type_name();
                        return fail(format!("%{kind} format: a real number is required, not {got}"));
                    }
                }
            };
            let (mut digits, mut prefix) = (radix(number.unsigned_abs(), kind), "");
            if spec.alternate {
                prefix = match kind {
                    'o' => "0o",
                    'x' => "0x",
                    'X' => "0X",
                    _ => "",
                };
            }
            if let Some(precision) = spec.precision {
                if precision as u64 > PRECISION {
                    return over("digits of a number", precision as u64, PRECISION);
                }
                digits = format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len())));
            }
            let sign = sign_text(number < 0, spec.sign);
            pad(spec, &format!("{sign}{prefix}"), &digits, true, out)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            if let Value::Undefined(message) = value {
                return fail(message.to_string());
            }
            let Some(number) = value.as_float() else {
                return fail(format!("must be real number, not {}", value.type_name()));
            };
            let digits = float(number.abs(), kind, spec.precision.unwrap_or(6), spec.alternate)?;
            pad(spec, sign_text(number.is_sign_negative() && !number.is_nan(), spec.sign), &digits, true, out)
        }
        other => fail(format!("unsupported format character '{other}'")),
    }
}

fn pad(spec: &Spec, prefix: &str, text: &str, number: bool, out: &mut Buffer) -> Res<()> {
    let fill = spec.width.saturating_sub(prefix.len() + text.chars().count());
    if spec.left {
        out.push(prefix)?;
        out.push(text)?;
        return out.repeat(" ", fill);
    }
    if number && spec.zeros {
        out.push(prefix)?;
        out.repeat("0", fill)?;
        return out.push(text);
    }
    out.repeat(" ", fill)?;
    out.push(prefix)?;
    out.push(text)
}

fn sign_text(negative: bool, sign: Option<char>) -> &'static str {
    match sign {
        _ if negative => "-",
        Some('+') => "+",
        Some(' ') => " ",
        _ => "",
    }
}

/// `int(v)`
pub(super) fn truncate(v: f64) -> Res<i128> {
    if v.is_nan() {
        return fail("cannot convert float NaN to integer");
    }
    if v.is_infinite() {
        return fail("cannot convert float infinity to integer");
    }
    if v.abs() >= 1.7e38 {
        return fail("integers beyond 127 bits are not supported");
    }
    Ok(v as i128)
}

/// Everything but ASCII as escapes.
pub(super) fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let code = c as u32;
        match code {
            0..=0x7f => out.push(c),
            0x80..=0xff => drop(write!(out, "\\x{code:02x}")),
            0x100..=0xffff => drop(write!(out, "\\u{code:04x}")),
            _ => drop(write!(out, "\\U{code:08x}")),
        }
    }
    out
}

pub(super) fn radix(v: u128, kind: char) -> String {
    match kind {
        'o' => format!("{v:o}"),
        'x' => format!("{v:x}"),
        'X' => format!("{v:X}"),
        'b' => format!("{v:b}"),
        _ => v.to_string(),
    }
}

/// A number that is not negative as `e`, `f` or `g` writes it.
pub(super) fn float(v: f64, kind: char, precision: usize, alternate: bool) -> Res<String> {
    if precision as u64 > PRECISION {
        return over("digits of a number", precision as u64, PRECISION);
    }
    let upper = kind.is_ascii_uppercase();
    let mut text = if v.is_nan() {
        "nan".to_owned()
    } else if v.is_infinite() {
        "inf".to_owned()
    } else {
        match kind.to_ascii_lowercase() {
            'e' => exponent(v, precision, alternate),
            'f' => {
                let text = format!("{v:.precision$}");
                if precision == 0 && alternate { text + "." } else { text }
            }
            _ => {
                let digits = precision.max(1);
                let scientific = format!("{v:.*e}", digits - 1);
                let exp: i64 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
                let mut text = if exp < -4 || exp >= digits as i64 {
                    exponent(v, digits - 1, false)
                } else {
                    format!("{v:.*}", (digits as i64 - 1 - exp).max(0) as usize)
                };
                if !alternate && text.contains('.') {
                    let (mantissa, rest) = text.split_once('e').map_or((text.as_str(), ""), |(m, e)| (m, e));
                    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
                    text = if rest.is_empty() { mantissa.to_owned() } else { format!("{mantissa}e{rest}") };
                }
                text
            }
        }
    };
    if upper {
        text = text.to_uppercase();
    }
    Ok(text)
}

fn exponent(v: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{v:.precision$e}");
    let (mantissa, exp) = text.split_once('e').unwrap_or((&text, "0"));
    let exp: i32 = exp.parse().unwrap_or(0);
    let point = if precision == 0 && alternate { "." } else { "" };
    format!("{mantissa}{point}e{}{:02}", if exp < 0 { '-' } else { '+' }, exp.abs())
}
