//! `girih-fuzz`: see `docs/fuzzing.md`. `cargo xtask fuzz` builds it with counters in girih's own code and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use girih_fuzz::campaign::{self, Outcome, Places};
use girih_fuzz::engine::Budget;
use girih_fuzz::targets::{self, Target};
use girih_fuzz::{Files, corpus, runtime, worker};

const USAGE: &str = "\
girih-fuzz [TARGET ...] [--runs N] [--seconds S] [--seed X] [--output DIR]
girih-fuzz --replay TARGET [FILE | DIR ...]
girih-fuzz --list

  --runs      inputs for each target (1000000, or as many as the time allows)
  --seconds   time for all targets together
  --output    folder of findings and of inputs that reached something new (target/fuzz)
  --replay    runs inputs: all seeds and all that failed once if none are named";

#[derive(Default)]
struct Arguments {
    worker: bool,
    replay: bool,
    list: bool,
    names: Vec<String>,
    runs: Option<u64>,
    milliseconds: Option<u64>,
    seed: u64,
    output: Option<PathBuf>,
    current: PathBuf,
    kept: PathBuf,
    avoid: String,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match arg.as_str() {
            "--worker" => out.worker = true,
            "--replay" => out.replay = true,
            "--list" => out.list = true,
            "--runs" => out.runs = Some(number(value()?)?),
            "--seconds" => out.milliseconds = Some(number(value()?)?.saturating_mul(1000)),
            "--milliseconds" => out.milliseconds = Some(number(value()?)?),
            "--seed" => out.seed = number(value()?)?,
            "--output" => out.output = Some(value()?.into()),
            "--current" => out.current = value()?.into(),
            "--kept" => out.kept = value()?.into(),
            "--avoid" => out.avoid = value()?,
            option if option.starts_with("--") => return Err(format!("{option} is unknown\n\n{USAGE}")),
            name => out.names.push(name.to_owned()),
        }
    }
    Ok(out)
}

fn target(name: &str) -> Result<&'static Target, String> {
    let all = targets::ALL.iter().map(|t| t.name).collect::<Vec<_>>().join(", ");
    targets::ALL
        .iter()
        .find(|t| t.name == name)
        .ok_or_else(|| format!("{name} is no target; there are {all}"))
}

fn main() -> ExitCode {
    let done = parse(std::env::args().skip(1)).and_then(run);
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn run(args: Arguments) -> Result<ExitCode, String> {
    if args.list {
        for target in targets::ALL {
            println!("{}", target.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.replay {
        let (name, files) = args.names.split_first().ok_or(USAGE)?;
        return replay(target(name)?, files);
    }
    let time = args.milliseconds.map_or(Duration::MAX, Duration::from_millis);
    let all_runs = if args.milliseconds.is_some() { u64::MAX } else { 1_000_000 };
    let budget = Budget { runs: args.runs.unwrap_or(all_runs), time };
    if args.worker {
        let name = args.names.first().ok_or(USAGE)?;
        let avoid = args.avoid.split(',').filter_map(|h| u64::from_str_radix(h, 16).ok()).collect();
        let job = worker::Job { seed: args.seed, budget, current: args.current, kept: args.kept, avoid };
        return Ok(worker::work(target(name)?, job));
    }
    let chosen: Vec<&Target> = match args.names.as_slice() {
        [] => targets::ALL.iter().collect(),
        names => names.iter().map(|name| target(name)).collect::<Result<_, _>>()?,
    };
    let output = args.output.unwrap_or_else(|| corpus::root().join("../target/fuzz"));
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let places = Places { program, output };
    if runtime::counters() == 0 {
        println!("no code is instrumented: mutations are blind (cargo xtask fuzz builds with counters)");
    }
    let mut outcomes: Vec<(&str, Outcome)> = Vec::new();
    for (i, target) in chosen.iter().enumerate() {
        let spent: Duration = outcomes.iter().map(|(_, o)| o.time).sum();
        let share = budget.time.saturating_sub(spent) / (chosen.len() - i) as u32;
        let budget = Budget { time: share, ..budget };
        let outcome = campaign::run(target, &places, args.seed, budget).map_err(|e| e.to_string())?;
        print!("{}", campaign::table(&[(target.name, outcome.clone())]));
        outcomes.push((target.name, outcome));
    }
    println!("\n{}", campaign::table(&outcomes));
    let mut clean = true;
    for (name, outcome) in &outcomes {
        for (key, (count, path)) in &outcome.findings {
            clean = false;
            println!("{name}: {count} times {key}\n  {}", path.display());
        }
    }
    Ok(if clean { ExitCode::SUCCESS } else { worker::FAILED.into() })
}

fn replay(target: &'static Target, files: &[String]) -> Result<ExitCode, String> {
    let mut inputs = Vec::new();
    if files.is_empty() {
        inputs.extend(corpus::read(target, &corpus::seeds(target)));
        inputs.extend(corpus::read(target, &corpus::regressions(target)));
    }
    for file in files.iter().map(PathBuf::from) {
        if file.is_dir() {
            inputs.extend(corpus::read(target, &file));
        } else {
            let bytes = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            inputs.push((file, Files::decode(target.only, &bytes)));
        }
    }
    Ok(worker::replay(target, inputs))
}
