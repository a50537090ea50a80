//! Directives in, WGSL out, with a map from generated lines back to their files.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Selection;

/// For whom the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// wgpu's own front end, naga 30: no `enable subgroups;`.
    Naga,
    /// A browser: `enable subgroups;` is required where subgroup operations are used.
    Browser,
    /// A browser without the language feature `packed_4x8_integer_dot_product`: its functions come along in WGSL.
    BrowserBase,
}

/// Defines what [`Dialect::BrowserBase`] lacks.
const PACKED_4X8: &str = "common/packed_4x8.wgsl";

/// A directive that cannot be carried out; each is a mistake in a shader file or in a `select` function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A path that no file has.
    #[error("no shader file is called {0}")]
    NoFile(String),
    /// A selection names a constant that the text does not declare with `//!spec`.
    #[error("{file}: no //!spec is called {name}")]
    NoSpec {
        /// Root file.
        file: String,
        /// Constant asked for.
        name: String,
    },
    /// A selection names a part that the text has no slot or import for.
    #[error("{file}: no //!slot or //!import is called {name}")]
    NoSlot {
        /// Root file.
        file: String,
        /// Slot asked for.
        name: String,
    },
    /// A directive is malformed.
    #[error("{file}:{line}: {what}")]
    Malformed {
        /// File of the directive.
        file: String,
        /// Line of the directive, from 1.
        line: u32,
        /// What was expected.
        what: &'static str,
    },
}

/// Where a generated line comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Path below `shaders/`.
    pub file: &'static str,
    /// Line in that file, from 1; 0 for a hoisted `enable`.
    pub line: u32,
}

/// Text for the compiler and the way back from its positions.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The shader.
    pub wgsl: String,
    map: Vec<Origin>,
}

impl Composed {
    /// `file:line` of a line of [`Composed::wgsl`], counted from 1.
    pub fn origin(&self, line: u32) -> Option<String> {
        let origin = self.map.get(line.checked_sub(1)? as usize)?;
        Some(format!("{}:{}", origin.file, origin.line))
    }
}

struct Line {
    text: String,
    origin: Origin,
}

struct Expansion<'a> {
    root: &'a str,
    selection: &'a Selection,
    enables: Vec<&'static str>,
    used: Vec<&'static str>,
    lines: Vec<Line>,
}

/// Composes the file `root` with a selection, for a dialect.
///
/// # Errors
/// [`ComposeError`]: unknown files, constants or slots, malformed directives.
pub fn compose(root: &str, selection: &Selection, dialect: Dialect) -> Result<Composed, ComposeError> {
    let mut exp = Expansion { root, selection, enables: Vec::new(), used: Vec::new(), lines: Vec::new() };
    expand(&mut exp, root)?;
    if dialect == Dialect::BrowserBase {
        define_packed_4x8(&mut exp)?;
    }
    for (name, _) in selection.spec() {
        if !exp.used.contains(name) {
            return Err(ComposeError::NoSpec { file: root.into(), name: (*name).into() });
        }
    }
    for (name, _) in selection.parts() {
        if !exp.used.contains(name) {
            return Err(ComposeError::NoSlot { file: root.into(), name: (*name).into() });
        }
    }
    let Expansion { mut enables, lines, .. } = exp;
    enables.sort_unstable();
    enables.dedup();
    let mut consts = BTreeMap::new();
    for line in &lines {
        if let Some((name, expr)) = const_decl(&line.text)
            && let Some(value) = evaluate(expr, &consts)
        {
            consts.insert(name.to_owned(), value);
        }
    }
    let mut out = Composed { wgsl: String::new(), map: Vec::new() };
    for name in enables {
        if name != "subgroups" || dialect != Dialect::Naga {
            let _ = writeln!(out.wgsl, "enable {name};");
            out.map.push(Origin { file: "enable", line: 0 });
        }
    }
    unroll(&lines, &consts, &[], &mut out)?;
    Ok(out)
}

/// Appends the functions of [`PACKED_4X8`] that the text calls; each hides the builtin of its name.
fn define_packed_4x8(exp: &mut Expansion<'_>) -> Result<(), ComposeError> {
    let calls: Vec<String> = exp.lines.iter().map(|line| line.text.clone()).collect();
    let first = exp.lines.len();
    expand(exp, PACKED_4X8)?;
    let mut wanted = true;
    let mut i = first;
    while i < exp.lines.len() {
        // Functions are separated by comments and empty lines, and begin at the left margin.
        let text = &exp.lines[i].text;
        if let Some(signature) = text.strip_prefix("fn ") {
            let name = signature.split('(').next().unwrap_or_default();
            wanted = calls.iter().any(|line| calls_function(line, name));
        } else if text.is_empty() || text.starts_with("//") {
            wanted = false;
        }
        if wanted {
            i += 1;
        } else {
            exp.lines.remove(i);
        }
    }
    Ok(())
}

/// Whether a line calls a function: `unpack(` is no call of `pack`.
fn calls_function(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        line[at + name.len()..].starts_with('(') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn expand(exp: &mut Expansion<'_>, path: &str) -> Result<(), ComposeError> {
    let (path, text) = crate::FILES
        .iter()
        .find(|(name, _)| *name == path)
        .copied()
        .ok_or_else(|| ComposeError::NoFile(path.into()))?;
    let mut skip = false;
    for (i, text) in text.lines().enumerate() {
        let origin = Origin { file: path, line: i as u32 + 1 };
        let malformed = |what| ComposeError::Malformed { file: path.into(), line: i as u32 + 1, what };
        let trimmed = text.trim();
        if let Some(name) = trimmed.strip_prefix("//!slot ") {
            let name = name.split([':', ' ']).next().unwrap_or_default();
            if skip {
                return Err(malformed("//!slot inside a //!slot"));
            }
            if let Some(&(slot, part)) = exp.selection.parts().iter().find(|(n, _)| *n == name) {
                exp.used.push(slot);
                expand(exp, part)?;
                skip = true;
            }
        } else if trimmed == "//!end" {
            skip = false;
        } else if skip {
        } else if let Some(name) = trimmed.strip_prefix("//!enable ") {
            exp.enables.push(name.trim());
        } else if let Some(import) = trimmed.strip_prefix("//!import ") {
            let stem = import.rsplit('/').next().unwrap_or(import).trim_end_matches(".wgsl");
            match exp.selection.parts().iter().find(|(n, _)| *n == stem) {
                Some(&(slot, part)) => {
                    exp.used.push(slot);
                    expand(exp, part)?;
                }
                None => expand(exp, import.trim())?,
            }
        } else if let Some(head) = trimmed.strip_suffix("//!spec") {
            let (head, _) = head.split_once('=').ok_or(malformed("//!spec without `=`"))?;
            let name = head.split([' ', ':']).filter(|w| !w.is_empty()).nth(1);
            let name = name.ok_or(malformed("//!spec without a name"))?;
            let spec = exp.selection.spec().iter().find(|(n, _)| *n == name);
            let text = match spec {
                Some(&(name, value)) => {
                    exp.used.push(name);
                    format!("{head}= {value};")
                }
                None => trimmed.trim_end_matches("//!spec").trim_end().to_owned(),
            };
            exp.lines.push(Line { text, origin });
        } else {
            exp.lines.push(Line { text: text.to_owned(), origin });
        }
    }
    if skip {
        return Err(ComposeError::Malformed {
            file: exp.root.into(),
            line: 0,
            what: "//!slot without //!end",
        });
    }
    Ok(())
}

/// `const NAME: u32 = EXPR;` at module scope.
fn const_decl(line: &str) -> Option<(&str, &str)> {
    let (head, rest) = line.strip_prefix("const ")?.split_once('=')?;
    Some((head.split(':').next()?.trim(), rest.split(';').next()?.trim()))
}

/// Unsigned arithmetic with `+ - * / %`, parentheses and known names; `None` for anything else.
fn evaluate(expr: &str, consts: &BTreeMap<String, u32>) -> Option<u32> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    for ch in expr.chars().chain([' ']) {
        if ch.is_alphanumeric() || ch == '_' {
            word.push(ch);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if !ch.is_whitespace() {
            tokens.push(ch.to_string());
        }
    }
    let mut pos = 0;
    let value = sum(&tokens, &mut pos, consts)?;
    (pos == tokens.len()).then_some(value)
}

fn sum(tokens: &[String], pos: &mut usize, consts: &BTreeMap<String, u32>) -> Option<u32> {
    let mut value = product(tokens, pos, consts)?;
    while let Some(op @ ("+" | "-")) = tokens.get(*pos).map(String::as_str) {
        *pos += 1;
        let rhs = product(tokens, pos, consts)?;
        value = if op == "+" { value.checked_add(rhs)? } else { value.checked_sub(rhs)? };
    }
    Some(value)
}

fn product(tokens: &[String], pos: &mut usize, consts: &BTreeMap<String, u32>) -> Option<u32> {
    let mut value = atom(tokens, pos, consts)?;
    while let Some(op @ ("*" | "/" | "%")) = tokens.get(*pos).map(String::as_str) {
        *pos += 1;
        let rhs = atom(tokens, pos, consts)?;
        value = match op {
            "*" => value.checked_mul(rhs)?,
            "/" => value.checked_div(rhs)?,
            _ => value.checked_rem(rhs)?,
        };
    }
    Some(value)
}

fn atom(tokens: &[String], pos: &mut usize, consts: &BTreeMap<String, u32>) -> Option<u32> {
    let token = tokens.get(*pos)?;
    *pos += 1;
    if token == "(" {
        let value = sum(tokens, pos, consts)?;
        (tokens.get(*pos)? == ")").then_some(())?;
        *pos += 1;
        return Some(value);
    }
    token.trim_end_matches('u').parse().ok().or_else(|| consts.get(token).copied())
}

/// Writes lines, with each marked loop replaced by one block per iteration.
fn unroll(
    lines: &[Line],
    consts: &BTreeMap<String, u32>,
    bound: &[(&str, u32)],
    out: &mut Composed,
) -> Result<(), ComposeError> {
    const WANT: &str = "//!unroll wants `for (var NAME = 0u; NAME < CONST; NAME++) {`";
    let mut i = 0;
    while i < lines.len() {
        let Line { text, origin } = &lines[i];
        let trimmed = text.trim();
        if !(trimmed.starts_with("for (var ") && trimmed.ends_with("//!unroll")) {
            let mut text = text.clone();
            for &(name, value) in bound {
                text = replace_ident(&text, name, &format!("{value}u"));
            }
            out.wgsl.push_str(&text);
            out.wgsl.push('\n');
            out.map.push(origin.clone());
            i += 1;
            continue;
        }
        let malformed = |what| ComposeError::Malformed { file: origin.file.into(), line: origin.line, what };
        let mut depth = 1;
        let end = (i + 1..lines.len())
            .find(|&j| {
                let line = lines[j].text.trim();
                if line.starts_with("for (var ") && line.ends_with("//!unroll") {
                    depth += 1;
                } else if line == "} //!unroll" {
                    depth -= 1;
                }
                depth == 0
            })
            .ok_or(malformed("//!unroll never closed"))?;
        let (var, rest) = trimmed["for (var ".len()..].split_once(" = 0u; ").ok_or(malformed(WANT))?;
        let limit = rest
            .strip_prefix(var)
            .and_then(|r| r.strip_prefix(" < "))
            .and_then(|r| r.split_once("; "))
            .ok_or(malformed(WANT))?
            .0;
        let count = evaluate(limit, consts).ok_or(malformed("the bound of an //!unroll must be constant"))?;
        for value in 0..count {
            out.wgsl.push_str("{\n");
            out.map.push(origin.clone());
            let mut inner = bound.to_vec();
            inner.retain(|(name, _)| *name != var);
            inner.push((var, value));
            unroll(&lines[i + 1..end], consts, &inner, out)?;
            out.wgsl.push_str("}\n");
            out.map.push(lines[end].origin.clone());
        }
        i = end + 1;
    }
    Ok(())
}

/// Replaces an identifier in the code of a line; members (`v.i`) and comments stay.
fn replace_ident(line: &str, ident: &str, with: &str) -> String {
    let (code, comment) = match line.find("//") {
        Some(at) => line.split_at(at),
        None => (line, ""),
    };
    let mut out = String::new();
    let mut word = String::new();
    for ch in code.chars() {
        if ch.is_alphanumeric() || ch == '_' {
            word.push(ch);
            continue;
        }
        flush(&mut word, ident, with, &mut out);
        out.push(ch);
    }
    flush(&mut word, ident, with, &mut out);
    out.push_str(comment);
    out
}

fn flush(word: &mut String, ident: &str, with: &str, out: &mut String) {
    out.push_str(if word == ident && !out.ends_with('.') { with } else { word });
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluates_constant_arithmetic() {
        let consts = BTreeMap::from([("TM".to_owned(), 4), ("TY".to_owned(), 16)]);
        assert_eq!(evaluate("TM * TY / 2u", &consts), Some(32));
        assert_eq!(evaluate("(TM + 1u) * 2u - 3u", &consts), Some(7));
        assert_eq!(evaluate("TM * X", &consts), None);
        assert_eq!(evaluate("1u - 2u", &consts), None);
    }

    #[test]
    fn browsers_without_packed_integers_get_the_functions_that_are_called() {
        let int = Selection::new();
        let composed = |dialect| compose("matmul/gemm_int.wgsl", &int, dialect).expect("composes").wgsl;
        let (with, without) = (composed(Dialect::Browser), composed(Dialect::BrowserBase));
        assert!(with.contains("dot4I8Packed(") && !with.contains("fn dot4I8Packed("));
        assert!(without.contains("fn dot4I8Packed(a: u32, b: u32) -> i32 {"));
        assert!(!without.contains("fn pack4xI8("), "not called");
        let plain = compose("norm/rms_norm.wgsl", &int, Dialect::BrowserBase).expect("composes").wgsl;
        assert_eq!(plain, compose("norm/rms_norm.wgsl", &int, Dialect::Browser).expect("composes").wgsl);
    }

    #[test]
    fn replaces_identifiers_but_not_members_or_comments() {
        assert_eq!(replace_ident("acc[i] += v.i * i; // i", "i", "3u"), "acc[3u] += v.i * 3u; // i");
        assert_eq!(replace_ident("id + i", "i", "0u"), "id + 0u");
    }
}
