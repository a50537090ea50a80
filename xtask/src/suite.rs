//! The test suite at every tier, the checks before it, and one line at the end.

use std::fmt;
use std::time::{Duration, Instant};

use crate::process::{cargo, run, stream};
use crate::source::{self, File};

/// Results summed over test binaries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed, also those that [`skipped`](Self::skipped) counts.
    pub passed: usize,
    /// Tests that failed, and test runs that died without a result.
    pub failed: usize,
    /// Names of failed tests.
    pub names: Vec<String>,
    /// Tests that compared nothing, by name, and why: to the harness they passed.
    pub skipped: Vec<(String, String)>,
    /// What was left out as a whole, and why.
    pub left_out: Vec<String>,
}

impl Totals {
    /// Takes a line of `cargo test`'s output into account.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.names.push(name.trim_end().to_owned()); // the tests in a browser are printed as a table
        } else if let Some((name, why)) = line.strip_prefix("skipped: ").and_then(|l| l.split_once(": ")) {
            self.skipped.push((name.to_owned(), why.to_owned()));
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.names.extend(other.names);
        self.skipped.extend(other.skipped);
        self.left_out.extend(other.left_out);
    }

    /// Tests that compared something and found it right.
    fn compared(&self) -> usize {
        self.passed.saturating_sub(self.skipped.len())
    }
}

/// The number before a word: `5` in `ok. 5 passed; 0 failed`.
fn count(counts: &str, what: &str) -> usize {
    counts
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(what))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// The closing line.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.compared(), self.failed)?;
        if !self.skipped.is_empty() {
            let mut reasons: Vec<&str> = self.skipped.iter().map(|(_, why)| why.as_str()).collect();
            reasons.sort_unstable();
            reasons.dedup();
            write!(f, ", {} skipped ({})", self.skipped.len(), reasons.join("; "))?;
        }
        self.left_out.iter().try_for_each(|what| write!(f, "; {what}"))
    }
}

/// Named wall times.
#[derive(Debug, Default)]
pub struct Times(Vec<(String, Duration)>);

impl Times {
    /// Runs a step and notes its time.
    pub fn step<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        println!("== {name}");
        let start = Instant::now();
        let result = step();
        println!("== {name}: {:.1} s\n", start.elapsed().as_secs_f64());
        self.0.push((name.to_owned(), start.elapsed()));
        result
    }

    /// Prints a table.
    pub fn print(&self) {
        for (name, time) in &self.0 {
            println!("{:>8.1} s  {name}", time.as_secs_f64());
        }
        println!("{:>8.1} s  total", self.0.iter().map(|(_, t)| t.as_secs_f64()).sum::<f64>());
    }
}

/// Arguments that choose the test binaries of the `tests` crate whose text names one of `marks`.
fn binaries(files: &[File], marks: &[&str]) -> Vec<String> {
    let marked = |file: &&File| {
        let code = source::code(&file.text);
        source::words(&code).any(|(_, word)| marks.contains(&word))
    };
    let mut found = Vec::new();
    for file in files.iter().filter(marked) {
        let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        found.extend(["--test".to_owned(), name.to_owned()]);
    }
    found
}

/// Arguments that choose what runs at t1 as well: the kernels against their twins, operations and models against
/// goldens. Kernels choose other variants there than at the best tier of a CPU.
fn binaries_at_t1(files: &[File]) -> Vec<String> {
    const MODELS: [&str; 2] = ["models.rs", "trained.rs"];
    let named = |file: &&File| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        name.starts_with("ops_") || MODELS.contains(&name)
    };
    let named: Vec<File> = files.iter().filter(named).cloned().collect();
    let twins = binaries(files, &["run_case"]);
    // A mark that every file has.
    twins.into_iter().chain(binaries(&named, &["fn"])).collect()
}

fn test_files() -> Vec<File> {
    let mut files = source::files(&source::root(), "tests/tests", "rs");
    files.retain(|file| file.path.matches('/').count() == 2); // a folder holds modules, not binaries
    files
}

/// Runs `cargo test --workspace` with more arguments and variables, through all failures.
fn cargo_test(args: &[String], env: &[(&str, &str)]) -> Result<Totals, String> {
    let mut all = vec!["test", "--workspace", "--no-fail-fast"];
    all.extend(args.iter().map(String::as_str));
    let mut totals = Totals::default();
    let mut command = cargo(&all, env);
    if !env.iter().any(|(name, _)| *name == "GIRIH_TIER") {
        command.env_remove("GIRIH_TIER"); // a tier in the caller's environment would hide the others
    }
    let succeeded = stream(command, |line| {
        println!("{line}");
        totals.read(line);
    })?;
    if !succeeded && totals.failed == 0 {
        totals.failed = 1; // did not compile, or a binary died
        totals.names.push(format!("cargo {} (no result of a test: see above)", all.join(" ")));
    }
    Ok(totals)
}

/// Builds and runs the suite: at `tier` only, or everything at the device's best tier and then what runs on the
/// GPU again at the tiers below. `adapter` is what the probe printed.
///
/// # Errors
/// A cargo that does not start.
pub fn test(times: &mut Times, adapter: &str, tier: Option<&str>) -> Result<Totals, String> {
    let build = cargo(&["test", "--workspace", "--no-run"], &[]);
    if let Err(error) = times.step("build tests", || run(build)) {
        return Ok(Totals { failed: 1, names: vec![error], ..Totals::default() });
    }
    if let Some(tier) = tier {
        return times.step(&format!("test at {tier}"), || cargo_test(&[], &[("GIRIH_TIER", tier)]));
    }
    let mut totals = times.step("test", || cargo_test(&[], &[]))?;
    let files = test_files();
    let on_gpu = binaries(&files, &["Gpu", "gpu"]);
    if !on_gpu.is_empty() {
        totals.add(times.step("test at t0", || cargo_test(&on_gpu, &[("GIRIH_TIER", "t0")]))?);
    }
    if adapter.contains("tier t0") {
        totals.left_out.push("nothing ran at t1: the device has no subgroups".into());
    } else {
        let at_t1 = binaries_at_t1(&files);
        totals.add(times.step("test at t1", || cargo_test(&at_t1, &[("GIRIH_TIER", "t1")]))?);
    }
    if totals.compared() == 0 {
        return Err("not a single test ran".into());
    }
    Ok(totals)
}

/// Name, arguments of cargo, variables.
type Step = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

/// The checks before the tests; names of those that failed.
pub fn checks(times: &mut Times) -> Vec<&'static str> {
    let steps: [Step; 3] = [
        ("fmt", &["fmt", "--all", "--check"], &[]),
        ("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
        ("doc", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]),
    ];
    let mut failed = Vec::new();
    for (name, args, env) in steps {
        if let Err(error) = times.step(name, || run(cargo(args, env))) {
            println!("{name}: {error} (`rustup component add rustfmt clippy` if cargo lacks the command)");
            failed.push(name);
        }
    }
    failed
}

/// Rewrites goldens: runs the tests that can with `GIRIH_BLESS=1`.
///
/// # Errors
/// A test that fails even so.
pub fn bless() -> Result<(), String> {
    // The name of the variable stands in a literal, so the text is searched as it is.
    let mut files = test_files();
    files.retain(|file| file.text.contains("GIRIH_BLESS") || file.text.contains("bless("));
    let args = binaries(&files, &["fn"]);
    if args.is_empty() {
        println!("no test writes goldens");
        return Ok(());
    }
    let totals = cargo_test(&args, &[("GIRIH_BLESS", "1")])?;
    println!("{totals}; review the difference: git diff --stat tests/goldens");
    if totals.failed == 0 { Ok(()) } else { Err(totals.names.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test api::d    ... FAILED",
            "test result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "",
            "skipped: tint_accepts: tint is not installed",
            "test tint_accepts ... ok",
            "skipped: t1::b::tint_accepts: tint is not installed",
            "skipped: a::d: models/a: not there",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.25s",
        ] {
            totals.read(line);
        }
        assert_eq!((totals.passed, totals.failed), (14, 2));
        assert_eq!(totals.names, ["a::c", "api::d"]);
        assert_eq!(
            totals.to_string(),
            "11 passed, 2 failed, 3 skipped (models/a: not there; tint is not installed)"
        );
        totals.left_out.push("nothing ran at t1".into());
        assert!(totals.to_string().ends_with("installed); nothing ran at t1"));
        assert_eq!(Totals { passed: 1, ..Totals::default() }.to_string(), "1 passed, 0 failed");
    }

    #[test]
    fn a_test_that_ends_early_says_that_it_compares_nothing() {
        let mut found = 0;
        for file in test_files() {
            let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
            for pair in lines.windows(2).filter(|pair| pair[1] == "return;") {
                assert!(pair[0].contains("skipped("), "{}: {:?} before `return;`", file.path, pair[0]);
                found += 1;
            }
        }
        assert!(found > 0, "the search finds nothing");
    }

    #[test]
    fn binaries_are_chosen_by_what_they_name() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [
            file("tests/tests/twins.rs", "use girih_kernels::Gpu;"),
            file("tests/tests/text.rs", "// Gpu\nfn main() {}"),
        ];
        assert_eq!(binaries(&files, &["Gpu"]), ["--test", "twins"]);
    }

    #[test]
    fn twins_operations_and_models_run_at_t1() {
        let chosen = binaries_at_t1(&test_files());
        for name in ["kernel_twins", "ops_attention", "ops_matmul", "models", "trained"] {
            assert!(chosen.iter().any(|chosen| chosen == name), "{name}: {chosen:?}");
        }
        assert!(!chosen.contains(&"devices".to_owned()), "{chosen:?}");
    }

    #[test]
    fn the_tests_in_a_browser_run_once() {
        let files = test_files();
        assert!(files.iter().any(|file| file.path == "tests/tests/browser.rs"));
        let again = binaries(&files, &["Gpu", "gpu", "run_case"]);
        assert!(!again.is_empty() && !again.contains(&"browser".to_owned()), "{again:?}");
    }
}
