//! Reading Rust and WGSL as text: comments and literals blanked, names, paths, functions. Approximate where a
//! parser would be exact, but without one.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A file below the root.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Contents.
    pub text: String,
}

/// All files below `dir` (itself below `root`) with the extension, sorted; empty if there is no such folder. Packages
/// of npm are left out.
pub fn files(root: &Path, dir: &str, extension: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut open = vec![root.join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != "node_modules" {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension)
                && let Ok(text) = fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(root).unwrap_or(&path);
                found.push(File { path: relative.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The text with comments and the contents of literals replaced by spaces; lines keep their numbers.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let blank = |out: &mut String, range: &[char]| {
        out.extend(range.iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    };
    while i < chars.len() {
        let rest = &chars[i..];
        let len = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['r', '"' | '#', ..] if !ends_in_word(&out) => raw_string(rest),
            ['\'', '\\', ..] => 3 + rest[3..].iter().position(|&c| c == '\'').map_or(0, |at| at + 1),
            ['\'', _, '\'', ..] => 3, // a character; a lifetime has no closing quote
            _ => 0,
        };
        if len == 0 {
            out.push(chars[i]);
            i += 1;
        } else {
            let end = (i + len).min(chars.len());
            blank(&mut out, &chars[i..end]);
            i = end;
        }
    }
    out
}

fn ends_in_word(out: &str) -> bool {
    out.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn block_comment(text: &[char]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < text.len() {
        match text[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    i
}

fn string(text: &[char]) -> usize {
    let mut i = 1;
    while i < text.len() && text[i] != '"' {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string(text: &[char]) -> usize {
    let hashes = text[1..].iter().take_while(|&&c| c == '#').count();
    if text.get(1 + hashes) != Some(&'"') {
        return 0; // a raw identifier
    }
    let body = 2 + hashes;
    let is_end = |i: usize| {
        text[i] == '"' && text.len() > i + hashes && text[i + 1..=i + hashes].iter().all(|&c| c == '#')
    };
    (body..text.len()).find(|&i| is_end(i)).map_or(text.len(), |i| i + 1 + hashes)
}

/// Identifiers of blanked text with their lines, from 1.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(i, line)| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|w| !w.is_empty())
            .map(move |w| (i + 1, w))
    })
}

/// Names that blanked Rust or WGSL text declares, with their lines.
pub fn declared(code: &str) -> Vec<(usize, &str)> {
    const KEYWORDS: [&str; 9] =
        ["fn", "struct", "enum", "trait", "mod", "const", "static", "type", "macro_rules"];
    let words: Vec<_> = words(code).collect();
    let named = words.windows(2).filter(|pair| KEYWORDS.contains(&pair[0].1));
    named.map(|pair| pair[1]).filter(|(_, name)| !KEYWORDS.contains(name)).collect()
}

/// Why a name says how good the thing is or that it came later, instead of what differs.
pub fn vague_word(name: &str) -> Option<&'static str> {
    const WORDS: [&str; 9] =
        ["fast", "slow", "v2", "optimized", "optimised", "helper", "helpers", "utils", "manager"];
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    let parts: Vec<&str> = snake.split('_').collect();
    // `new` is a constructor and `max_new_tokens` a term of the field; `matmul_new` is a confession.
    let is_new = parts.len() > 1 && parts.last() == Some(&"new");
    WORDS.into_iter().find(|w| parts.contains(w)).or(is_new.then_some("new"))
}

/// Every path of blanked Rust text that starts with `crate` or `super`, with groups expanded.
pub fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for root in ["crate", "super"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].trim_end();
            let starts = !ends_in_word(&code[..at]) && !before.ends_with("::");
            let rest = code[at + root.len()..].trim_start();
            if starts && rest.starts_with("::") {
                let line = 1 + code[..at].matches('\n').count();
                let mut branches = Vec::new();
                path_tail(&rest[2..], &mut vec![root.to_owned()], &mut branches);
                found.extend(branches.into_iter().map(|path| (line, path)));
            }
        }
    }
    found
}

/// Reads `a::b`, `a::{b, c::d}`, `*` after a `::`; returns what follows.
fn path_tail<'a>(text: &'a str, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return rest;
            } else if let Some(after) = rest.strip_prefix('}') {
                return after;
            } else if let Some(after) = rest.strip_prefix(',') {
                rest = after;
                continue;
            }
            let before = rest.len();
            rest = path_tail(rest, &mut prefix.clone(), out).trim_start();
            if let Some(alias) = rest.strip_prefix("as ") {
                rest = alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == ' ');
            }
            if rest.len() == before {
                return rest; // not a use tree
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    if end == 0 {
        out.push(prefix.clone());
        return text.strip_prefix('*').unwrap_or(text);
    }
    prefix.push(text[..end].to_owned());
    let rest = text[end..].trim_start();
    match rest.strip_prefix("::") {
        Some(rest) if !rest.trim_start().starts_with('<') => path_tail(rest, prefix, out),
        _ => {
            out.push(prefix.clone());
            &text[end..]
        }
    }
}

/// A function as it is written.
#[derive(Clone, Debug)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Line of `fn`, from 1.
    pub line: usize,
    /// Parameters without `self`, one string each.
    pub params: Vec<String>,
    /// Body on one line, blanks collapsed.
    pub body: String,
}

/// Functions with bodies in blanked Rust or WGSL text.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if ends_in_word(&code[..at]) {
            continue;
        }
        let after = code[at + 3..].trim_start();
        let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(after.len());
        let (name, rest) = after.split_at(end);
        let Some(open) = rest.find('(').filter(|_| !name.is_empty()) else { continue };
        let Some(close) = closing(&rest[open..]) else { continue };
        let tail = &rest[open + close..];
        let Some(brace) = tail.find('{').filter(|&b| !tail[..b].contains(';')) else { continue };
        let Some(last) = closing(&tail[brace..]) else { continue };
        let body = tail[brace..brace + last].split_whitespace().collect::<Vec<_>>().join(" ");
        found.push(Function {
            name: name.to_owned(),
            line: 1 + code[..at].matches('\n').count(),
            params: split_params(&rest[open + 1..open + close - 1]),
            body,
        });
    }
    found
}

/// Bytes up to and with the bracket that closes the one in front.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i + 1);
        }
    }
    None
}

fn split_params(text: &str) -> Vec<String> {
    let (mut params, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '<' | '{' => depth += 1,
            ')' | ']' | '>' | '}' => depth -= 1,
            ',' if depth == 0 => {
                params.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    params.push(&text[start..]);
    let is_value = |p: &str| !p.is_empty() && p.trim_start_matches(['&', ' ']).trim_end() != "self";
    params
        .into_iter()
        .map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|p| is_value(p) && !["mut self", "&mut self", "&'_ self"].contains(&p.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text =
            "a // wgpu\n/* wgpu /* x */ wgpu */ b \"wgpu \\\" wgpu\" c 'w' 'd r#\"wgpu\" wgpu\"# e '\\'' f";
        let code = code(text);
        assert!(!code.contains("wgpu") && !code.contains('w'), "{code}");
        let words: Vec<_> = words(&code).collect();
        assert_eq!(words, [(1, "a"), (2, "b"), (2, "c"), (2, "d"), (2, "e"), (2, "f")]);
    }

    #[test]
    fn paths_are_expanded() {
        let code = "use crate::{norm::x, attention::{self as a, b}, *};\nfn f() { super::super::g::<u8>(); mycrate::h }";
        let paths: Vec<String> =
            paths(code).into_iter().map(|(l, p)| format!("{l} {}", p.join("::"))).collect();
        assert_eq!(
            paths,
            [
                "1 crate::norm::x",
                "1 crate::attention::self",
                "1 crate::attention::b",
                "1 crate",
                "2 super::super::g"
            ]
        );
    }

    #[test]
    fn functions_have_names_lines_parameters_and_bodies() {
        let code = "x\npub fn f<T>(&mut self, a: u32, b: (T, u8)) -> T {\n  a;\n  b\n}\ntrait Q { fn g(); }";
        let found = functions(code);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].line), ("f", 2));
        assert_eq!(found[0].params, ["a: u32", "b: (T, u8)"]);
        assert_eq!(found[0].body, "{ a; b }");
    }

    #[test]
    fn vague_names_are_seen() {
        for name in
            ["fast_gemm", "GemmFast", "utils", "rope_v2", "CacheManager", "matmul_new", "OptimizedGemv"]
        {
            assert!(vague_word(name).is_some(), "{name}");
        }
        for name in ["new", "max_new_tokens", "slot", "fasten", "breakfast", "New"] {
            assert_eq!(vague_word(name), None, "{name}");
        }
    }
}
