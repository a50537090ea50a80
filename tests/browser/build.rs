//! Finds the tests on a device in `tests/tests` and here, and the files that they read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "src/scan.rs"]
mod scan;

/// Files whose tests run natively only: hundreds of tokens of a trained model take SwiftShader minutes at t0. In a
/// browser `web/tests/story.ts` tells its stories through the package.
const NATIVE_ONLY: [&str; 1] = ["trained"];

/// Rust files of a folder, sorted.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    found.sort();
    found
}

/// Paths of all files below a folder, from `name`.
fn below(dir: &Path, name: &str, found: &mut Vec<String>) {
    println!("cargo::rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let entry = entry.expect("an entry");
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            below(&entry.path(), &path, found);
        } else if entry.path().extension().is_none_or(|e| e != "md") {
            found.push(path);
        }
    }
}

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let tests = here.parent().expect("a folder").to_path_buf();
    let mut files = Vec::new();
    below(&tests.join("goldens"), "goldens", &mut files);
    below(&tests.join("../assets"), "assets", &mut files);
    files.sort();
    let (mut modules, mut entries) = (String::new(), String::new());
    for dir in [tests.join("tests"), here.join("src/tests")] {
        println!("cargo::rerun-if-changed={}", dir.display());
        for path in sources(&dir) {
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let found = scan::tests(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            if found.is_empty() {
                continue;
            }
            let module = path.file_stem().expect("a name").to_string_lossy().into_owned();
            if NATIVE_ONLY.contains(&module.as_str()) {
                continue;
            }
            writeln!(modules, "#[path = {:?}]\nmod {module};", path.display().to_string()).expect("a text");
            for test in found {
                let name = format!("{module}::{}", test.name);
                let mut needed = Vec::new();
                for start in &test.files {
                    let before = needed.len();
                    needed.extend(files.iter().filter(|file| scan::begins(file, start)));
                    assert!(needed.len() > before, "{name} reads {start:?}: there is no such file");
                }
                let run = format!("|gpu| Box::pin({name}(gpu))");
                writeln!(entries, "Test {{ name: {name:?}, files: &{needed:?}, run: {run} }},")
                    .expect("a text");
            }
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("tests.rs");
    let text = format!("{modules}\nconst TESTS: &[Test] = &[\n{entries}];\n");
    fs::write(&out, text).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
}
