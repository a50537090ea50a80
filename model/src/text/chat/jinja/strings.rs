//! Methods of Python's `str`.

use std::rc::Rc;

use super::characters::{capitalize, is_decimal, is_lower, is_title, is_upper, swap_case, title};
use super::lexer::is_space;
use super::limits::{Budget, Buffer, Res, fail};
use super::run::{Args, Interpreter};
use super::value::{Text, Value};

/// All methods of `str`.
pub(super) const METHODS: [&str; 46] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "encode",
    "translate",
];

impl Interpreter<'_> {
    pub(super) fn string_method(&mut self, this: &Rc<Text>, name: &'static str, args: Args) -> Res<Value> {
        let budget = &self.budget.clone();
        let text = this.text.as_str();
        budget.bytes(text.len())?;
        for arg in &args.positional {
            budget.bytes(4 * arg.as_str().map_or(0, str::len))?;
        }
        let make = |out: &str| Value::text(budget, out, this.safe);
        let of_all = |test: fn(char) -> bool| Value::Bool(!text.is_empty() && text.chars().all(test));
        match name {
            "format" => return self.format(this, &args),
            "format_map" => {
                let [map] = args.bind(name, [""], 1)?;
                let Some(Value::Dict(dict)) = map else { return fail("format_map: a mapping is required") };
                let mut named = Args::default();
                for (k, v) in &dict.entries {
                    if let Some(k) = k.as_str() {
                        named.keywords.push((k.to_owned(), v.clone()));
                    }
                }
                return self.format(this, &named);
            }
            "encode" | "translate" => return fail(format!("str.{name} is not supported")),
            "join" => {
                let [items] = args.bind(name, [""], 1)?;
                let items = items.unwrap_or(Value::None).items(budget)?;
                let mut out = Buffer::new(budget)?;
                for (i, item) in items.iter().enumerate() {
                    let Some(part) = item.as_str() else {
                        return fail(format!(
                            "sequence item {i}: expected str instance, {} found",
                            item.type_name()
                        ));
                    };
                    if i > 0 {
                        out.push(text)?;
                    }
                    out.push(part)?;
                }
                return Ok(out.marked(this.safe));
            }
            _ => {}
        }
        let no_args = |args: Args| args.bind::<0>(name, [], 0).map(|_| ());
        Ok(match name {
            "capitalize" | "casefold" | "lower" | "upper" | "swapcase" | "title" => {
                no_args(args)?;
                // Letters may become longer, threefold at most.
                let room = budget.charge(text.len() * 3)?;
                let out = match name {
                    "capitalize" => capitalize(text),
                    "casefold" => text.replace(['ß', 'ẞ'], "ss").to_lowercase().replace('ς', "σ"),
                    "lower" => text.to_lowercase(),
                    "upper" => text.to_uppercase(),
                    "swapcase" => swap_case(text),
                    _ => title(text),
                };
                drop(room);
                make(&out)?
            }
            "isalnum" => {
                no_args(args)?;
                of_all(char::is_alphanumeric)
            }
            "isalpha" => {
                no_args(args)?;
                of_all(char::is_alphabetic)
            }
            "isascii" => {
                no_args(args)?;
                Value::Bool(text.is_ascii())
            }
            "isdecimal" => {
                no_args(args)?;
                of_all(is_decimal)
            }
            "isdigit" => {
                no_args(args)?;
                of_all(|c| is_decimal(c) || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉'))
            }
            "isnumeric" => {
                no_args(args)?;
                of_all(char::is_numeric)
            }
            "isprintable" => {
                no_args(args)?;
                Value::Bool(text.chars().all(super::print::is_printable))
            }
            "isspace" => {
                no_args(args)?;
                of_all(is_space)
            }
            "isidentifier" => {
                no_args(args)?;
                let first = text.chars().next();
                let start = first.is_some_and(|c| c.is_alphabetic() || c == '_');
                Value::Bool(start && text.chars().all(super::lexer::is_word))
            }
            "islower" => {
                no_args(args)?;
                Value::Bool(is_lower(text))
            }
            "isupper" => {
                no_args(args)?;
                Value::Bool(is_upper(text))
            }
            "istitle" => {
                no_args(args)?;
                Value::Bool(is_title(text))
            }
            "center" | "ljust" | "rjust" => {
                let [width, fill] = args.bind(name, ["", ""], 1)?;
                let fill = match fill {
                    None => " ".to_owned(),
                    Some(fill) => match fill.as_str().filter(|f| f.chars().count() == 1) {
                        Some(fill) => fill.to_owned(),
                        None => return fail("The fill character must be exactly one character long"),
                    },
                };
                let width = integer(width.as_ref(), 0)?;
                justify(budget, this, name, width, &fill)?
            }
            "zfill" => {
                let [width] = args.bind(name, [""], 1)?;
                let missing = missing(text, integer(width.as_ref(), 0)?);
                let signed = text.starts_with(['+', '-']);
                let (sign, digits) = text.split_at(usize::from(signed));
                let mut out = Buffer::new(budget)?;
                out.push(sign)?;
                out.repeat("0", missing)?;
                out.push(digits)?;
                out.marked(this.safe)
            }
            "expandtabs" => {
                let [size] = args.bind(name, ["tabsize"], 0)?;
                let size = usize::try_from(integer(size.as_ref(), 8)?.max(0)).unwrap_or(usize::MAX);
                let mut out = Buffer::new(budget)?;
                let mut column = 0;
                for c in text.chars() {
                    match c {
                        '\t' => {
                            let blanks = if size == 0 { 0 } else { size - column % size };
                            out.repeat(" ", blanks)?;
                            column += blanks;
                        }
                        c => {
                            column = if c == '\n' || c == '\r' { 0 } else { column + 1 };
                            out.push_char(c)?;
                        }
                    }
                }
                out.marked(this.safe)
            }
            "find" | "rfind" | "index" | "rindex" | "count" => {
                let [part, start, end] = args.bind(name, ["", "", ""], 1)?;
                let part = string(part.as_ref(), name)?;
                let (from, chars_before, inner) = window(text, start.as_ref(), end.as_ref())?;
                if name == "count" {
                    let count = match inner {
                        None => 0,
                        Some(inner) if part.is_empty() => inner.chars().count() + 1,
                        Some(inner) => inner.matches(part).count(),
                    };
                    return Ok(Value::Int(count as i128));
                }
                let found =
                    inner.and_then(|t| if name.starts_with('r') { t.rfind(part) } else { t.find(part) });
                match found {
                    Some(at) => {
                        let at = chars_before + text[from..from + at].chars().count();
                        Value::Int(at as i128)
                    }
                    None if name.ends_with("index") => return fail("substring not found"),
                    None => Value::Int(-1),
                }
            }
            "startswith" | "endswith" => {
                let [part, start, end] = args.bind(name, ["", "", ""], 1)?;
                let (_, _, inner) = window(text, start.as_ref(), end.as_ref())?;
                let test = |part: &Value| -> Res<bool> {
                    let part = string(Some(part), name)?;
                    Ok(inner.is_some_and(|t| {
                        if name == "startswith" { t.starts_with(part) } else { t.ends_with(part) }
                    }))
                };
                match part {
                    Some(Value::Tuple(seq)) => {
                        let mut found = false;
                        for part in &seq.items {
                            budget.work(1)?;
                            found = found || test(part)?;
                        }
                        Value::Bool(found)
                    }
                    Some(part) => Value::Bool(test(&part)?),
                    None => return fail(format!("{name} takes a string")),
                }
            }
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = args.bind(name, [""], 0)?;
                make(strip(text, chars.as_ref(), name != "rstrip", name != "lstrip")?)?
            }
            "removeprefix" | "removesuffix" => {
                let [part] = args.bind(name, [""], 1)?;
                let part = string(part.as_ref(), name)?;
                let cut =
                    if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
                make(cut.unwrap_or(text))?
            }
            "partition" | "rpartition" => {
                let [part] = args.bind(name, [""], 1)?;
                let part = string(part.as_ref(), name)?;
                if part.is_empty() {
                    return fail("empty separator");
                }
                let parts = match (name, text.split_once(part), text.rsplit_once(part)) {
                    ("partition", Some((a, b)), _) | ("rpartition", _, Some((a, b))) => [a, part, b],
                    ("partition", ..) => [text, "", ""],
                    _ => ["", "", text],
                };
                Value::tuple(budget, parts.into_iter().map(make).collect::<Res<_>>()?)?
            }
            "replace" => {
                let [old, new, count] = args.bind(name, ["", "", "count"], 2)?;
                let (old, new) = (string(old.as_ref(), name)?, string(new.as_ref(), name)?);
                replace(budget, text, old, new, integer(count.as_ref(), -1)?)?.marked(this.safe)
            }
            "split" | "rsplit" => {
                let [sep, max] = args.bind(name, ["sep", "maxsplit"], 0)?;
                let max = usize::try_from(integer(max.as_ref(), -1)?).unwrap_or(usize::MAX);
                let sep = match &sep {
                    None | Some(Value::None) => None,
                    Some(sep) => Some(string(Some(sep), name)?),
                };
                if sep == Some("") {
                    return fail("empty separator");
                }
                pieces(budget, split(budget, text, sep, max, name == "rsplit")?, this.safe)?
            }
            "splitlines" => {
                let [keep] = args.bind(name, ["keepends"], 0)?;
                pieces(budget, lines(budget, text, keep.is_some_and(|v| v.truth()))?, this.safe)?
            }
            other => return fail(format!("str.{other} is not supported")),
        })
    }
}

fn pieces(budget: &Rc<Budget>, parts: Vec<&str>, safe: bool) -> Res<Value> {
    Value::list(budget, parts.into_iter().map(|t| Value::text(budget, t, safe)).collect::<Res<_>>()?)
}

pub(super) fn string<'a>(value: Option<&'a Value>, what: &str) -> Res<&'a str> {
    match value.map(|v| (v.as_str(), v.type_name())) {
        Some((Some(text), _)) => Ok(text),
        Some((None, got)) => fail(format!("{what}: must be str, not {got}")),
        None => fail(format!("{what}: a str is missing")),
    }
}

pub(super) fn integer(value: Option<&Value>, default: i128) -> Res<i128> {
    match value {
        None => Ok(default),
        Some(Value::Undefined(message)) => fail(message.to_string()),
        Some(value) => match value.as_int() {
            Some(v) => Ok(v),
            None => fail(format!("'{}' object cannot be interpreted as an integer", value.type_name())),
        },
    }
}

/// How many characters are missing to a width.
fn missing(text: &str, width: i128) -> usize {
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    width.saturating_sub(text.chars().count())
}

pub(super) fn justify(budget: &Rc<Budget>, this: &Text, how: &str, width: i128, fill: &str) -> Res<Value> {
    let missing = missing(&this.text, width);
    let total = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let left = match how {
        "ljust" => 0,
        "rjust" => missing,
        // As CPython rounds.
        _ => missing / 2 + (missing & total & 1),
    };
    let mut out = Buffer::new(budget)?;
    out.repeat(fill, left)?;
    out.push(&this.text)?;
    out.repeat(fill, missing - left)?;
    Ok(out.marked(this.safe))
}

/// Where the part of a text between two places begins, in bytes and in characters, and the part; `None` where the
/// places are the wrong way round.
fn window<'a>(
    text: &'a str,
    start: Option<&Value>,
    end: Option<&Value>,
) -> Res<(usize, usize, Option<&'a str>)> {
    let given = |v: Option<&Value>| v.filter(|v| !matches!(v, Value::None)).cloned();
    let (start, end) = (given(start), given(end));
    if start.is_none() && end.is_none() {
        return Ok((0, 0, Some(text)));
    }
    let count = text.chars().count() as i128;
    let place = |v: i128| if v < 0 { (v + count).max(0) } else { v };
    let from = place(integer(start.as_ref(), 0)?.max(-count));
    let to = place(integer(end.as_ref(), count)?.max(-count)).min(count);
    if from > to {
        return Ok((0, 0, None));
    }
    let byte = |at: i128| text.char_indices().nth(at as usize).map_or(text.len(), |(i, _)| i);
    let (a, b) = (byte(from), byte(to));
    Ok((a, from as usize, Some(&text[a..b])))
}

pub(super) fn strip<'a>(text: &'a str, chars: Option<&Value>, left: bool, right: bool) -> Res<&'a str> {
    let set: Option<std::collections::HashSet<char>> = match chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(string(Some(chars), "strip")?.chars().collect()),
    };
    let cut = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    let text = if left { text.trim_start_matches(cut) } else { text };
    Ok(if right { text.trim_end_matches(cut) } else { text })
}

/// Replaces up to `count` times, without end if it is negative.
pub(super) fn replace(budget: &Rc<Budget>, text: &str, old: &str, new: &str, count: i128) -> Res<Buffer> {
    let max = usize::try_from(count).unwrap_or(usize::MAX);
    let mut out = Buffer::new(budget)?;
    let mut from = 0;
    budget.bytes(text.len() + old.len())?;
    // An empty text occurs before every character and at the end.
    for (at, found) in text.match_indices(old).take(max) {
        budget.work(1)?;
        out.push(&text[from..at])?;
        out.push(new)?;
        from = at + found.len();
    }
    out.push(&text[from..])?;
    Ok(out)
}

fn split<'a>(
    budget: &Rc<Budget>,
    text: &'a str,
    sep: Option<&str>,
    max: usize,
    from_right: bool,
) -> Res<Vec<&'a str>> {
    budget.bytes(text.len())?;
    let mut parts = Vec::new();
    let mut rest = text;
    while parts.len() < max {
        budget.work(4)?;
        match (sep, from_right) {
            (Some(sep), false) => {
                let Some((part, after)) = rest.split_once(sep) else { break };
                parts.push(part);
                rest = after;
            }
            (Some(sep), true) => {
                let Some((before, part)) = rest.rsplit_once(sep) else { break };
                parts.push(part);
                rest = before;
            }
            (None, false) => {
                rest = rest.trim_start_matches(is_space);
                let Some(at) = rest.find(is_space) else { break };
                parts.push(&rest[..at]);
                rest = &rest[at..];
            }
            (None, true) => {
                rest = rest.trim_end_matches(is_space);
                let Some((at, c)) = rest.char_indices().rev().find(|&(_, c)| is_space(c)) else { break };
                parts.push(&rest[at + c.len_utf8()..]);
                rest = &rest[..at];
            }
        }
    }
    if sep.is_none() {
        rest = if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
    }
    if sep.is_some() || !rest.is_empty() {
        parts.push(rest);
    }
    if from_right {
        parts.reverse();
    }
    Ok(parts)
}

/// `splitlines`
pub(super) fn lines<'a>(budget: &Rc<Budget>, text: &'a str, keep: bool) -> Res<Vec<&'a str>> {
    budget.bytes(text.len())?;
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        budget.work(4)?;
        let end = rest.find(|c| {
            matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
        });
        let Some(end) = end else {
            parts.push(rest);
            break;
        };
        let width = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(1, char::len_utf8)
        };
        parts.push(&rest[..if keep { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    Ok(parts)
}
