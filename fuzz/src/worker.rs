//! One process that runs inputs of one target. It writes every input down before it runs it, so that the process which
//! started it knows what killed it, and ends itself when an input takes too long.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{self, Budget, Finding, Observer, Progress, STACK, TIME};
use crate::targets::Target;
use crate::{Files, corpus};

/// Exit code after an input that took too long.
pub const TOO_LONG: u8 = 75;
/// Exit code of a replay whose input failed without killing it.
pub const FAILED: u8 = 76;

/// What a worker is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// Seed of the mutations.
    pub seed: u64,
    /// When to stop.
    pub budget: Budget,
    /// Where the current input stands: its length in 8 bytes, then itself.
    pub current: PathBuf,
    /// Folder of inputs that reached something new.
    pub kept: PathBuf,
    /// Inputs that are not to be run: they killed an earlier worker.
    pub avoid: BTreeSet<u64>,
}

/// Milliseconds since the start at which the current input began; 0 while none runs.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Ends the process once an input has run for too long: by the time of the processor, which does not count that others
/// use the machine as well, and for one that waits by the clock.
fn watch() {
    std::thread::spawn(|| {
        let mut current = 0;
        let mut since = (processor_time(), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let began = BEGAN.load(Ordering::Relaxed);
            let now = processor_time();
            if began != current {
                current = began;
                since = (now, Instant::now());
            }
            let waited = since.1.elapsed();
            let worked = now.zip(since.0).map_or(waited, |(now, then)| now.saturating_sub(then));
            if began > 0 && (worked > TIME || waited > 10 * TIME) {
                std::process::exit(TOO_LONG.into());
            }
        }
    });
}

/// Time that this process has had of the processor, where Linux tells it (in hundredths of a second).
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold blanks; behind it come the state and ten numbers, then those of user and system.
    let (_, numbers) = stat.rsplit_once(')')?;
    let ticks: u64 = numbers.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(10 * ticks))
}

/// Runs `work` in a thread with the stack of a browser's worker.
fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    std::thread::Builder::new().name("inputs".into()).stack_size(STACK).spawn(work).ok()?.join().ok()
}

struct Reporter {
    target: &'static Target,
    job: Job,
    current: File,
    start: Instant,
    keys: BTreeSet<String>,
    said: Instant,
}

impl Observer for Reporter {
    fn starts(&mut self, input: &Files) {
        let bytes = input.encode(self.target.only);
        let written = self.current.seek(SeekFrom::Start(0)).and_then(|_| {
            self.current.write_all(&[&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat())
        });
        if let Err(error) = written {
            println!("note {}: {error}", self.job.current.display());
        }
        BEGAN.store(1 + self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn ended(&mut self, progress: Progress) {
        BEGAN.store(0, Ordering::Relaxed);
        if self.said.elapsed() > Duration::from_millis(500) || progress.runs == self.job.budget.runs {
            self.said = Instant::now();
            say(progress);
        }
    }

    fn keeps(&mut self, input: &Files) {
        if let Err(error) = corpus::keep(self.target, &self.job.kept, input) {
            println!("note {}: {error}", self.job.kept.display());
        }
    }

    fn fails(&mut self, finding: &Finding, input: &Files) {
        BEGAN.store(0, Ordering::Relaxed);
        if self.keys.insert(finding.key.clone()) {
            let shorter = engine::minimise(input, 500, |i| {
                BEGAN.store(1 + self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
                engine::run(self.target, i).is_err_and(|f| f == *finding)
            });
            BEGAN.store(0, Ordering::Relaxed);
            let mut hex = String::new();
            for byte in shorter.encode(self.target.only) {
                let _ = write!(hex, "{byte:02x}");
            }
            println!("finding {hex} {}", finding.key);
        } else {
            println!("again {}", finding.key);
        }
    }
}

fn say(progress: Progress) {
    println!("at {} {} {}", progress.runs, progress.edges, progress.corpus);
}

/// Fuzzes, and says on standard output what happens, a line each: `at RUNS EDGES CORPUS`, `finding HEX KEY`,
/// `again KEY`, `note TEXT`.
pub fn work(target: &'static Target, job: Job) -> ExitCode {
    let start = Instant::now();
    let current = match File::create(&job.current) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("{}: {error}", job.current.display());
            return ExitCode::FAILURE;
        }
    };
    let mut seeds: Vec<Files> = [corpus::seeds(target), corpus::regressions(target), job.kept.clone()]
        .iter()
        .flat_map(|dir| corpus::read(target, dir))
        .map(|(_, input)| input)
        .collect();
    seeds.retain(|input| !job.avoid.contains(&input.hash()));
    watch();
    let (seed, budget) = (job.seed, job.budget);
    let mut reporter = Reporter { target, job, current, start, keys: BTreeSet::new(), said: start };
    let done = on_small_stack(move || engine::fuzz(target, seeds, seed, budget, &mut reporter));
    match done {
        Some(progress) => {
            say(progress);
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

/// Runs single inputs; says what is wrong with those that fail.
pub fn replay(target: &'static Target, inputs: Vec<(PathBuf, Files)>) -> ExitCode {
    let start = Instant::now();
    watch();
    let failed = on_small_stack(move || {
        let mut failed = 0;
        for (path, input) in inputs {
            eprintln!("{}", path.display());
            BEGAN.store(1 + start.elapsed().as_millis() as u64, Ordering::Relaxed);
            let result = engine::run(target, &input);
            BEGAN.store(0, Ordering::Relaxed);
            if let Err(finding) = result {
                println!("{}: {}", path.display(), finding.key);
                failed += 1;
            }
        }
        failed
    });
    if failed == Some(0) { ExitCode::SUCCESS } else { FAILED.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_time_of_the_processor_goes_on_with_work() {
        let (before, start) = (processor_time().expect("Linux tells"), Instant::now());
        while start.elapsed() < Duration::from_secs(20) {
            if processor_time().expect("Linux tells") >= before + Duration::from_millis(50) {
                return;
            }
        }
        panic!("none in 20 s");
    }
}
