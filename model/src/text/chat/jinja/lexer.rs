//! Source to tokens, as Jinja2's lexer does with `trim_blocks` and `lstrip_blocks`.

use std::fmt::Write as _;

use super::limits::{Fault, Res, SOURCE, over};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Str(String),
    Int(i128),
    Float(f64),
    /// An operator as it is written.
    Op(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub line: u32,
    pub kind: Kind,
}

/// Longer ones first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// White space of Python's `str` methods and of `\s`.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(super) fn syntax<T>(line: u32, message: impl Into<String>) -> Res<T> {
    Err(Box::new(Fault::Failed { message: message.into(), line: Some(line) }))
}

/// Splits a source into tokens. Line ends become `\n`; one at the very end is dropped.
pub(super) fn tokenize(source: &str) -> Res<Vec<Token>> {
    if source.len() as u64 > SOURCE {
        return over("bytes of source", source.len() as u64, SOURCE);
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new(), line_starting: true };
    lexer.root()?;
    lexer.push(Kind::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    tokens: Vec<Token>,
    /// Whether what was read last ends a line.
    line_starting: bool,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { line: self.line, kind });
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Goes on by some bytes.
    fn skip(&mut self, bytes: usize) {
        let text = &self.rest()[..bytes];
        self.line += text.matches('\n').count() as u32;
        if !text.is_empty() {
            self.line_starting = text.ends_with('\n');
        }
        self.at += bytes;
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Kind::Data(text.to_owned()));
        }
    }

    /// Text up to the next tag.
    fn root(&mut self) -> Res<()> {
        loop {
            let rest = self.rest();
            let open = rest
                .match_indices('{')
                .map(|(i, _)| i)
                .find(|&i| matches!(rest.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#')));
            let Some(open) = open else {
                self.data(rest);
                return Ok(());
            };
            let raw = raw_begin(&rest[open..]);
            let sign = sign(&rest[open + 2..]);
            let variable = rest[open + 1..].starts_with('{');
            let text = self.stripped(&rest[..open], sign, variable);
            self.data(text);
            self.skip(open);
            if let Some(length) = raw {
                self.skip(length);
                self.raw()?;
                continue;
            }
            self.skip(2 + sign.map_or(0, char::len_utf8));
            match rest.as_bytes()[open + 1] {
                b'#' => self.comment()?,
                b'{' => {
                    self.push(Kind::VariableBegin);
                    self.tag(false)?;
                }
                _ => {
                    self.push(Kind::BlockBegin);
                    self.tag(true)?;
                }
            }
        }
    }

    /// Text before a tag, without the white space that the tag takes away.
    fn stripped(&self, text: &'a str, sign: Option<char>, variable: bool) -> &'a str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if !variable => {
                let line = text.rfind('\n').map_or(0, |i| i + 1);
                if (line > 0 || self.line_starting) && text[line..].chars().all(is_space) {
                    &text[..line]
                } else {
                    text
                }
            }
            _ => text,
        }
    }

    fn comment(&mut self) -> Res<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return syntax(self.line, "missing end of comment tag") };
        let before = rest[..end].ends_with('-');
        self.skip(end + 2);
        self.after_tag(before, rest[..end].ends_with('+'));
        Ok(())
    }

    /// White space behind a tag that the tag takes away.
    fn after_tag(&mut self, strip: bool, keep: bool) {
        let rest = self.rest();
        if strip {
            self.skip(rest.len() - rest.trim_start_matches(is_space).len());
        } else if !keep && rest.starts_with('\n') {
            self.skip(1);
        }
    }

    fn raw(&mut self) -> Res<()> {
        let rest = self.rest();
        for (open, _) in rest.match_indices("{%") {
            let Some((length, strip, keep)) = raw_end(&rest[open..]) else { continue };
            let text = self.stripped(&rest[..open], sign(&rest[open + 2..]), false);
            self.data(text);
            self.skip(open + length);
            self.after_tag(strip, keep);
            return Ok(());
        }
        syntax(self.line, "missing end of raw directive")
    }

    /// The inside of `{{ }}` or `{% %}`.
    fn tag(&mut self, block: bool) -> Res<()> {
        let end = if block { "%}" } else { "}}" };
        let mut open = Vec::new();
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return syntax(self.line, "the last tag is not closed");
            };
            if open.is_empty() {
                let sign = sign(rest).filter(|&c| c == '-' || block);
                let signed = sign.is_some_and(|_| rest[1..].starts_with(end));
                if signed || rest.starts_with(end) {
                    self.push(if block { Kind::BlockEnd } else { Kind::VariableEnd });
                    self.skip(2 + usize::from(signed));
                    let strip = signed && sign == Some('-');
                    self.after_tag(strip, !block || (signed && !strip));
                    return Ok(());
                }
            }
            if is_space(first) {
                self.skip(first.len_utf8());
                continue;
            }
            if first.is_ascii_digit() {
                self.number()?;
                continue;
            }
            if is_word(first) {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                self.push(Kind::Name(rest[..length].to_owned()));
                self.skip(length);
                continue;
            }
            if first == '"' || first == '\'' {
                self.string(first)?;
                continue;
            }
            let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
                return syntax(self.line, format!("unexpected character {first:?}"));
            };
            match op {
                "{" => open.push("}"),
                "(" => open.push(")"),
                "[" => open.push("]"),
                "}" | ")" | "]" => match open.pop() {
                    Some(want) if want == op => {}
                    Some(want) => return syntax(self.line, format!("unexpected '{op}', expected '{want}'")),
                    None => return syntax(self.line, format!("unexpected '{op}'")),
                },
                _ => {}
            }
            self.push(Kind::Op(op));
            self.skip(op.len());
        }
    }

    fn string(&mut self, quote: char) -> Res<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest[1..].char_indices().find(|&(_, c)| {
            let end = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            end
        });
        let Some((end, _)) = end else { return syntax(self.line, "a string is not closed") };
        let text = unescape(&rest[1..=end]).or_else(|message| syntax(self.line, message))?;
        self.push(Kind::Str(text));
        self.skip(end + 2);
        Ok(())
    }

    fn number(&mut self) -> Res<()> {
        let rest = self.rest();
        let before = self.source[..self.at].ends_with('.');
        if let Some(length) = float(rest).filter(|_| !before) {
            let value = rest[..length].replace('_', "").parse().unwrap_or(f64::INFINITY);
            self.push(Kind::Float(value));
            self.skip(length);
            return Ok(());
        }
        let (radix, skip, length) = integer(rest);
        let digits = rest[skip..length].replace('_', "");
        match i128::from_str_radix(&digits, radix) {
            Ok(value) => self.push(Kind::Int(value)),
            Err(_) => return syntax(self.line, "an integer has more than 127 bits"),
        }
        self.skip(length);
        Ok(())
    }
}

fn sign(text: &str) -> Option<char> {
    text.chars().next().filter(|c| matches!(c, '-' | '+'))
}

/// The length of `{% raw %}` at the start of a text.
fn raw_begin(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start_matches(is_space);
    let rest = rest.strip_prefix("raw")?.trim_start_matches(is_space);
    let rest = match rest.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => rest.strip_prefix("%}")?,
    };
    Some(text.len() - rest.len())
}

/// The length of `{% endraw %}`, and what it does to the white space behind: strip, keep.
fn raw_end(text: &str) -> Option<(usize, bool, bool)> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start_matches(is_space);
    let rest = rest.strip_prefix("endraw")?.trim_start_matches(is_space);
    let sign = sign(rest);
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some((text.len() - rest.len(), sign == Some('-'), sign == Some('+')))
}

/// The length of digits with single underscores between them.
fn digits(text: &str, radix: u32) -> usize {
    let mut length = 0;
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(|&b| (b as char).is_digit(radix));
    while digit(length) || (length > 0 && bytes.get(length) == Some(&b'_') && digit(length + 1)) {
        length += 1;
    }
    length
}

/// The length of a float at the start of a text.
fn float(text: &str) -> Option<usize> {
    let mut length = digits(text, 10);
    let fraction = text[length..].strip_prefix('.').map_or(0, |rest| digits(rest, 10));
    if fraction > 0 {
        length += 1 + fraction;
    }
    let rest = &text[length..];
    let exponent = rest.strip_prefix(['e', 'E']).map_or(0, |rest| {
        let signed = usize::from(rest.starts_with(['+', '-']));
        let count = digits(&rest[signed..], 10);
        if count > 0 { 1 + signed + count } else { 0 }
    });
    (fraction > 0 || exponent > 0).then_some(length + exponent)
}

/// Radix, length of the prefix, length of an integer at the start of a text.
fn integer(text: &str) -> (u32, usize, usize) {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    for (prefix, radix) in [("0b", 2), ("0o", 8), ("0x", 16)] {
        if lower.as_deref() == Some(prefix) {
            let skip = 2 + usize::from(text[2..].starts_with('_'));
            let count = digits(&text[skip..], radix);
            if count > 0 {
                return (radix, skip, skip + count);
            }
        }
    }
    if text.starts_with('0') {
        let zeros = text.find(|c| c != '0' && c != '_').unwrap_or(text.len());
        return (10, 0, text[..zeros].trim_end_matches('_').len());
    }
    (10, 0, digits(text, 10))
}

/// Python's escapes in a string literal.
fn unescape(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(c) = chars.next() else { return Err("\\ at end of string") };
        let literal = match c {
            '\n' => continue,
            '\\' | '\'' | '"' => {
                out.push(c);
                continue;
            }
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '0'..='7' => {
                let rest = chars.as_str();
                let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let value = u32::from_str_radix(&format!("{c}{}", &rest[..more]), 8).unwrap_or_default();
                chars = rest[more..].chars();
                char::from_u32(value).unwrap_or_default()
            }
            'x' | 'u' | 'U' => {
                let rest = chars.as_str();
                let width = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let hex = rest.get(..width).filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
                let Some(hex) = hex else { return Err("truncated escape in a string") };
                chars = rest[width..].chars();
                let value = u32::from_str_radix(hex, 16).unwrap_or(u32::MAX);
                char::from_u32(value).ok_or("an escape in a string is no character")?
            }
            'N' => return Err("characters by name (\\N) are not supported"),
            // Jinja2 writes other characters as escapes of their own before it reads the escapes.
            c if !c.is_ascii() => {
                let code = c as u32;
                out.push('\\');
                let _ = match code {
                    0..=0xff => write!(out, "x{code:02x}"),
                    0x100..=0xffff => write!(out, "u{code:04x}"),
                    _ => write!(out, "U{code:08x}"),
                };
                continue;
            }
            c => {
                out.push('\\');
                c
            }
        };
        out.push(literal);
    }
    Ok(out)
}
