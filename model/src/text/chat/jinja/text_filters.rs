//! Filters of text.

use std::rc::Rc;

use super::filters::soft;
use super::limits::{Budget, Buffer, Res, fail};
use super::operators::{self, escape_into};
use super::print;
use super::printf;
use super::run::{Args, Interpreter};
use super::strings::{self, integer, string};
use super::value::{Text, Value, parse_float};

impl Interpreter<'_> {
    pub(super) fn text_filter(&mut self, name: &str, value: &Value, args: Args) -> Res<Value> {
        let budget = &self.budget.clone();
        match name {
            "capitalize" => self.text_method("capitalize", value, args),
            "lower" => self.text_method("lower", value, args),
            "upper" => self.text_method("upper", value, args),
            "trim" => {
                let [chars] = args.bind(name, ["chars"], 0)?;
                let positional = chars.into_iter().collect();
                self.text_method("strip", value, Args { positional, ..Args::default() })
            }
            "string" => {
                args.bind::<0>(name, [], 0)?;
                soft(self, value)
            }
            "safe" => {
                args.bind::<0>(name, [], 0)?;
                let text = print::string_of(budget, value)?;
                Value::text(budget, &text, true)
            }
            "e" | "escape" | "forceescape" => {
                args.bind::<0>(name, [], 0)?;
                if let (Value::Str(text), true) = (value, name != "forceescape")
                    && text.safe
                {
                    return Ok(value.clone());
                }
                let mut out = Buffer::new(budget)?;
                escape_into(&print::string_of(budget, value)?, &mut out)?;
                Ok(out.marked(true))
            }
            "center" => {
                let [width] = args.bind(name, ["width"], 0)?;
                let Value::Str(text) = soft(self, value)? else { return fail("center: no text") };
                strings::justify(budget, &text, "center", integer(width.as_ref(), 80)?, " ")
            }
            "title" => {
                args.bind::<0>(name, [], 0)?;
                title(budget, &print::string_of(budget, value)?)
            }
            "format" => {
                let Value::Str(format) = soft(self, value)? else { return fail("format: no text") };
                let Args { positional, keywords, .. } = args;
                if keywords.is_empty() {
                    return printf::format(budget, &format, &Value::tuple(budget, positional)?);
                }
                if !positional.is_empty() {
                    return fail("can't handle positional and keyword arguments at the same time");
                }
                let mut dict = super::value::Dict::new(budget)?;
                for (name, value) in keywords {
                    dict.insert(budget, Value::str(budget, &name)?, value)?;
                }
                printf::format(budget, &format, &dict.value())
            }
            "join" => {
                let [glue, attribute] = args.bind(name, ["d", "attribute"], 0)?;
                let glue = glue.map_or_else(|| Ok(String::new()), |v| print::string_of(budget, &v))?;
                let mut value = value.clone();
                if let Some(attribute) = attribute.filter(|v| !matches!(v, Value::None)) {
                    if value.is_undefined() {
                        return Value::str(budget, "");
                    }
                    let keywords = vec![("attribute".to_owned(), attribute)];
                    let items = Value::list(budget, value.items(budget)?)?;
                    value = self.filter("map", &items, Args { keywords, ..Args::default() })?;
                }
                let mut out = Buffer::new(budget)?;
                for (i, item) in value.items(budget)?.iter().enumerate() {
                    if i > 0 {
                        out.push(&glue)?;
                    }
                    print::str_into(budget, item, &mut out)?;
                }
                Ok(out.value())
            }
            "replace" => {
                let [old, new, count] = args.bind(name, ["old", "new", "count"], 2)?;
                let text = print::string_of(budget, value)?;
                let old = print::string_of(budget, &old.unwrap_or(Value::None))?;
                let new = print::string_of(budget, &new.unwrap_or(Value::None))?;
                let count = count.filter(|v| !matches!(v, Value::None));
                Ok(strings::replace(budget, &text, &old, &new, integer(count.as_ref(), -1)?)?.value())
            }
            "indent" => {
                let [width, first, blank] = args.bind(name, ["width", "first", "blank"], 0)?;
                let Value::Str(text) = value else {
                    return fail(format!("indent: {} is no text", value.type_name()));
                };
                indent(
                    budget,
                    text,
                    width.as_ref(),
                    first.is_some_and(|v| v.truth()),
                    blank.is_some_and(|v| v.truth()),
                )
            }
            "truncate" => truncate(budget, value, args),
            "wordcount" => {
                args.bind::<0>(name, [], 0)?;
                let text = print::string_of(budget, value)?;
                let words = text.split(|c| !super::lexer::is_word(c)).filter(|w| !w.is_empty());
                Ok(Value::Int(words.count() as i128))
            }
            "wordwrap" => wordwrap(budget, value, args),
            "filesizeformat" => file_size(budget, value, args),
            "urlencode" => {
                args.bind::<0>(name, [], 0)?;
                url_encode(budget, value)
            }
            "xmlattr" => xml_attributes(budget, value, args),
            "striptags" => {
                args.bind::<0>(name, [], 0)?;
                strip_tags(budget, &print::string_of(budget, value)?)
            }
            "pprint" => {
                args.bind::<0>(name, [], 0)?;
                pretty(budget, value)
            }
            other => fail(format!("the filter '{other}' is not supported")),
        }
    }

    fn text_method(&mut self, name: &'static str, value: &Value, args: Args) -> Res<Value> {
        let Value::Str(text) = soft(self, value)? else { return fail("a text is wanted") };
        self.string_method(&text, name, args)
    }
}

/// `title`: as Jinja2 splits words, which is not what `str.title` does.
fn title(budget: &Rc<Budget>, text: &str) -> Res<Value> {
    let ends_word = |c: char| matches!(c, '-' | '(' | '{' | '[' | '<') || super::lexer::is_space(c);
    let mut out = Buffer::new(budget)?;
    let mut rest = text;
    while !rest.is_empty() {
        budget.work(1)?;
        let gap = rest.starts_with(ends_word);
        let end = rest.find(|c| ends_word(c) != gap).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let mut chars = word.chars();
        if let Some(first) = chars.next() {
            let upper: String = first.to_uppercase().collect();
            out.push(&upper)?;
            out.push(&chars.as_str().to_lowercase())?;
        }
        rest = after;
    }
    Ok(out.value())
}

fn indent(budget: &Rc<Budget>, text: &Text, width: Option<&Value>, first: bool, blank: bool) -> Res<Value> {
    let mut indention = Buffer::new(budget)?;
    match width {
        Some(Value::Str(text)) => indention.push(&text.text)?,
        other => {
            let count = usize::try_from(integer(other, 4)?.max(0)).unwrap_or(usize::MAX);
            indention.repeat(" ", count)?;
        }
    }
    let mut whole = Buffer::new(budget)?;
    whole.push(&text.text)?;
    whole.push("\n")?;
    let mut out = Buffer::new(budget)?;
    if first {
        out.push(indention.as_str())?;
    }
    for (i, line) in strings::lines(budget, whole.as_str(), false)?.into_iter().enumerate() {
        if i > 0 {
            out.push("\n")?;
            if blank || !line.is_empty() {
                out.push(indention.as_str())?;
            }
        }
        out.push(line)?;
    }
    Ok(out.marked(text.safe))
}

fn truncate(budget: &Rc<Budget>, value: &Value, args: Args) -> Res<Value> {
    let [length, kill, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"], 0)?;
    let length = integer(length.as_ref(), 255)?;
    let leeway = integer(leeway.filter(|v| !matches!(v, Value::None)).as_ref(), 5)?;
    let end = match &end {
        None => "...",
        Some(end) => string(Some(end), "truncate")?,
    };
    let end_length = end.chars().count() as i128;
    if length < end_length {
        return fail(format!("expected length >= {end_length}, got {length}"));
    }
    if leeway < 0 {
        return fail(format!("expected leeway >= 0, got {leeway}"));
    }
    if value.len(budget)? as i128 <= length.saturating_add(leeway) {
        return Ok(value.clone());
    }
    let Value::Str(text) = value else { return fail(format!("truncate: {} is no text", value.type_name())) };
    let cut = (length - end_length) as usize;
    let cut = text.text.char_indices().nth(cut).map_or(text.text.len(), |(i, _)| i);
    let mut kept = &text.text[..cut];
    if !kill.is_some_and(|v| v.truth()) {
        kept = kept.rsplit_once(' ').map_or(kept, |(before, _)| before);
    }
    let mut out = Buffer::new(budget)?;
    out.push(kept)?;
    out.push(end)?;
    Ok(out.value())
}

/// Lines of at most some characters, broken at spaces; words with hyphens are not supported.
fn wordwrap(budget: &Rc<Budget>, value: &Value, args: Args) -> Res<Value> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, long, wrap, hyphens] = args.bind("wordwrap", names, 0)?;
    let width = integer(width.as_ref(), 79)?;
    let Ok(width @ 1..) = usize::try_from(width) else {
        return fail(format!("invalid width {width} (must be > 0)"));
    };
    let long = long.is_none_or(|v| v.truth());
    let wrap = match wrap.as_ref().filter(|v| !matches!(v, Value::None)) {
        None => "\n",
        Some(wrap) => string(Some(wrap), "wordwrap")?,
    };
    let Value::Str(text) = value else { return fail(format!("wordwrap: {} is no text", value.type_name())) };
    if hyphens.is_none_or(|v| v.truth()) && text.text.contains('-') {
        return fail("wordwrap: breaking at hyphens is not supported: give break_on_hyphens=false");
    }
    let is_blank = |c: char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ');
    let mut out = Buffer::new(budget)?;
    for (i, line) in strings::lines(budget, &text.text, false)?.into_iter().enumerate() {
        if i > 0 {
            out.push(wrap)?;
        }
        // Words and the blanks between them.
        let mut chunks: std::collections::VecDeque<&str> = std::collections::VecDeque::new();
        let mut rest = line;
        while !rest.is_empty() {
            budget.work(1)?;
            let blank = rest.starts_with(is_blank);
            let end = rest.find(|c| is_blank(c) != blank).unwrap_or(rest.len());
            chunks.push_back(&rest[..end]);
            rest = &rest[end..];
        }
        let mut count = 0;
        while !chunks.is_empty() {
            if count > 0 && chunks.front().is_some_and(|c| c.starts_with(is_blank)) {
                chunks.pop_front();
            }
            let (mut row, mut used): (Vec<&str>, usize) = (Vec::new(), 0);
            while let Some(&chunk) = chunks.front() {
                budget.work(1)?;
                budget.bytes(2 * chunk.len())?;
                let length = chunk.chars().count();
                if used + length > width {
                    break;
                }
                row.push(chunk);
                used += length;
                chunks.pop_front();
            }
            if let Some(&chunk) = chunks.front()
                && chunk.chars().count() > width
            {
                let room = width - used;
                if long && room > 0 {
                    let cut = chunk.char_indices().nth(room).map_or(chunk.len(), |(i, _)| i);
                    row.push(&chunk[..cut]);
                    if let Some(front) = chunks.front_mut() {
                        *front = &chunk[cut..];
                    }
                } else if row.is_empty() {
                    row.push(chunk);
                    chunks.pop_front();
                }
            }
            if row.last().is_some_and(|c| c.starts_with(is_blank)) {
                row.pop();
            }
            if !row.is_empty() {
                if count > 0 {
                    out.push(wrap)?;
                }
                count += 1;
                for part in row {
                    out.push(part)?;
                }
            }
        }
    }
    Ok(out.value())
}

fn file_size(budget: &Rc<Budget>, value: &Value, args: Args) -> Res<Value> {
    let [binary] = args.bind("filesizeformat", ["binary"], 0)?;
    let number = value.as_str().map_or_else(|| value.as_float(), parse_float);
    let Some(bytes) = number else {
        return fail(format!("filesizeformat: {} is no number", value.type_name()));
    };
    let binary = binary.is_some_and(|v| v.truth());
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let text = if bytes == 1.0 {
        "1 Byte".to_owned()
    } else if bytes < base {
        format!("{} Bytes", printf::truncate(bytes)?)
    } else {
        let (mut unit, mut letter) = (base * base, 'k');
        for next in ['M', 'G', 'T', 'P', 'E', 'Z', 'Y'] {
            if bytes < unit {
                break;
            }
            (unit, letter) = (unit * base, next);
        }
        let suffix = match (binary, letter) {
            (true, 'k') => "KiB".to_owned(),
            (true, c) => format!("{c}iB"),
            (false, c) => format!("{c}B"),
        };
        format!("{:.1} {suffix}", base * bytes / unit)
    };
    Value::str(budget, &text)
}

/// `urllib.parse.quote`; keys and values of queries have their slashes quoted, too.
fn quote(text: &str, query: bool, out: &mut Buffer) -> Res<()> {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push_char(byte as char)?;
            }
            b'/' if !query => out.push("/")?,
            b' ' if query => out.push("+")?,
            _ => out.push(&format!("%{byte:02X}"))?,
        }
    }
    Ok(())
}

fn url_encode(budget: &Rc<Budget>, value: &Value) -> Res<Value> {
    let mut out = Buffer::new(budget)?;
    let pairs = match value {
        Value::Dict(dict) => dict.entries.clone(),
        Value::List(_)
        | Value::Tuple(_)
        | Value::Iter(_)
        | Value::View(..)
        | Value::Undefined(_)
        | Value::Range(_) => {
            let mut dict = Vec::new();
            for pair in value.items(budget)? {
                match &pair.items(budget)?[..] {
                    [k, v] => dict.push((k.clone(), v.clone())),
                    other => return fail(format!("urlencode: a pair has {} parts", other.len())),
                }
            }
            dict
        }
        other => {
            quote(&print::string_of(budget, other)?, false, &mut out)?;
            return Ok(out.value());
        }
    };
    for (i, (key, value)) in pairs.iter().enumerate() {
        out.push(if i > 0 { "&" } else { "" })?;
        quote(&print::string_of(budget, key)?, true, &mut out)?;
        out.push("=")?;
        quote(&print::string_of(budget, value)?, true, &mut out)?;
    }
    Ok(out.value())
}

fn xml_attributes(budget: &Rc<Budget>, value: &Value, args: Args) -> Res<Value> {
    let [space] = args.bind("xmlattr", ["autospace"], 0)?;
    let Value::Dict(dict) = value else {
        return fail(format!("xmlattr: {} is no mapping", value.type_name()));
    };
    let mut out = Buffer::new(budget)?;
    let space = space.is_none_or(|v| v.truth());
    for (key, value) in &dict.entries {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key_text = string(Some(key), "xmlattr")?;
        if key_text.contains(['/', '>', '=', ' ', '\t', '\n', '\r', '\x0b', '\x0c']) {
            return fail("xmlattr: an invalid character in an attribute's name");
        }
        if space || !out.as_str().is_empty() {
            out.push(" ")?;
        }
        for (part, end) in [(key, "=\""), (value, "\"")] {
            match part {
                Value::Str(text) if text.safe => out.push(&text.text)?,
                other => escape_into(&print::string_of(budget, other)?, &mut out)?,
            }
            out.push(end)?;
        }
    }
    Ok(out.value())
}

/// Text without comments and tags, white space joined, the entities that escaping makes undone.
fn strip_tags(budget: &Rc<Budget>, text: &str) -> Res<Value> {
    let mut plain = Buffer::new(budget)?;
    let mut rest = text;
    let mut without = Buffer::new(budget)?;
    while let Some(open) = rest.find("<!--") {
        let Some(close) = rest[open + 4..].find("-->") else { break };
        without.push(&rest[..open])?;
        rest = &rest[open + 4 + close + 3..];
    }
    without.push(rest)?;
    let mut rest = without.as_str();
    while let Some(open) = rest.find('<') {
        let Some(close) = rest[open..].find('>') else { break };
        plain.push(&rest[..open])?;
        rest = &rest[open + close + 1..];
    }
    plain.push(rest)?;
    let mut out = Buffer::new(budget)?;
    for (i, word) in plain.as_str().split(super::lexer::is_space).filter(|w| !w.is_empty()).enumerate() {
        if i > 0 {
            out.push(" ")?;
        }
        let mut rest = word;
        while let Some(at) = rest.find('&') {
            out.push(&rest[..at])?;
            let entities = [
                ("&amp;", "&"),
                ("&lt;", "<"),
                ("&gt;", ">"),
                ("&quot;", "\""),
                ("&#34;", "\""),
                ("&#39;", "'"),
            ];
            let Some((entity, c)) = entities.iter().find(|(e, _)| rest[at..].starts_with(e)) else {
                if rest[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '#') {
                    return fail("striptags: entities other than &amp; &lt; &gt; &quot; are not supported");
                }
                out.push("&")?;
                rest = &rest[at + 1..];
                continue;
            };
            out.push(c)?;
            rest = &rest[at + entity.len()..];
        }
        out.push(rest)?;
    }
    Ok(out.value())
}

/// `pprint`: what fits into a line of 80 characters.
fn pretty(budget: &Rc<Budget>, value: &Value) -> Res<Value> {
    let mut out = Buffer::new(budget)?;
    let sorted = sorted_keys(budget, value)?;
    print::repr_into(budget, &sorted, &mut out)?;
    if out.as_str().chars().count() > 80 {
        return fail("pprint: values that need more than a line of 80 characters are not supported");
    }
    Ok(out.value())
}

fn sorted_keys(budget: &Rc<Budget>, value: &Value) -> Res<Value> {
    budget.work(1)?;
    let all = |items: &[Value]| items.iter().map(|v| sorted_keys(budget, v)).collect::<Res<Vec<_>>>();
    match value {
        Value::List(seq) => Value::list(budget, all(&seq.items)?),
        Value::Tuple(seq) => Value::tuple(budget, all(&seq.items)?),
        Value::Dict(dict) => {
            let mut keyed: Vec<(Value, Value)> = Vec::new();
            for (k, v) in &dict.entries {
                keyed.push((k.clone(), Value::tuple(budget, vec![k.clone(), sorted_keys(budget, v)?])?));
            }
            operators::sort(budget, &mut keyed, false)?;
            let mut sorted = super::value::Dict::new(budget)?;
            for (_, pair) in keyed {
                if let [k, v] = &pair.items(budget)?[..] {
                    sorted.insert(budget, k.clone(), v.clone())?;
                }
            }
            Ok(sorted.value())
        }
        other => Ok(other.clone()),
    }
}
