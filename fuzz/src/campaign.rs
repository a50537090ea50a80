//! Workers as processes, one after the other: what kills them is a finding.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::engine::{self, Budget};
use crate::input::hash;
use crate::targets::Target;
use crate::{Files, corpus, worker};

/// Workers that may die before a target is given up.
const MAX_DEATHS: u64 = 25;

/// What was done with a target.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Inputs that ran.
    pub runs: u64,
    /// Time that took.
    pub time: Duration,
    /// Counters that were reached.
    pub edges: usize,
    /// Inputs that reached something new, with seeds.
    pub corpus: usize,
    /// What failed: how often, and the file that holds the first input, by what went wrong.
    pub findings: BTreeMap<String, (u64, PathBuf)>,
    /// Workers that died.
    pub deaths: u64,
}

/// Where a campaign keeps its files.
#[derive(Clone, Debug)]
pub struct Places {
    /// The program that runs workers.
    pub program: PathBuf,
    /// Folder of everything that is written: `corpus/TARGET/`, `findings/TARGET/`.
    pub output: PathBuf,
}

impl Places {
    fn kept(&self, target: &Target) -> PathBuf {
        self.output.join("corpus").join(target.name)
    }

    fn findings(&self, target: &Target) -> PathBuf {
        self.output.join("findings").join(target.name)
    }
}

/// Fuzzes one target until its budget is spent.
///
/// # Errors
/// A worker that does not start, a folder that cannot be written.
pub fn run(target: &Target, places: &Places, seed: u64, budget: Budget) -> std::io::Result<Outcome> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    std::fs::create_dir_all(places.kept(target))?;
    // Its own, so that two campaigns do not write the same file.
    let current = places.output.join(format!("current-{}-{}", target.name, std::process::id()));
    let mut avoid: Vec<u64> = Vec::new();
    while outcome.runs < budget.runs && start.elapsed() < budget.time && outcome.deaths <= MAX_DEATHS {
        let left = budget.time.saturating_sub(start.elapsed());
        let mut child = Command::new(&places.program)
            .args(["--worker", target.name])
            .args(["--seed", &seed.wrapping_add(outcome.deaths).to_string()])
            .args(["--runs", &(budget.runs - outcome.runs).to_string()])
            .args(["--milliseconds", &left.as_millis().min(u64::MAX.into()).to_string()])
            .arg("--current")
            .arg(&current)
            .arg("--kept")
            .arg(places.kept(target))
            .args(["--avoid", &avoid.iter().map(|h| format!("{h:x}")).collect::<Vec<_>>().join(",")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let before = outcome.runs;
        let errors = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        for line in child.stdout.take().into_iter().flat_map(|o| BufReader::new(o).lines()) {
            heard(target, places, &mut outcome, before, &line?)?;
        }
        let status = child.wait()?;
        let said = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
        if status.success() {
            if outcome.runs == before {
                break;
            }
            continue;
        }
        outcome.deaths += 1;
        let Some(killer) = current_input(target, &current) else {
            return Err(std::io::Error::other(format!("the worker of {}: {status}: {said}", target.name)));
        };
        avoid.push(killer.hash());
        let key = cause(status, &said);
        // An input is guilty if it does it again: a busy machine makes others late.
        if dies(target, places, &killer)
            && (status.code() != Some(worker::TOO_LONG.into()) || dies(target, places, &killer))
        {
            if let Some((count, _)) = outcome.findings.get_mut(&key) {
                *count += 1;
            } else {
                let shorter = engine::minimise(&killer, 40, |input| dies(target, places, input));
                record(target, places, &mut outcome, &key, &shorter)?;
            }
        }
    }
    let _ = std::fs::remove_file(&current);
    outcome.time = start.elapsed();
    Ok(outcome)
}

/// Takes a line of a worker into account.
fn heard(
    target: &Target,
    places: &Places,
    outcome: &mut Outcome,
    before: u64,
    line: &str,
) -> std::io::Result<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "at" => {
            let mut numbers = rest.split(' ').filter_map(|n| n.parse::<u64>().ok());
            let mut next = || numbers.next().unwrap_or(0);
            outcome.runs = before + next();
            outcome.edges = outcome.edges.max(next() as usize);
            outcome.corpus = outcome.corpus.max(next() as usize);
        }
        "finding" => {
            let (hex, key) = rest.split_once(' ').unwrap_or((rest, ""));
            let bytes: Vec<u8> = hex
                .as_bytes()
                .chunks(2)
                .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            record(target, places, outcome, key, &Files::decode(target.only, &bytes))?;
        }
        "again" => {
            if let Some((count, _)) = outcome.findings.get_mut(rest) {
                *count += 1;
            }
        }
        _ => eprintln!("{line}"),
    }
    Ok(())
}

fn record(
    target: &Target,
    places: &Places,
    outcome: &mut Outcome,
    key: &str,
    input: &Files,
) -> std::io::Result<()> {
    if let Some((count, _)) = outcome.findings.get_mut(key) {
        *count += 1;
        return Ok(());
    }
    let path = corpus::keep(target, &places.findings(target), input)?;
    println!("{}: {key}\n  {}", target.name, path.display());
    outcome.findings.insert(key.to_owned(), (1, path));
    Ok(())
}

/// The input that a worker was running.
fn current_input(target: &Target, path: &Path) -> Option<Files> {
    let bytes = std::fs::read(path).ok()?;
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    Some(Files::decode(target.only, rest.get(..u64::from_le_bytes(*len) as usize)?))
}

/// Why a worker ended.
fn cause(status: ExitStatus, said: &str) -> String {
    if status.code() == Some(worker::TOO_LONG.into()) {
        return format!("longer than {} s", engine::TIME.as_secs());
    }
    let line = said.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_ascii_digit()).take(100).collect();
    if line.contains("memory allocation") {
        "memory beyond the bound".into()
    } else {
        format!("{status}: {line}")
    }
}

/// Whether an input fails in a process of its own.
fn dies(target: &Target, places: &Places, input: &Files) -> bool {
    let bytes = input.encode(target.only);
    let path = places.output.join(format!("replay-{:016x}-{}", hash(&bytes), std::process::id()));
    let replayed = std::fs::write(&path, &bytes).and_then(|()| {
        let mut command = Command::new(&places.program);
        command.args(["--replay", target.name]).arg(&path);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status()
    });
    let _ = std::fs::remove_file(&path);
    replayed.is_ok_and(|status| !status.success())
}

/// One line for each target.
pub fn table(outcomes: &[(&str, Outcome)]) -> String {
    let mut out = format!(
        "{:<24} {:>9} {:>8} {:>8} {:>7} {:>7} {:>9}\n",
        "target", "runs", "s", "runs/s", "edges", "corpus", "findings"
    );
    for (name, o) in outcomes {
        let seconds = o.time.as_secs_f64();
        let rate = o.runs as f64 / seconds.max(1e-3);
        let line = format!(
            "{name:<24} {:>9} {seconds:>8.1} {rate:>8.0} {:>7} {:>7} {:>9}\n",
            o.runs,
            o.edges,
            o.corpus,
            o.findings.len()
        );
        out.push_str(&line);
    }
    out
}
