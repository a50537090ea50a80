//! Running programs: every command is printed before it runs.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::source;

/// The cargo that runs this program.
pub fn cargo_path() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the repository's root. Arguments are printed.
pub fn cargo(args: &[&str], env: &[(&str, &str)]) -> Command {
    let vars = env.iter().map(|(name, value)| format!("{name}={value}"));
    let words: Vec<String> =
        vars.chain(["cargo".into()]).chain(args.iter().map(ToString::to_string)).collect();
    println!("$ {}", words.join(" "));
    let _ = std::io::stdout().flush();
    let mut command = Command::new(cargo_path());
    command.args(args).envs(env.iter().copied()).current_dir(source::root());
    command
}

/// Runs a command to its end.
///
/// # Errors
/// A program that does not start or fails.
pub fn run(mut command: Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name} did not start: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {status}")) }
}

/// Runs a command, handing each line of its standard output to `line`; returns whether it succeeded.
///
/// # Errors
/// A program that does not start.
pub fn stream(mut command: Command, mut line: impl FnMut(&str)) -> Result<bool, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{name} did not start: {e}"))?;
    if let Some(stdout) = child.stdout.take() {
        for bytes in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            line(String::from_utf8_lossy(&bytes).trim_end_matches('\r'));
        }
    }
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    Ok(status.success())
}

/// Builds a program of the workspace with the features of the whole workspace, so that no other build repeats its
/// dependencies; returns where it is.
///
/// # Errors
/// A build that fails.
pub fn build_program(name: &str) -> Result<PathBuf, String> {
    build_program_with(name, &[])
}

/// [`build_program`] with variables of the environment.
///
/// # Errors
/// A build that fails.
pub fn build_program_with(name: &str, env: &[(&str, &str)]) -> Result<PathBuf, String> {
    let args = ["build", "--workspace", "--bin", name, "--message-format=json-render-diagnostics"];
    let mut found = None;
    let built = stream(cargo(&args, env), |line| {
        if let Some(path) = executable(line) {
            found = Some(PathBuf::from(path));
        }
    })?;
    if !built {
        return Err(format!("{name} does not build"));
    }
    found.ok_or_else(|| format!("cargo did not say where {name} is"))
}

/// Cargo's target folder, wherever an environment variable or a configuration has put it.
///
/// # Errors
/// A cargo that does not start, or does not say it.
pub fn target_dir() -> Result<PathBuf, String> {
    let mut command = Command::new(cargo_path());
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(source::root());
    let output = command.output().map_err(|e| format!("cargo did not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    string_after(&text, "\"target_directory\":\"").map(PathBuf::from).ok_or_else(|| {
        format!("cargo metadata names no target folder: {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}

/// The program that a line of cargo's JSON messages says was built.
pub(crate) fn executable(message: &str) -> Option<String> {
    string_after(message, "\"executable\":\"")
}

/// The path that stands in JSON behind `start`.
pub(crate) fn string_after(json: &str, start: &str) -> Option<String> {
    let text = json.split_once(start)?.1;
    let mut path = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some(path),
            '\\' => path.push(chars.next()?), // paths hold no control characters: only \\ and \" occur
            c => path.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_its_target_folder_is() {
        let dir = target_dir().unwrap();
        let here = std::env::current_exe().unwrap();
        assert!(here.starts_with(&dir), "{} is not below {}", here.display(), dir.display());
        let moved = r#"{"packages":[],"target_directory":"C:\\else where","version":1}"#;
        assert_eq!(string_after(moved, "\"target_directory\":\"").as_deref(), Some(r"C:\else where"));
    }

    #[test]
    fn the_executable_is_found_in_a_message() {
        let line = r#"{"reason":"compiler-artifact","executable":"C:\\a\\girih.exe","fresh":true}"#;
        assert_eq!(executable(line).as_deref(), Some(r"C:\a\girih.exe"));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
    }
}
