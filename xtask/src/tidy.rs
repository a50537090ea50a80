//! `cargo xtask tidy`: counts for the questions that a reviewer asks of the code. Information, not a gate.

use std::collections::BTreeMap;
use std::process::Command;

use crate::source::{self, File, Function};

/// Folders with code of ours.
pub const CODE: [&str; 11] =
    ["shaders", "kernels", "ops", "model", "quantize", "src", "tests", "web", "fuzz", "isa", "xtask"];

/// All Rust and WGSL files.
pub fn code_files() -> Vec<File> {
    let root = source::root();
    let of = |ext| CODE.iter().flat_map(|dir| source::files(&root, dir, ext)).collect::<Vec<_>>();
    let mut files = of("rs");
    files.extend(of("wgsl"));
    files
}

/// A function and where it stands.
type Found<'a> = (&'a str, Function);

/// Bodies of some length that stand in more than one place.
fn duplicates<'a>(functions: &'a [Found<'a>]) -> Vec<Vec<&'a Found<'a>>> {
    const LONG: usize = 100; // characters: shorter ones are accessors and one-liners
    let mut by_body: BTreeMap<&str, Vec<&Found<'_>>> = BTreeMap::new();
    for found in functions.iter().filter(|(_, f)| f.body.len() >= LONG) {
        by_body.entry(&found.1.body).or_default().push(found);
    }
    let mut groups: Vec<_> = by_body.into_values().filter(|group| group.len() > 1).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len() * group[0].1.body.len()));
    groups
}

/// Neighbouring parameters of one type, which a caller can swap unnoticed.
fn swappable(params: &[String]) -> usize {
    let kind = |p: &String| p.split_once(':').map(|(_, kind)| kind.trim().to_owned());
    params.windows(2).filter(|pair| kind(&pair[0]).is_some() && kind(&pair[0]) == kind(&pair[1])).count()
}

/// Vague words in file names and declared names: `(file, line, name, word)`.
pub fn vague_names(files: &[File]) -> Vec<(String, usize, String, &'static str)> {
    let mut found = Vec::new();
    for file in files {
        let stem = file.path.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
        if let Some(word) = source::vague_word(stem) {
            found.push((file.path.clone(), 0, stem.to_owned(), word));
        }
        let code = source::code(&file.text);
        for (line, name) in source::declared(&code) {
            if let Some(word) = source::vague_word(name) {
                found.push((file.path.clone(), line, name.to_owned(), word));
            }
        }
    }
    found
}

/// The last commit that added a file like the ones wanted: its name, what it added, how many files it touched.
fn last_addition(log: &str, wanted: impl Fn(&str) -> bool) -> Option<String> {
    for commit in log.split('\u{1}').skip(1) {
        let mut lines = commit.lines();
        let subject = lines.next()?;
        let files: Vec<(&str, &str)> = lines.filter_map(|l| l.split_once('\t')).collect();
        let added = files.iter().filter(|(kind, path)| *kind == "A" && wanted(path)).count();
        if added > 0 {
            return Some(format!("{added} added, {} files touched: {subject}", files.len()));
        }
    }
    None
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, e)| e == extension)
}

/// Prints the counts.
pub fn print() {
    let files = code_files();
    println!("6  places touched by the last commit that added");
    let log = Command::new("git")
        .args(["log", "--no-merges", "--name-status", "--format=%x01%h %s"])
        .current_dir(source::root())
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
        .unwrap_or_default();
    let depth = |path: &str| path.matches('/').count();
    let rust = |path: &str, dir: &str| {
        path.starts_with(dir) && has_extension(path, "rs") && !path.ends_with("/mod.rs")
    };
    let additions = [
        ("a shader file", last_addition(&log, |p| p.starts_with("shaders/") && has_extension(p, "wgsl"))),
        ("a kernel", last_addition(&log, |p| rust(p, "kernels/src/") && depth(p) == 3)),
        ("an op file", last_addition(&log, |p| rust(p, "ops/src/"))),
        ("an architecture", last_addition(&log, |p| rust(p, "model/src/network/arch/"))),
    ];
    for (what, found) in additions {
        println!("     {what}: {}", found.as_deref().unwrap_or("none yet"));
    }

    let codes: Vec<(&str, String)> = files.iter().map(|f| (f.path.as_str(), source::code(&f.text))).collect();
    let functions: Vec<Found<'_>> = codes
        .iter()
        .flat_map(|(path, code)| source::functions(code).into_iter().map(|f| (*path, f)))
        .collect();
    let groups = duplicates(&functions);
    println!(
        "8  function bodies of 100 characters or more that exist twice: {} of {}",
        groups.len(),
        functions.len()
    );
    for group in &groups {
        let places: Vec<String> =
            group.iter().map(|(path, f)| format!("{path}:{} {}", f.line, f.name)).collect();
        println!("     {}", places.join(" = "));
    }

    let mut long: Vec<&Found<'_>> =
        functions.iter().filter(|(path, f)| has_extension(path, "rs") && f.params.len() > 5).collect();
    long.sort_by_key(|(_, f)| std::cmp::Reverse((swappable(&f.params), f.params.len())));
    println!("10 functions with more than 5 positional parameters: {}", long.len());
    for (path, f) in &long {
        println!(
            "     {path}:{} {}: {} parameters, {} swappable neighbours",
            f.line,
            f.name,
            f.params.len(),
            swappable(&f.params)
        );
    }

    let counts: Vec<(&str, usize)> = codes
        .iter()
        .map(|(path, code)| (*path, source::words(code).filter(|(_, w)| *w == "target_arch").count()))
        .filter(|&(_, n)| n > 0)
        .collect();
    println!("12 cfg(target_arch): {}", counts.iter().map(|(_, n)| n).sum::<usize>());
    for (path, n) in counts {
        println!("     {path}: {n}");
    }

    let vague = vague_names(&files);
    println!("16 names that say fast, slow, new, v2, optimized, helper, utils, manager: {}", vague.len());
    for (path, line, name, word) in vague {
        println!("     {path}:{line} {name} ({word})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_addition_is_found() {
        let log = "\u{1}c3 later\n\nM\tops/src/norm.rs\n\u{1}b2 add\n\nA\tops/src/rope.rs\nM\tops/src/lib.rs\n\
                   \u{1}a1 first\n\nA\tops/src/norm.rs\n";
        let found = last_addition(log, |p| p.starts_with("ops/src/")).expect("there is one");
        assert_eq!(found, "1 added, 2 files touched: b2 add");
        assert_eq!(last_addition(log, |p| p.starts_with("model/")), None);
    }

    #[test]
    fn equal_bodies_and_swappable_parameters_are_seen() {
        let body = format!("{{ {} }}", "x; ".repeat(50));
        let f = |name: &str, body: &str| {
            ("a.rs", Function { name: name.into(), line: 1, params: vec![], body: body.into() })
        };
        let functions = [f("a", &body), f("b", &body), f("c", "{ x }"), f("d", "{ x }")];
        assert_eq!(duplicates(&functions).len(), 1);
        let params = ["a: u32", "b: u32", "c: f32"].map(str::to_owned);
        assert_eq!(swappable(&params), 1);
    }

    #[test]
    fn vague_file_and_item_names_are_listed() {
        let text = "// fn fast_path\nfn slow_path() {}\n";
        let file = File { path: "ops/src/utils.rs".into(), text: text.into() };
        let found = vague_names(&[file]);
        let names: Vec<_> = found.iter().map(|(_, line, name, _)| (*line, name.as_str())).collect();
        assert_eq!(names, [(0, "utils"), (2, "slow_path")]);
    }
}
