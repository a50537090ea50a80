//! Development commands: `cargo xtask setup | run | web | test | ci | fuzz | isa | tidy | accuracy |
//! published | bless`.

use std::process::{Command, ExitCode};

use xtask::suite::{self, Times, Totals};
use xtask::{accuracy, browser, fuzz, isa, process, published, setup, tidy, web};

const USAGE: &str = "\
cargo xtask <command>

  setup [--check | --dry-run]   make available what the tests need: a Vulkan adapter (Linux: installs Mesa's CPU driver
                                if there is none), Chromium with its driver, node with npm
  run [-- ARGS]                 build, set up, generate a short text; or `girih ARGS`
  web [--serve [--port N]]      build the package and the page for browsers into `web` of cargo's target folder; serve the page
  test [--tier t0..t4]          set up, then the whole suite, and what runs on the GPU again at lower tiers
  ci [--isa]                    format, clippy, docs, then test; with --isa also `isa --check`
  fuzz [TARGET ...] [--runs N] [--seconds S] [--seed X]
                                runs mutated inputs through everything that girih reads (docs/fuzzing.md)
  isa [DEVICE ...] [--all-devices | --list] [--filter TEXT] [--loops] [--json] [--record | --check]
                                compiles the kernels for GPUs that are not here: registers, spills, occupancy, hot loops
                                (docs/machine-code.md); --check compares with the record in docs/benchmarks
  tidy                          counts for reviewers (information only)
  accuracy [DIR ...]            tables of what quantisation costs the built-in model, and checkpoints in folders
  published                     download three published models (500 MB, by pip) and compare them with what llama.cpp and
                                sentence-transformers make of them
  bless                         rewrite goldens; review their difference like code";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if fuzz::is_wrapper(&args) {
        return match fuzz::compile(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE, // the compiler has said why
        };
    }
    let result = match args.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(true)
        }
        ["setup", rest @ ..] => setup(rest),
        ["run", rest @ ..] => girih(rest),
        ["web", rest @ ..] => web::web(rest).map(|()| true),
        ["test"] => test(None),
        ["test", "--tier", tier] => test(Some(tier)),
        ["ci"] => ci(false),
        ["ci", "--isa"] => ci(true),
        ["tidy"] => {
            tidy::print();
            Ok(true)
        }
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        ["isa", rest @ ..] => isa::isa(rest),
        ["accuracy", models @ ..] => accuracy::run(models),
        ["published"] => published::compare(),
        ["bless"] => suite::bless().map(|()| true),
        other => Err(format!("unknown arguments: {}\n\n{USAGE}", other.join(" "))),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setup(args: &[&str]) -> Result<bool, String> {
    let options = match args {
        [] => setup::Options::default(),
        ["--check"] => setup::Options { check: true, ..Default::default() },
        ["--dry-run"] => setup::Options { dry_run: true, ..Default::default() },
        other => return Err(format!("setup knows --check and --dry-run, not {}", other.join(" "))),
    };
    // Each says what it lacks, also if the other does.
    let adapter = setup::ensure_adapter(&process::build_program("girih")?, options);
    let programs = browser::ensure(&browser::OF_TESTS, options);
    match (adapter, programs) {
        (Err(adapter), Err(programs)) => Err(format!("{adapter}\n{programs}")),
        (adapter, programs) => adapter.and(programs).map(|()| true),
    }
}

fn girih(args: &[&str]) -> Result<bool, String> {
    let args = args.strip_prefix(&["--"]).unwrap_or(args);
    let program = process::build_program("girih")?;
    setup::ensure_adapter(&program, setup::Options::default())?;
    let default = ["generate", "--prompt", "Once upon a time", "--max-tokens", "200"];
    let args = if args.is_empty() { &default[..] } else { args };
    println!("$ {} {}", program.display(), args.join(" "));
    let status = Command::new(&program).args(args).status();
    Ok(status.map_err(|e| format!("{}: {e}", program.display()))?.success())
}

fn test(tier: Option<&str>) -> Result<bool, String> {
    let mut times = Times::default();
    let totals = suite(&mut times, tier)?;
    Ok(close(&times, &totals, &[]))
}

/// `with_isa`: also what the kernels become on other devices, against the record.
fn ci(with_isa: bool) -> Result<bool, String> {
    let mut times = Times::default();
    let mut failed = suite::checks(&mut times);
    if with_isa {
        match times.step("isa", || isa::isa(&["--check"])) {
            Ok(true) => {}
            Ok(false) => failed.push("isa"),
            Err(error) => {
                println!("isa: {error}");
                failed.push("isa");
            }
        }
    }
    let totals = suite(&mut times, None)?;
    Ok(close(&times, &totals, &failed))
}

/// What the tests need, then the tests.
fn suite(times: &mut Times, tier: Option<&str>) -> Result<Totals, String> {
    let options = setup::Options::default();
    times.step("programs", || browser::ensure(&browser::OF_TESTS, options))?;
    let built = suite::build(times);
    let adapter = match built.girih() {
        Some(girih) => times.step("adapter", || setup::ensure_adapter(girih, options))?,
        None => String::new(), // nothing runs that needs one
    };
    suite::test(times, built, &adapter, tier)
}

/// Times, what failed, and the closing line.
fn close(times: &Times, totals: &Totals, failed: &[&str]) -> bool {
    totals.print_slowest();
    times.print();
    for (name, why) in &totals.skipped {
        println!("skipped: {name}: {why}");
    }
    for name in &totals.names {
        println!("failed: {name}");
    }
    for check in failed {
        println!("failed: {check}");
    }
    println!("{totals}");
    totals.failed == 0 && failed.is_empty()
}
