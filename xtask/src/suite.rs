//! The test suite at every tier, the checks before it, and one line at the end.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::jobs::{self, Job, Programs};
use crate::process::{cargo, run};
use crate::source::{self, File};
use crate::web;

/// Slowest tests that the end of a run names.
const SLOWEST: usize = 20;

/// Results summed over test binaries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed, also those that [`skipped`](Self::skipped) counts.
    pub passed: usize,
    /// Tests that failed, and test runs that died without a result.
    pub failed: usize,
    /// Names of failed tests.
    pub names: Vec<String>,
    /// Times of tests, where they ran one after the other.
    pub times: Vec<(Duration, String)>,
    /// Tests that compared nothing, by name, and why: to the harness they passed.
    pub skipped: Vec<(String, String)>,
    /// What was left out as a whole, and why.
    pub left_out: Vec<String>,
}

impl Totals {
    /// Takes a line of a test binary's output into account: when it came after the one before, and which binary's it is.
    pub fn read(&mut self, line: &str, took: Duration, binary: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
        {
            let name = format!("{binary}: {}", name.trim_end()); // the tests in a browser are printed as a table
            self.names.extend((outcome == "FAILED").then(|| name.clone()));
            self.times.extend(matches!(outcome, "ok" | "FAILED").then_some((took, name)));
        } else if let Some((name, why)) = line.strip_prefix("skipped: ").and_then(|l| l.split_once(": ")) {
            self.skipped.push((name.to_owned(), why.to_owned()));
        }
    }

    /// Adds the results of another run.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.names.extend(other.names);
        self.times.extend(other.times);
        self.skipped.extend(other.skipped);
        self.left_out.extend(other.left_out);
    }

    /// Tests that compared something and found it right.
    fn compared(&self) -> usize {
        self.passed.saturating_sub(self.skipped.len())
    }

    /// Prints the slowest tests.
    pub fn print_slowest(&self) {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by(|a, b| b.cmp(a));
        println!("slowest tests:");
        for (time, name) in times.into_iter().take(SLOWEST) {
            println!("{:>8.1} s  {name}", time.as_secs_f64());
        }
        println!();
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

/// Names of the test binaries of the `tests` crate whose text names one of `marks`.
fn binaries(files: &[File], marks: &[&str]) -> Vec<String> {
    let marked = |file: &&File| {
        let code = source::code(&file.text);
        source::words(&code).any(|(_, word)| marks.contains(&word))
    };
    let name =
        |file: &File| file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    files.iter().filter(marked).map(name).collect()
}

/// Binaries that use a device and run at its best tier only.
const ONCE: [&str; 4] = ["gguf_llama_cpp", "expert_memory", "limits", "tune"];

/// Names of the binaries that run at t0 as well: all that use a device, but for
/// - the kernels against their twins, whose cases name their variants: at the best tier they run all of these,
/// - what compares files and memory, not kernels, and takes a CPU minutes.
fn binaries_at_t0(files: &[File]) -> Vec<String> {
    let twins = binaries(files, &["run_case"]);
    let mut all = binaries(files, &["Gpu", "gpu"]);
    all.retain(|name| !twins.contains(name) && !ONCE.contains(&name.as_str()));
    all
}

/// Names of the binaries that run at t1 as well: operations and models against goldens. Kernels choose other variants there
/// than at the best tier of a CPU.
fn binaries_at_t1(files: &[File]) -> Vec<String> {
    const MODELS: [&str; 2] = ["models.rs", "trained.rs"];
    let named = |file: &&File| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        name.starts_with("ops_") || MODELS.contains(&name)
    };
    let named: Vec<File> = files.iter().filter(named).cloned().collect();
    binaries(&named, &["fn"]) // a mark that every file has
}

/// The files of the `tests` crate that are binaries.
pub(crate) fn test_files() -> Vec<File> {
    let mut files = source::files(&source::root(), "tests/tests", "rs");
    files.retain(|file| file.path.matches('/').count() == 2); // a folder holds modules, not binaries
    files
}

/// What [`build`] has made, or why not.
#[derive(Debug)]
pub struct Built {
    programs: Result<Programs, String>,
    package: Result<(), String>,
}

impl Built {
    /// The command, if the tests were built.
    pub fn girih(&self) -> Option<&Path> {
        self.programs.as_ref().ok().map(|programs| programs.girih.as_path())
    }
}

/// Builds the tests, and the package for browsers beside them. Without the package its tests fail, and the others
/// still run.
pub fn build(times: &mut Times) -> Built {
    times.step("build tests and package", || {
        std::thread::scope(|scope| {
            let package = scope.spawn(web::package);
            let programs = jobs::build();
            let package = package.join().unwrap_or_else(|_| Err("the build of the package panicked".into()));
            Built { programs, package }
        })
    })
}

/// Runs the suite: at `tier` only, or everything at the device's best tier and beside it what runs on the
/// GPU again at the tiers below. `adapter` is what the probe printed.
///
/// # Errors
/// A run without a single test.
pub fn test(times: &mut Times, built: Built, adapter: &str, tier: Option<&str>) -> Result<Totals, String> {
    let Built { programs, package } = built;
    let (mut failures, mut left_out) = (Vec::new(), Vec::new());
    failures.extend(package.err().map(|error| format!("cargo xtask web: {error}")));
    let built = programs.map_or_else(
        |error| {
            failures.push(error);
            Vec::new()
        },
        |programs| programs.tests,
    );
    let mut all: Vec<Job> = built.iter().map(|binary| Job::new(binary, tier)).collect();
    if tier.is_none() {
        let files = test_files();
        let again = |names: &[String], tier| -> Vec<Job> {
            built.iter().filter(|b| names.contains(&b.name)).map(|b| Job::new(b, Some(tier))).collect()
        };
        all.extend(again(&binaries_at_t0(&files), "t0"));
        if adapter.contains("tier t0") {
            left_out.push("nothing ran at t1: the device has no subgroups".into());
        } else {
            all.extend(again(&binaries_at_t1(&files), "t1"));
        }
    }
    if !built.is_empty() {
        all.push(Job::doc_tests());
    }
    let mut totals = times.step("test", || jobs::run(all));
    totals.failed += failures.len();
    totals.names.extend(failures);
    totals.left_out.extend(left_out);
    if totals.compared() == 0 && totals.failed == 0 {
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
    let names = binaries(&files, &["fn"]);
    if names.is_empty() {
        println!("no test writes goldens");
        return Ok(());
    }
    let mut args = vec!["test", "--workspace"];
    args.extend(names.iter().flat_map(|name| ["--test", name]));
    run(cargo(&args, &[("GIRIH_BLESS", "1")]))?;
    println!("review the difference: git diff --stat tests/goldens");
    Ok(())
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
            totals.read(line, Duration::from_secs(1), "b");
        }
        assert_eq!((totals.passed, totals.failed), (14, 2));
        assert_eq!(totals.names, ["b: a::c", "b: api::d"]);
        let names: Vec<&str> = totals.times.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["b: a::b", "b: a::c", "b: api::d", "b: tint_accepts"]);
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
        assert_eq!(binaries(&files, &["Gpu"]), ["twins"]);
    }

    #[test]
    fn operations_and_models_run_at_lower_tiers_and_twins_once() {
        for chosen in [binaries_at_t0(&test_files()), binaries_at_t1(&test_files())] {
            for name in ["ops_attention", "ops_matmul", "models", "trained"] {
                assert!(chosen.iter().any(|chosen| chosen == name), "{name}: {chosen:?}");
            }
            assert!(!chosen.contains(&"kernel_twins".to_owned()), "{chosen:?}");
        }
        let all = binaries(&test_files(), &["Gpu", "gpu"]);
        for name in ONCE {
            assert!(all.iter().any(|known| known == name), "{name} is no binary that uses a device");
        }
        assert!(!binaries_at_t1(&test_files()).contains(&"devices".to_owned()));
    }

    #[test]
    fn the_tests_in_a_browser_run_once() {
        let files = test_files();
        assert!(files.iter().any(|file| file.path == "tests/tests/browser.rs"));
        let again = binaries(&files, &["Gpu", "gpu", "run_case"]);
        assert!(!again.is_empty() && !again.contains(&"browser".to_owned()), "{again:?}");
    }
}
