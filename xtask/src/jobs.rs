//! The test binaries of the workspace side by side: as many as there are cores, each with one test at a time. Most
//! binaries wait for a device or a browser half of their time; two at once keep two cores busy.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::{self, cargo, stream, string_after};
use crate::suite::Totals;

/// Binaries that run for minutes, the longest first: they start first, so that none is left alone at the end. The
/// others follow in the order of their names.
const LONG: &[&str] = &[
    "browser",
    "odd_shapes",
    "kernel_twins",
    "trained",
    "ops_quant_input",
    "warm_up",
    "gguf_llama_cpp",
    "bounded",
    "command",
    "tune",
    "limits",
    "models",
    "devices",
    "ops_matmul",
    "ops_attention",
];

/// Processes at once even where there are fewer cores.
const MIN_SLOTS: usize = 2;

/// A built test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Name of the file in `tests/`, or of the crate whose unit tests it holds.
    pub name: String,
    program: PathBuf,
    /// Folder of its package, where cargo would run it.
    dir: PathBuf,
}

/// What the build of the tests makes.
#[derive(Clone, Debug)]
pub struct Programs {
    /// All test binaries of the workspace.
    pub tests: Vec<Binary>,
    /// The command, which some of them start. A build of its own would have other features and compile the workspace
    /// again.
    pub girih: PathBuf,
}

/// Builds all test binaries of the workspace, and the command.
///
/// # Errors
/// A build that fails.
pub fn build() -> Result<Programs, String> {
    let args = ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    let (mut tests, mut girih) = (Vec::new(), None);
    let built = stream(cargo(&args, &[]), |line| match artifact(line) {
        Some((binary, true)) => tests.push(binary),
        Some((binary, false)) if binary.name == "girih" => girih = Some(binary.program),
        _ => {}
    })?;
    if !built {
        return Err("the tests do not build".into());
    }
    if tests.is_empty() {
        return Err("cargo named no test binary".into());
    }
    Ok(Programs { tests, girih: girih.ok_or("cargo did not say where girih is")? })
}

/// The program that a line of cargo's JSON messages says was built, and whether it holds tests.
fn artifact(message: &str) -> Option<(Binary, bool)> {
    if string_after(message, "\"reason\":\"")? != "compiler-artifact" {
        return None;
    }
    let profile = message.split_once("\"profile\":{")?.1.split('}').next()?;
    let target = message.split_once("\"target\":{")?.1;
    let binary = Binary {
        name: string_after(target, "\"name\":\"")?,
        program: process::executable(message)?.into(),
        dir: Path::new(&string_after(message, "\"manifest_path\":\"")?).parent()?.to_path_buf(),
    };
    Some((binary, profile.contains("\"test\":true")))
}

/// A binary at a tier, or the examples in the documentation.
#[derive(Clone, Debug)]
pub struct Job {
    name: String,
    program: PathBuf,
    args: Vec<&'static str>,
    dir: PathBuf,
    tier: Option<String>,
}

impl Job {
    /// Runs a binary, at the device's best tier if there is none.
    pub fn new(binary: &Binary, tier: Option<&str>) -> Self {
        let Binary { name, program, dir } = binary.clone();
        Self { name, program, args: vec![], dir, tier: tier.map(str::to_owned) }
    }

    /// Runs the examples of the documentation.
    pub fn doc_tests() -> Self {
        Self {
            name: "examples in the documentation".into(),
            program: process::cargo_path().into(),
            args: vec!["test", "--workspace", "--doc", "--no-fail-fast"],
            dir: crate::source::root(),
            tier: None,
        }
    }

    fn title(&self) -> String {
        self.tier.as_ref().map_or_else(|| self.name.clone(), |tier| format!("{} at {tier}", self.name))
    }

    /// Runs it to its end: what it printed, and its results.
    fn run(&self) -> (Vec<String>, Totals) {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir).env("RUST_TEST_THREADS", "1");
        match &self.tier {
            Some(tier) => command.env("GIRIH_TIER", tier),
            None => command.env_remove("GIRIH_TIER"), // one in the caller's environment would hide the others
        };
        let title = self.title();
        let mut totals = Totals::default();
        let (lines, succeeded) = match collect(command) {
            Ok(done) => done,
            Err(error) => (vec![(Duration::ZERO, error)], false),
        };
        let mut last = Duration::ZERO;
        for (at, line) in &lines {
            totals.read(line, at.saturating_sub(last), &title);
            if line.starts_with("test ") || line.starts_with("running ") {
                last = *at;
            }
        }
        if !succeeded && totals.failed == 0 {
            totals.failed = 1;
            totals.names.push(format!("{title} (died, or no result of a test: see above)"));
        }
        (lines.into_iter().map(|(_, line)| line).collect(), totals)
    }
}

/// Lines of a process with the time at which they came, and whether it succeeded.
type Lines = (Vec<(Duration, String)>, bool);

/// Runs a command to its end and collects both of its outputs.
fn collect(mut command: Command) -> Result<Lines, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| format!("{name} did not start: {e}"))?;
    let lines = Mutex::new(Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        if let Some(pipe) = stderr {
            scope.spawn(|| read(pipe, start, &lines));
        }
        if let Some(pipe) = stdout {
            read(pipe, start, &lines);
        }
    });
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    Ok((lines.into_inner().unwrap_or_else(PoisonError::into_inner), status.success()))
}

/// Appends the lines of a pipe, each with the time since `start`.
fn read(pipe: impl Read, start: Instant, lines: &Mutex<Vec<(Duration, String)>>) {
    for bytes in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned();
        lock(lines).push((start.elapsed(), line));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs all jobs, the long ones first; the sum of their results. What a job printed comes in one piece.
pub fn run(mut jobs: Vec<Job>) -> Totals {
    jobs.sort_by_key(|job| LONG.iter().position(|name| *name == job.name).unwrap_or(LONG.len()));
    let slots = std::thread::available_parallelism().map_or(1, usize::from).max(MIN_SLOTS).min(jobs.len());
    let waiting = Mutex::new(VecDeque::from(jobs));
    let totals = Mutex::new(Totals::default());
    let work = || {
        loop {
            let Some(job) = lock(&waiting).pop_front() else { return };
            let start = Instant::now();
            let (lines, results) = job.run();
            let mut totals = lock(&totals); // one after the other: whole outputs
            for line in lines {
                println!("{line}");
            }
            println!("-- {}: {results}, {:.1} s\n", job.title(), start.elapsed().as_secs_f64());
            totals.add(results);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..slots {
            scope.spawn(work);
        }
    });
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///g/tests#girih-tests@0.1.0","manifest_path":"/g/tests/Cargo.toml","target":{"kind":["test"],"crate_types":["bin"],"name":"models","src_path":"/g/tests/tests/models.rs","edition":"2024","test":true},"profile":{"opt_level":"2","test":true},"features":[],"filenames":["/g/target/debug/deps/models-1"],"executable":"/g/target/debug/deps/models-1","fresh":true}"#;
        let found = Binary {
            name: "models".into(),
            program: "/g/target/debug/deps/models-1".into(),
            dir: "/g/tests".into(),
        };
        assert_eq!(artifact(line), Some((found.clone(), true)));
        let profile = r#""opt_level":"2","test":"#;
        let command = line.replace(&format!("{profile}true"), &format!("{profile}false"));
        assert_eq!(artifact(&command), Some((found, false)));
        let library = line.replace(r#""executable":"/g/target/debug/deps/models-1""#, r#""executable":null"#);
        assert_eq!(artifact(&library), None);
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn outputs_and_results_of_processes_are_collected() {
        let program = std::env::current_exe().expect("this program");
        let job = |filter: &'static str| Job {
            name: "this".into(),
            program: program.clone(),
            args: vec![filter, "--exact", "--include-ignored"],
            dir: ".".into(),
            tier: None,
        };
        let passed = job("jobs::tests::passes").run();
        assert_eq!((passed.1.passed, passed.1.failed), (1, 0), "{:?}", passed.0);
        let failed = run(vec![job("jobs::tests::passes"), job("jobs::tests::fails_if_it_is_run")]);
        assert_eq!((failed.passed, failed.failed), (1, 1));
        assert_eq!(failed.names, ["this: jobs::tests::fails_if_it_is_run"]);
        let absent = Job { program: "girih-no-such-program".into(), ..job("") }.run();
        assert_eq!((absent.1.failed, absent.1.names.len()), (1, 1), "{:?}", absent.0);
    }

    #[test]
    fn passes() {}

    #[test]
    #[ignore = "the other half of outputs_and_results_of_processes_are_collected"]
    fn fails_if_it_is_run() {
        panic!("as it should");
    }

    #[test]
    fn long_binaries_exist() {
        let tests = crate::source::files(&crate::source::root(), "tests", "rs");
        let fuzz = crate::source::files(&crate::source::root(), "fuzz/tests", "rs");
        for name in LONG {
            let file = format!("/{name}.rs");
            assert!(tests.iter().chain(&fuzz).any(|f| f.path.ends_with(&file)), "{name}");
        }
    }
}
