//! Chat templates: Jinja2 as transformers runs it, on minijinja.
//!
//! Values print as Python prints them, methods of Python's strings and dictionaries exist, `tojson` writes what
//! `json.dumps` writes. A template is a program from a stranger: its steps are limited, and it sees nothing but
//! the conversation.

use std::fmt::Write as _;
use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::{Map, Value as Json};

use crate::TextError;

/// Instructions a template may execute: published ones need some thousands for a long conversation.
const FUEL: u64 = 20_000_000;
const MAX_DEPTH: u32 = 128;
/// Function that is put around what loops run over.
const ITERABLE: &str = "__iterable";

/// Whether a template can be compiled.
pub(super) fn prepare(text: &str) -> Result<String, TextError> {
    let source = adapt(text);
    environment(None).template_from_str(&source).map_err(|e| describe(&e))?;
    Ok(source)
}

/// Runs a template.
pub(super) fn render(
    source: &str,
    variables: &Map<String, Json>,
    now: Option<i64>,
) -> Result<String, TextError> {
    let env = environment(now);
    let template = env.template_from_str(source).map_err(|e| describe(&e))?;
    template.render(Value::from_serialize(variables)).map_err(|e| describe(&e))
}

/// What `raise_exception` was called with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn describe(error: &Error) -> TextError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(raised) = e.downcast_ref::<Raised>() {
            return TextError::Rejected { message: raised.0.clone() };
        }
        source = e.source();
    }
    TextError::Template { message: error.to_string() }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn environment<'a>(now: Option<i64>) -> Environment<'a> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    env.set_formatter(|out, _, value| {
        let text = python_str(value)?;
        out.write_str(&text).map_err(|e| invalid(e.to_string()))
    });
    env.set_unknown_method_callback(call_method);
    env.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let message = python_str(&message)?;
        Err(invalid(message.clone()).with_source(Raised(message)))
    });
    env.add_function("strftime_now", move |format: &str| strftime(format, now.unwrap_or_else(unix_now)));
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| python_str(value));
    env.add_filter("items", |value: &Value| {
        // An undefined value has no items, as in Jinja2.
        if value.is_undefined() { Ok(Value::from(Vec::<Value>::new())) } else { items(value) }
    });
    env.add_filter("join", |value: &Value, joiner: Option<&str>, kwargs: Kwargs| {
        let attribute: Option<&str> = kwargs.get("attribute")?;
        let glue: Option<&str> = kwargs.get("d")?;
        kwargs.assert_all_used()?;
        let mut parts = Vec::new();
        for item in value.try_iter()? {
            let item = attribute.map_or(Ok(item.clone()), |name| item.get_attr(name))?;
            parts.push(python_str(&item)?);
        }
        Ok::<_, Error>(parts.join(joiner.or(glue).unwrap_or_default()))
    });
    env.add_filter("dictsort", |value: &Value, kwargs: Kwargs| {
        let sorted = minijinja::filters::dictsort(value, kwargs)?;
        let pairs = sorted.try_iter()?.map(|pair| Ok(Value::from_object(Tuple(pair.try_iter()?.collect()))));
        pairs.collect::<Result<Vec<_>, Error>>()
    });
    // Jinja2 turns the value of these into a string first.
    env.add_filter("trim", |value: &Value, chars: Option<&str>| {
        let text = python_str(value)?;
        let cut = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
        Ok::<_, Error>(text.trim_matches(cut).to_owned())
    });
    env.add_filter("upper", |value: &Value| python_str(value).map(|s| s.to_uppercase()));
    env.add_filter("lower", |value: &Value| python_str(value).map(|s| s.to_lowercase()));
    env.add_function(ITERABLE, |value: Value| match value.as_str() {
        Some(text) => Ok(text.chars().map(|c| Value::from(c.to_string())).collect()),
        None if value.kind() == ValueKind::Iterable && value.len().is_none() => {
            Ok::<Value, Error>(value.try_iter()?.collect())
        }
        None => Ok(value),
    });
    env
}

/// Python's tuple: a list that prints with parentheses.
#[derive(Debug)]
struct Tuple(Vec<Value>);

impl Object for Tuple {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

fn pairs(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let object = value.as_object().filter(|_| value.kind() == ValueKind::Map);
    match object.and_then(minijinja::value::DynObject::try_iter_pairs) {
        Some(pairs) => Ok(pairs.collect()),
        None => Err(invalid(format!("{} has no items", value.kind()))),
    }
}

fn items(value: &Value) -> Result<Value, Error> {
    Ok(pairs(value)?.into_iter().map(|(k, v)| Value::from_object(Tuple(vec![k, v]))).collect())
}

/// `str(value)`, with nothing for undefined values.
fn python_str(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::String => out.push_str(value.as_str().unwrap_or_default()),
        _ => repr(value, &mut out, 0)?,
    }
    Ok(out)
}

fn repr(value: &Value, out: &mut String, depth: u32) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("values are nested more than {MAX_DEPTH} levels deep")));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number => out.push_str(&python_number(value)),
        ValueKind::String => repr_string(value.as_str().unwrap_or_default(), out),
        ValueKind::Map => {
            out.push('{');
            for (i, (k, v)) in pairs(value)?.into_iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(&k, out, depth + 1)?;
                out.push_str(": ");
                repr(&v, out, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.downcast_object_ref::<Tuple>().is_some();
            out.push(if tuple { '(' } else { '[' });
            let mut len = 0;
            for item in value.try_iter()? {
                out.push_str(if len > 0 { ", " } else { "" });
                repr(&item, out, depth + 1)?;
                len += 1;
            }
            out.push_str(if tuple && len == 1 { "," } else { "" });
            out.push(if tuple { ')' } else { ']' });
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

fn repr_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7f..0xa1).contains(&(c as u32)) || c == '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

fn python_number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(v) if !value.is_integer() => python_float(v),
        _ => value.to_string(),
    }
}

/// `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn python_float(v: f64) -> String {
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

// The engine passes keyword arguments by value.
#[allow(clippy::needless_pass_by_value)]
fn tojson(value: &Value, positional: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<Value> = kwargs.get::<Option<Value>>("indent")?.or(positional);
    let indent = match indent.filter(|v| !v.is_none()) {
        None => None,
        Some(v) => match (v.as_str(), v.as_i64()) {
            (Some(text), _) => Some(text.to_owned()),
            (None, Some(n)) if n <= 64 => Some(" ".repeat(n.max(0) as usize)),
            _ => return Err(invalid("tojson: indent must be a string or at most 64")),
        },
    };
    let default = if indent.is_some() { (",", ": ") } else { (", ", ": ") };
    let separators: Option<Value> = kwargs.get("separators")?;
    let (item, key) = match separators.filter(|v| !v.is_none()) {
        None => (default.0.to_owned(), default.1.to_owned()),
        Some(pair) => (python_str(&pair.get_item_by_index(0)?)?, python_str(&pair.get_item_by_index(1)?)?),
    };
    let sort = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut writer = JsonWriter { out: String::new(), indent, item, key, sort, ascii };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out))
}

struct JsonWriter {
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
    ascii: bool,
}

impl JsonWriter {
    fn write(&mut self, value: &Value, depth: u32) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("tojson: nested more than {MAX_DEPTH} levels deep")));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&json_number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => {
                let mut entries = Vec::new();
                for (k, v) in pairs(value)? {
                    let name = match k.kind() {
                        ValueKind::String => k.as_str().unwrap_or_default().to_owned(),
                        ValueKind::None => "null".into(),
                        ValueKind::Bool => k.is_true().to_string(),
                        ValueKind::Number => json_number(&k),
                        kind => return Err(invalid(format!("tojson: a key is a {kind}"))),
                    };
                    entries.push((name, v));
                }
                if self.sort {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.out.push('{');
                let len = entries.len();
                for (i, (name, v)) in entries.into_iter().enumerate() {
                    self.separate(i, depth + 1);
                    self.string(&name);
                    self.out.push_str(&self.key.clone());
                    self.write(&v, depth + 1)?;
                }
                self.close(len, depth);
                self.out.push('}');
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut len = 0;
                for item in value.try_iter()? {
                    self.separate(len, depth + 1);
                    self.write(&item, depth + 1)?;
                    len += 1;
                }
                self.close(len, depth);
                self.out.push(']');
            }
            kind => return Err(invalid(format!("tojson: a value of type {kind} is not JSON"))),
        }
        Ok(())
    }

    fn separate(&mut self, i: usize, depth: u32) {
        if i > 0 {
            self.out.push_str(&self.item);
        }
        self.line(depth);
    }

    fn close(&mut self, len: usize, depth: u32) {
        if len > 0 {
            self.line(depth);
        }
    }

    fn line(&mut self, depth: u32) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth as usize));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20 || (self.ascii && !c.is_ascii()) || (self.ascii && c == '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn json_number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(v) if !value.is_integer() && v.is_nan() => "NaN".into(),
        Ok(v) if !value.is_integer() && v.is_infinite() => {
            if v > 0.0 {
                "Infinity".into()
            } else {
                "-Infinity".into()
            }
        }
        _ => python_number(value),
    }
}

/// Arguments of a method call by position or name.
struct Arguments<'a> {
    positional: &'a [Value],
    named: Option<Kwargs>,
}

impl<'a> Arguments<'a> {
    fn new(args: &'a [Value]) -> Result<Self, Error> {
        match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => {
                Ok(Self { positional: rest, named: Some(Kwargs::try_from(last.clone())?) })
            }
            _ => Ok(Self { positional: args, named: None }),
        }
    }

    fn value(&self, i: usize, name: &str) -> Result<Option<Value>, Error> {
        let found = match (self.positional.get(i), &self.named) {
            (Some(v), _) => Some(v.clone()),
            (None, Some(named)) if named.has(name) => Some(named.get(name)?),
            _ => None,
        };
        Ok(found)
    }

    fn text(&self, i: usize, name: &str) -> Result<Option<String>, Error> {
        match self.value(i, name)?.filter(|v| !v.is_none()) {
            None => Ok(None),
            Some(v) => match v.as_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(invalid(format!("{name} must be a string, is a {}", v.kind()))),
            },
        }
    }

    fn required(&self, i: usize, name: &str) -> Result<String, Error> {
        self.text(i, name)?.ok_or_else(|| invalid(format!("{name} is missing")))
    }

    fn number(&self, i: usize, name: &str) -> Result<Option<i64>, Error> {
        match self.value(i, name)? {
            None => Ok(None),
            Some(v) => match v.as_i64() {
                Some(n) => Ok(Some(n)),
                None => Err(invalid(format!("{name} must be a number, is a {}", v.kind()))),
            },
        }
    }
}

/// What counts as space in Python but not in Rust, and the other way round, is rare enough: the separators
/// 0x1c..0x1f.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn call_method(_: &State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let arguments = Arguments::new(args)?;
    let found = match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, &arguments)?,
        ValueKind::Map => match method {
            "items" => Some(items(value)?),
            "keys" => Some(pairs(value)?.into_iter().map(|p| p.0).collect()),
            "values" => Some(pairs(value)?.into_iter().map(|p| p.1).collect()),
            "get" => {
                let key = arguments.value(0, "key")?.ok_or_else(|| invalid("get: the key is missing"))?;
                let found = value.get_item(&key).ok().filter(|v| !v.is_undefined());
                let default = arguments.value(1, "default")?;
                Some(found.or(default).unwrap_or(Value::from(())))
            }
            _ => None,
        },
        ValueKind::Seq | ValueKind::Iterable => match method {
            "index" | "count" => {
                let wanted = arguments.value(0, "value")?.ok_or_else(|| invalid("the value is missing"))?;
                let mut places = value.try_iter()?.enumerate().filter(|(_, v)| *v == wanted).map(|(i, _)| i);
                match method {
                    "count" => Some(Value::from(places.count())),
                    _ => Some(Value::from(places.next().ok_or_else(|| invalid("value is not in list"))?)),
                }
            }
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| {
        Error::new(ErrorKind::UnknownMethod, format!("{} has no method named {method}", value.kind()))
    })
}

fn string_method(s: &str, method: &str, args: &Arguments<'_>) -> Result<Option<Value>, Error> {
    let all = |test: fn(char) -> bool| Value::from(!s.is_empty() && s.chars().all(test));
    let affix = |test: &dyn Fn(&str) -> bool| -> Result<Value, Error> {
        let wanted = args.value(0, "prefix")?.ok_or_else(|| invalid(format!("{method}: what?")))?;
        if let Some(text) = wanted.as_str() {
            return Ok(Value::from(test(text)));
        }
        let any = wanted.try_iter()?.any(|v| v.as_str().is_some_and(test));
        Ok(Value::from(any))
    };
    let position = |byte: Option<usize>| byte.map(|b| s[..b].chars().count() as i64);
    let found = match method {
        "strip" | "lstrip" | "rstrip" => {
            let chars = args.text(0, "chars")?;
            let cut = |c: char| chars.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
            let s = if method == "rstrip" { s } else { s.trim_start_matches(cut) };
            Value::from(if method == "lstrip" { s } else { s.trim_end_matches(cut) })
        }
        "split" | "rsplit" => {
            split(s, args.text(0, "sep")?.as_deref(), args.number(1, "maxsplit")?, method == "rsplit")?
        }
        "splitlines" => {
            let lines: Vec<&str> =
                s.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
            let len = if s.is_empty() || s.ends_with('\n') { lines.len() - 1 } else { lines.len() };
            lines[..len].iter().map(|line| Value::from(*line)).collect()
        }
        "startswith" => affix(&|text| s.starts_with(text))?,
        "endswith" => affix(&|text| s.ends_with(text))?,
        "removeprefix" => Value::from(s.strip_prefix(args.required(0, "prefix")?.as_str()).unwrap_or(s)),
        "removesuffix" => Value::from(s.strip_suffix(args.required(0, "suffix")?.as_str()).unwrap_or(s)),
        "replace" => {
            let (old, new) = (args.required(0, "old")?, args.required(1, "new")?);
            // The engine limits repetition of strings; the same bound holds here.
            if s.len().saturating_mul(new.len() + 1) > 1 << 28 {
                return Err(invalid("replace: the result is too large"));
            }
            Value::from(match args.number(2, "count")?.filter(|n| *n >= 0) {
                Some(n) => s.replacen(old.as_str(), &new, n as usize),
                None => s.replace(old.as_str(), &new),
            })
        }
        "upper" => Value::from(s.to_uppercase()),
        "lower" | "casefold" => Value::from(s.to_lowercase()),
        "title" | "capitalize" => {
            let mut out = String::with_capacity(s.len());
            let mut start = true;
            for c in s.chars() {
                if start {
                    out.extend(c.to_uppercase());
                } else {
                    out.extend(c.to_lowercase());
                }
                start = method == "title" && !c.is_alphabetic();
            }
            Value::from(out)
        }
        "join" => {
            let list = args.value(0, "iterable")?.ok_or_else(|| invalid("join: the list is missing"))?;
            let mut parts = Vec::new();
            for item in list.try_iter()? {
                let part = item.as_str().map(str::to_owned);
                parts.push(part.ok_or_else(|| invalid(format!("join: an item is a {}", item.kind())))?);
            }
            Value::from(parts.join(s))
        }
        "find" => Value::from(position(s.find(args.required(0, "sub")?.as_str())).unwrap_or(-1)),
        "rfind" => Value::from(position(s.rfind(args.required(0, "sub")?.as_str())).unwrap_or(-1)),
        "index" => match position(s.find(args.required(0, "sub")?.as_str())) {
            Some(i) => Value::from(i),
            None => return Err(invalid("substring not found")),
        },
        "count" => Value::from(s.matches(args.required(0, "sub")?.as_str()).count()),
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isupper" => Value::from(s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase)),
        "islower" => Value::from(s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase)),
        _ => return Ok(None),
    };
    Ok(Some(found))
}

fn split(s: &str, sep: Option<&str>, max: Option<i64>, from_end: bool) -> Result<Value, Error> {
    let limit = max.filter(|n| *n >= 0).map(|n| n as usize);
    let mut parts: Vec<&str> = Vec::new();
    match (sep, limit, from_end) {
        (Some(""), ..) => return Err(invalid("empty separator")),
        (Some(sep), None, _) => parts.extend(s.split(sep)),
        (Some(sep), Some(n), false) => parts.extend(s.splitn(n.saturating_add(1), sep)),
        (Some(sep), Some(n), true) => {
            parts.extend(s.rsplitn(n.saturating_add(1), sep));
            parts.reverse();
        }
        (None, None, _) => parts.extend(s.split(is_space).filter(|p| !p.is_empty())),
        (None, Some(n), false) => {
            let mut rest = s.trim_start_matches(is_space);
            while !rest.is_empty() {
                let end = if parts.len() < n { rest.find(is_space) } else { None };
                parts.push(&rest[..end.unwrap_or(rest.len())]);
                rest = end.map_or("", |end| rest[end..].trim_start_matches(is_space));
            }
        }
        (None, Some(n), true) => {
            let mut rest = s.trim_end_matches(is_space);
            while !rest.is_empty() {
                let start =
                    if parts.len() < n { rest.char_indices().rfind(|&(_, c)| is_space(c)) } else { None };
                let start = start.map(|(i, c)| (i, i + c.len_utf8()));
                parts.push(&rest[start.map_or(0, |p| p.1)..]);
                rest = start.map_or("", |p| rest[..p.0].trim_end_matches(is_space));
            }
            parts.reverse();
        }
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Rewrites what the engine does otherwise than Jinja2.
///
/// `{% generation %}` marks what a model is trained on and has no other effect: it becomes an `if` that holds, with
/// the same whitespace control. Loops over strings and generators do not know their length, so what a loop runs over
/// is made a list.
fn adapt(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let end = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map(|i| i + 2),
            Some(b'{') => tag_end(rest, "}}"),
            Some(b'%') => tag_end(rest, "%}"),
            _ => Some(1),
        };
        let Some(end) = end else { break };
        let tag = &rest[..end];
        let name = tag.trim_matches(['{', '%', '}', '-', '+']).trim();
        if tag.starts_with("{%") && name == "raw" {
            // Up to the end tag everything is text.
            let close = find_endraw(&rest[end..]).map_or(rest.len(), |i| end + i);
            out.push_str(&rest[..close]);
            rest = &rest[close..];
            continue;
        }
        match (tag.starts_with("{%"), name) {
            (true, "generation") => out.push_str(&tag.replacen("generation", "if true", 1)),
            (true, "endgeneration") => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            (true, name) if name.starts_with("for") => match loop_source(tag) {
                Some(place) => {
                    let (a, b) = (&tag[..place.start], &tag[place.end..]);
                    let _ = write!(out, "{a} {ITERABLE}({}) {b}", &tag[place.clone()]);
                }
                None => out.push_str(tag),
            },
            _ => out.push_str(tag),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where a tag ends, strings skipped.
fn tag_end(tag: &str, close: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if tag[i..].starts_with(close) => return Some(i + 2),
            _ => {}
        }
    }
    None
}

/// The expression that a `for` tag runs over: from `in` to a filter, `recursive` or the end of the tag.
fn loop_source(tag: &str) -> Option<std::ops::Range<usize>> {
    let end = tag.strip_suffix("%}").map(|t| t.strip_suffix(['-', '+']).unwrap_or(t))?.len();
    let (mut start, mut word, mut depth) = (None, None, 0u32);
    let (mut quote, mut escaped) = (None, false);
    for (i, c) in tag[..end].char_indices().chain([(end, ' ')]) {
        if let Some(q) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == q => quote = None,
                _ => {}
            }
            continue;
        }
        if c.is_alphanumeric() || c == '_' {
            word.get_or_insert(i);
            continue;
        }
        match (word.take().map(|w: usize| (w, &tag[w..i])), start) {
            (Some((_, "in")), None) if depth == 0 => start = Some(i),
            (Some((w, "if" | "recursive")), Some(from)) if depth == 0 => return Some(from..w),
            _ => {}
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' if i > 1 => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    start.map(|from| from..end)
}

/// Where `{% endraw %}` begins.
fn find_endraw(text: &str) -> Option<usize> {
    text.match_indices("{%").map(|(i, _)| i).find(|&i| {
        let inner = text[i + 2..].trim_start_matches(['-', '+']).trim_start();
        inner.starts_with("endraw")
    })
}

fn unix_now() -> i64 {
    let since = web_time::SystemTime::now().duration_since(web_time::SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs() as i64)
}

/// Python's `strftime` in English, UTC.
fn strftime(format: &str, now: i64) -> Result<String, Error> {
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (days, second) = (now.div_euclid(86400), now.rem_euclid(86400));
    let (year, month, day) = civil(days);
    let weekday = DAYS[(days + 3).rem_euclid(7) as usize]; // 1970-01-01 was a Thursday
    let name = MONTHS[(month - 1) as usize];
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][(month - 1) as usize];
    let day_of_year = before + day + i64::from(leap && month > 2);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        let mut number = |v: i64, width: usize| {
            let _ = if bare { write!(out, "{v}") } else { write!(out, "{v:0width$}") };
        };
        match code {
            Some('Y') => number(year, 4),
            Some('y') => number(year.rem_euclid(100), 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('j') => number(day_of_year, 3),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second % 60, 2),
            Some('f') => number(0, 6),
            Some('e') => {
                let _ = write!(out, "{day:2}");
            }
            Some('B') => out.push_str(name),
            Some('b' | 'h') => out.push_str(&name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => {
                let _ = write!(out, "{year:04}-{month:02}-{day:02}");
            }
            Some('T') => {
                let _ = write!(out, "{hour:02}:{minute:02}:{:02}", second % 60);
            }
            Some('z') => out.push_str("+0000"),
            Some('Z') => out.push_str("UTC"),
            Some('%') => out.push('%'),
            other => {
                return Err(invalid(format!("strftime_now: %{} is not supported", other.unwrap_or(' '))));
            }
        }
    }
    Ok(out)
}

/// Year, month and day of a day since 1970-01-01 (Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}
