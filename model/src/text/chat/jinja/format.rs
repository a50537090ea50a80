//! `str.format`: replacement fields and their specifications.

use super::limits::{Buffer, PRECISION, Res, fail, fault, over};
use super::operators::escape_into;
use super::print;
use super::printf;
use super::run::{Args, Interpreter};
use super::value::{Text, Value};

/// How often specifications may hold fields.
const FIELDS_IN_FIELDS: u32 = 2;

#[derive(Default)]
struct Numbering {
    next: usize,
    manual: Option<bool>,
}

impl Interpreter<'_> {
    /// `text.format(*args, **kwargs)`
    pub(super) fn format(&mut self, text: &Text, args: &Args) -> Res<Value> {
        let mut out = Buffer::new(&self.budget)?;
        self.fields(&text.text, args, text.safe, &mut Numbering::default(), FIELDS_IN_FIELDS, &mut out)?;
        Ok(out.marked(text.safe))
    }

    fn fields(
        &mut self,
        format: &str,
        args: &Args,
        safe: bool,
        numbering: &mut Numbering,
        deep: u32,
        out: &mut Buffer,
    ) -> Res<()> {
        if deep == 0 {
            return fail("max string recursion exceeded");
        }
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push(&rest[..at])?;
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if let Some(more) = after.strip_prefix(brace) {
                out.push(brace)?;
                rest = more;
                continue;
            }
            if brace == "}" {
                return fail("Single '}' encountered in format string");
            }
            let mut depth = 1;
            let end = after.find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            });
            let Some(end) = end else { return fail("expected '}' before end of string") };
            self.budget.work(1)?;
            self.field(&after[..end], args, safe, numbering, deep, out)?;
            rest = &after[end + 1..];
        }
        out.push(rest)
    }

    fn field(
        &mut self,
        field: &str,
        args: &Args,
        safe: bool,
        numbering: &mut Numbering,
        deep: u32,
        out: &mut Buffer,
    ) -> Res<()> {
        // A bracket hides the signs that end a name.
        let mut in_bracket = false;
        let split = field.find(|c| {
            in_bracket = (in_bracket || c == '[') && c != ']';
            !in_bracket && (c == '!' || c == ':')
        });
        let (name, rest) = field.split_at(split.unwrap_or(field.len()));
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let mut chars = rest.chars();
                let conversion = chars.next();
                match chars.as_str() {
                    "" => (conversion, ""),
                    rest => match rest.strip_prefix(':') {
                        Some(spec) => (conversion, spec),
                        None => return fail("expected ':' after conversion specifier"),
                    },
                }
            }
            None => (None, rest.strip_prefix(':').unwrap_or("")),
        };
        let mut value = self.named(name, args, numbering)?;
        let budget = self.budget.clone();
        match conversion {
            None if rest.starts_with('!') => return fail("unmatched '{' in format spec"),
            None => {}
            Some('s') => value = print::str_of(&budget, &value)?,
            Some(c @ ('r' | 'a')) => {
                let mut text = Buffer::new(&budget)?;
                print::repr_into(&budget, &value, &mut text)?;
                value =
                    if c == 'a' { Value::str(&budget, &printf::ascii(text.as_str()))? } else { text.value() };
            }
            Some(c) => return fail(format!("Unknown conversion specifier '{c}'")),
        }
        let mut spec = spec.to_owned();
        if spec.contains(['{', '}']) {
            let mut inner = Buffer::new(&budget)?;
            self.fields(&spec, args, false, numbering, deep - 1, &mut inner)?;
            spec = inner.into_string();
        }
        if safe && !matches!(&value, Value::Str(text) if text.safe) {
            let mut text = Buffer::new(&budget)?;
            formatted(&budget, &value, &spec, &mut text)?;
            return escape_into(text.as_str(), out);
        }
        formatted(&budget, &value, &spec, out)
    }

    /// The value of a name with attributes and items behind: `0.name[key]`.
    fn named(&mut self, name: &str, args: &Args, numbering: &mut Numbering) -> Res<Value> {
        let first = name.find(['.', '[']).unwrap_or(name.len());
        let (head, mut rest) = name.split_at(first);
        let number = if head.is_empty() {
            numbering.next += 1;
            Some(numbering.next - 1)
        } else {
            head.parse::<usize>().ok()
        };
        let mut value = match number {
            Some(at) => {
                let manual = !head.is_empty();
                if numbering.manual.replace(manual).is_some_and(|was| was != manual) {
                    return fail("cannot switch between automatic and manual field numbering");
                }
                args.positional.get(at).cloned().ok_or_else(|| {
                    fault(format!("Replacement index {at} out of range for positional args tuple"))
                })?
            }
            None => {
                args.keyword(head).cloned().ok_or_else(|| fault(format!("format: no argument '{head}'")))?
            }
        };
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                if end == 0 {
                    return fail("Empty attribute in format string");
                }
                value = self.attribute(&value, &after[..end])?;
                rest = &after[end..];
            } else {
                let after = rest.strip_prefix('[').unwrap_or(rest);
                let Some(end) = after.find(']').filter(|&e| e > 0) else {
                    return fail("Missing ']' in format string");
                };
                let key = match after[..end].parse::<u64>() {
                    Ok(i) => Value::Int(i128::from(i)),
                    Err(_) => Value::str(&self.budget, &after[..end])?,
                };
                value = self.item(&value, &key)?;
                rest = &after[end + 1..];
                if !rest.is_empty() && !rest.starts_with(['.', '[']) {
                    return fail("Only '.' or '[' may follow ']' in format field specifier");
                }
            }
        }
        Ok(value)
    }
}

/// `[[fill]align][sign][z][#][0][width][grouping][.precision][type]`
#[derive(Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

fn parse(spec: &str) -> Res<Spec> {
    let mut parsed = Spec::default();
    let chars: Vec<char> = spec.chars().collect();
    let mut at = 0;
    let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '=' | '^'));
    if is_align(chars.get(1)) {
        parsed.fill = chars.first().copied();
        parsed.align = chars.get(1).copied();
        at = 2;
    } else if is_align(chars.first()) {
        parsed.align = chars.first().copied();
        at = 1;
    }
    if let Some(&c @ ('+' | '-' | ' ')) = chars.get(at) {
        parsed.sign = Some(c);
        at += 1;
    }
    if chars.get(at) == Some(&'z') {
        return fail("format: the option 'z' is not supported");
    }
    if chars.get(at) == Some(&'#') {
        parsed.alternate = true;
        at += 1;
    }
    if chars.get(at) == Some(&'0') {
        at += 1;
        if parsed.fill.is_none() {
            parsed.fill = Some('0');
        }
        if parsed.align.is_none() {
            parsed.align = Some('=');
        }
    }
    let number = |at: &mut usize| {
        let mut got = None;
        while let Some(digit) = chars.get(*at).and_then(|c| c.to_digit(10)) {
            got = Some(got.unwrap_or(0usize).saturating_mul(10).saturating_add(digit as usize));
            *at += 1;
        }
        got
    };
    parsed.width = number(&mut at).unwrap_or(0);
    if let Some(&c @ (',' | '_')) = chars.get(at) {
        parsed.grouping = Some(c);
        at += 1;
    }
    if chars.get(at) == Some(&'.') {
        at += 1;
        parsed.precision = number(&mut at);
        if parsed.precision.is_none() {
            return fail("Format specifier missing precision");
        }
    }
    parsed.kind = chars.get(at).copied();
    if chars.len() > at + 1 {
        return fail(format!("Invalid format specifier '{}'", spec.chars().take(50).collect::<String>()));
    }
    Ok(parsed)
}

/// `format(value, spec)`
fn formatted(
    budget: &std::rc::Rc<super::limits::Budget>,
    value: &Value,
    spec: &str,
    out: &mut Buffer,
) -> Res<()> {
    if spec.is_empty() {
        return print::str_into(budget, value, out);
    }
    if let Value::Undefined(_) = value {
        return fail("unsupported format string passed to Undefined.__format__");
    }
    let parsed = parse(spec)?;
    if let Some(text) = value.as_str() {
        if !matches!(parsed.kind, None | Some('s')) || parsed.sign.is_some() || parsed.grouping.is_some() {
            return fail(format!("Invalid format specifier '{spec}' for object of type 'str'"));
        }
        if parsed.align == Some('=') && !(spec.starts_with('0')) || parsed.alternate {
            return fail("this alignment is not allowed in string format specifier");
        }
        let end = parsed.precision.and_then(|p| text.char_indices().nth(p)).map_or(text.len(), |(i, _)| i);
        return padded(&parsed, "", &text[..end], '<', out);
    }
    let Some(number) = value.as_float() else {
        return fail(format!("unsupported format string passed to {}.__format__", value.type_name()));
    };
    if parsed.precision.is_some_and(|p| p as u64 > PRECISION) {
        return over("digits of a number", parsed.precision.unwrap_or(0) as u64, PRECISION);
    }
    let sign = |negative: bool| match parsed.sign {
        _ if negative => "-",
        Some('+') => "+",
        Some(' ') => " ",
        _ => "",
    };
    let unknown =
        |kind: char| fail(format!("Unknown format code '{kind}' for object of type '{}'", value.type_name()));
    if let (Some(integer), None | Some('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'n')) =
        (value.as_int(), parsed.kind)
    {
        if parsed.precision.is_some() {
            return fail("Precision not allowed in integer format specifier");
        }
        let kind = parsed.kind.unwrap_or('d');
        if kind == 'c' {
            let c = u32::try_from(integer).ok().and_then(char::from_u32);
            let c = c.ok_or_else(|| fault("%c arg not in range(0x110000)"))?;
            return padded(&parsed, "", c.encode_utf8(&mut [0; 4]), '<', out);
        }
        let every = if matches!(kind, 'd' | 'n') { 3 } else { 4 };
        if parsed.grouping == Some(',') && every == 4 {
            return fail(format!("Cannot specify ',' with '{kind}'."));
        }
        let prefix = match kind {
            'b' if parsed.alternate => "0b",
            'o' if parsed.alternate => "0o",
            'x' if parsed.alternate => "0x",
            'X' if parsed.alternate => "0X",
            _ => "",
        };
        let prefix = format!("{}{prefix}", sign(integer < 0));
        let digits = printf::radix(integer.unsigned_abs(), kind);
        return grouped(&parsed, &prefix, &digits, "", every, out);
    }
    let negative = number.is_sign_negative() && !number.is_nan();
    let v = number.abs();
    let text = match parsed.kind {
        Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')) => {
            printf::float(v, kind, parsed.precision.unwrap_or(6), parsed.alternate)?
        }
        Some('n') => printf::float(v, 'g', parsed.precision.unwrap_or(6), parsed.alternate)?,
        Some('%') => printf::float(v * 100.0, 'f', parsed.precision.unwrap_or(6), parsed.alternate)? + "%",
        None => match parsed.precision {
            None => print::float(v),
            Some(precision) => {
                let text = printf::float(v, 'g', precision, parsed.alternate)?;
                // As 'g', but with a digit behind the point.
                if text.contains(['.', 'e', 'n', 'i']) { text } else { text + ".0" }
            }
        },
        Some(kind) => return unknown(kind),
    };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    grouped(&parsed, sign(negative), digits, rest, 3, out)
}

/// Digits with separators, filled up with zeros where that is asked for.
fn grouped(spec: &Spec, prefix: &str, digits: &str, rest: &str, every: usize, out: &mut Buffer) -> Res<()> {
    let Some(separator) = spec.grouping.filter(|_| !digits.is_empty()) else {
        return padded(spec, prefix, &format!("{digits}{rest}"), '>', out);
    };
    let mut digits = digits.to_owned();
    let length = |n: usize| n + (n - 1) / every;
    if spec.align == Some('=') && spec.fill == Some('0') {
        if spec.width as u64 > PRECISION {
            return over("digits of a number", spec.width as u64, PRECISION);
        }
        while length(digits.len()) + prefix.len() + rest.len() < spec.width {
            digits.insert(0, '0');
        }
    }
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(every) {
            text.push(separator);
        }
        text.push(c);
    }
    padded(spec, prefix, &(text + rest), '>', out)
}

fn padded(spec: &Spec, prefix: &str, text: &str, align: char, out: &mut Buffer) -> Res<()> {
    let missing = spec.width.saturating_sub(prefix.chars().count() + text.chars().count());
    let fill = spec.fill.unwrap_or(' ');
    let fill = fill.encode_utf8(&mut [0; 4]).to_owned();
    let text_align = if align == '<' && spec.align == Some('=') { '<' } else { spec.align.unwrap_or(align) };
    let (before, inside, after) = match text_align {
        '<' => (0, 0, missing),
        '^' => (missing / 2, 0, missing - missing / 2),
        '=' => (0, missing, 0),
        _ => (missing, 0, 0),
    };
    out.repeat(&fill, before)?;
    out.push(prefix)?;
    out.repeat(&fill, inside)?;
    out.push(text)?;
    out.repeat(&fill, after)
}
