//! The guides say what the code says: kernels, architectures, tests, links.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use girih_kernels::Access;
use girih_kernels::registry::KERNELS;
use girih_model::Config;
use girih_model::network::arch::{KNOWN, MODEL_TYPES};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Cells of the table row whose first cell is `name` in backquotes. `\|` is no border.
fn row(page: &str, name: &str) -> Vec<String> {
    let start = format!("| `{name}` |");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with(&start)).collect();
    assert_eq!(rows.len(), 1, "{name} has {} rows", rows.len());
    let cells = rows[0].trim_matches('|').replace("\\|", "\0");
    cells.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// What stands in backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_table_of_kernels_is_the_registry() {
    let page = read("docs/kernels.md");
    for kernel in KERNELS {
        let name = kernel.spec.name;
        let cells = row(&page, name);
        let [_, _, bindings, variants] = cells.as_slice() else { panic!("{name}: {cells:?}") };
        let want: Vec<String> = kernel
            .spec
            .bindings
            .iter()
            .map(
                |b| if b.access == Access::ReadWrite { format!("**{}**", b.name) } else { b.name.to_owned() },
            )
            .collect();
        assert_eq!(*bindings, want.join(", "), "{name}");
        let want: BTreeSet<String> = (kernel.choices)().iter().map(|c| c.variant.to_owned()).collect();
        assert_eq!(quoted(variants), want, "{name}");
    }
}

#[test]
fn the_table_of_architectures_is_the_list_of_model_types() {
    let page = read("docs/models.md");
    for known in KNOWN.gguf {
        let cells = row(&page, known.model_type);
        let family = &known.family;
        let window = if family.windowed { " with a sliding window" } else { "" };
        let shared = KNOWN.gguf.iter().any(|a| a.family.name == family.name && !a.family.mixture);
        let experts = if family.mixture && shared { " with experts" } else { "" };
        let want = match family.name {
            "" => "none".to_owned(),
            name => format!("`{name}`{window}{experts}"),
        };
        assert_eq!(cells.last(), Some(&want), "{}", known.model_type);
    }
    let documented: BTreeSet<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("| `model_type` |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    assert_eq!(documented, MODEL_TYPES.iter().copied().collect());
}

#[test]
fn the_table_of_mixtures_is_that_of_the_architectures_with_experts() {
    let page = read("docs/models.md");
    let section = page.split("### ").find(|section| section.starts_with("Mixtures of experts")).expect("it");
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains("(`"));
    let documented: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let has_experts = |model: &&str| {
        let text = serde_json::json!({"model_type": model, "head_dim": 64}).to_string();
        Config::parse(text.as_bytes()).expect("defaults").experts.is_some()
    };
    assert_eq!(documented, MODEL_TYPES.iter().copied().filter(has_experts).collect());
}

/// Targets of the links of a page that are files of ours, without `#section`.
fn links(page: &str) -> Vec<&str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut pages =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "EXPERIMENTS.md"].map(PathBuf::from).to_vec();
    for folder in ["docs", "docs/benchmarks"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
        let names = entries.map(|e| PathBuf::from(folder).join(e.expect("an entry").file_name()));
        pages.extend(names.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    assert!(pages.len() > 10, "{pages:?}");
    let mut broken = Vec::new();
    for page in &pages {
        let text = read(&page.display().to_string());
        for target in links(&text) {
            if !root().join(page).parent().is_some_and(|dir| dir.join(target).exists()) {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g)"), ["b.md"]);
}

#[test]
fn the_readme_counts_the_kernels() {
    let counted = format!("| Kernels | {}: ", KERNELS.len());
    assert!(read("README.md").contains(&counted), "README.md: no {counted:?}");
}

/// Rows of the table of invariants that have two cells: what holds them.
fn held_by(page: &str) -> Vec<&str> {
    let section = page.split("\n## ").find(|section| section.starts_with("Invariants")).expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.skip(1)
        .filter_map(|row| row.trim_end_matches([' ', '|']).rsplit_once(" | "))
        .map(|row| row.1)
        .collect()
}

#[test]
fn the_tests_that_hold_the_invariants_exist() {
    // A lint, and names of tests in a browser.
    const OTHERS: [&str; 5] = ["unsafe_code", "api", "api::", "t0::", "t1::"];
    let page = read("ARCHITECTURE.md");
    let cells = held_by(&page);
    assert!(cells.len() > 40, "{} rows", cells.len());
    let mut missing = Vec::new();
    for name in cells.iter().flat_map(|cell| quoted(cell)) {
        let file = |test: &str| root().join(format!("tests/tests/{test}.rs"));
        let is_there = match name.split_once("::") {
            Some((test, function)) if !function.is_empty() => {
                let text = std::fs::read_to_string(file(test)).unwrap_or_default();
                text.contains(&format!("fn {function}")) // the beginning of several is enough
            }
            _ if name.contains('/') => root().join(&name).exists(),
            _ if name == "ops_*" => file("ops_matmul").exists(),
            _ => file(&name).exists(),
        };
        if !is_there && !OTHERS.contains(&name.as_str()) && !name.starts_with("cargo xtask ") {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md names tests that do not exist: {missing:?}");
}
