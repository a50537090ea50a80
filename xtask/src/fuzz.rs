//! `cargo xtask fuzz`: the fuzzer with counters in girih's own code. Libraries from the registry are built as always.

use std::path::Path;
use std::process::Command;

use crate::process::{self, run};

/// Crates that get counters: what reads files. Build scripts and procedural macros have other names.
const INSTRUMENTED: [&str; 2] = ["girih_model", "girih_kernels"];

/// What makes LLVM count how often each branch is taken (SanitizerCoverage; `fuzz/src/runtime.rs` holds the other end).
const COUNTERS: [&str; 6] = [
    "-C",
    "passes=sancov-module",
    "-C",
    "llvm-args=-sanitizer-coverage-level=3",
    "-C",
    "llvm-args=-sanitizer-coverage-inline-8bit-counters",
];

/// The program that runs inputs.
const PROGRAM: &str = "girih-fuzz";

/// Builds the fuzzer and runs it with these arguments; whether it found nothing.
///
/// # Errors
/// A build that fails, a program that does not start.
pub fn fuzz(args: &[&str]) -> Result<bool, String> {
    let own = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    let own = own.to_str().ok_or_else(|| format!("{} is no text", own.display()))?;
    let program = process::build_program_with(PROGRAM, &[("RUSTC_WORKSPACE_WRAPPER", own)])?;
    println!("$ {PROGRAM} {}", args.join(" "));
    let status = Command::new(&program).args(args).status();
    Ok(status.map_err(|e| format!("{}: {e}", program.display()))?.success())
}

/// Whether this program was started as a wrapper of rustc: cargo puts the compiler's path in front.
pub fn is_wrapper(args: &[&str]) -> bool {
    let program = args.first().map(Path::new).and_then(Path::file_stem);
    program.is_some_and(|name| name == "rustc") && std::env::var_os("RUSTC_WORKSPACE_WRAPPER").is_some()
}

/// The arguments of a call of rustc, with counters if it builds a crate that gets them.
fn with_counters<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let name = args.windows(2).find(|pair| pair[0] == "--crate-name").map(|pair| pair[1]);
    let mut all = args.to_vec();
    if name.is_some_and(|name| INSTRUMENTED.contains(&name)) && !args.contains(&"--test") {
        all.extend(COUNTERS);
    }
    all
}

/// Runs the compiler.
///
/// # Errors
/// A compiler that fails.
pub fn compile(args: &[&str]) -> Result<(), String> {
    let (rustc, rest) = args.split_first().ok_or("no compiler is named")?;
    let mut command = Command::new(rustc);
    command.args(with_counters(rest));
    run(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_put_into_what_reads_files() {
        let args = |name: &'static str| with_counters(&["--crate-name", name, "src/lib.rs"]).len();
        assert_eq!(args("girih_model"), 3 + COUNTERS.len());
        assert_eq!(args("build_script_build"), 3);
        assert_eq!(with_counters(&["-vV"]), ["-vV"]);
        let test = ["--crate-name", "girih_model", "--test"];
        assert_eq!(with_counters(&test), test);
    }
}
