//! `cargo xtask web`: the package and the page for browsers, in `web` of cargo's target folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::process::{self, cargo, run};
use crate::setup::Options;
use crate::{browser, source};

const TARGET: &str = "wasm32-unknown-unknown";
/// The crates that are modules for a browser.
const MODULES: [&str; 2] = ["girih-web", "girih-browser-tests"];
/// Written last: where it is, the package is whole. Its path from the target folder.
pub const SIZES: &str = "web/size.json";

/// What `cargo xtask web` is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Package,
    /// And then serve it at a port.
    Serve(u16),
}

fn parse(args: &[&str]) -> Result<Task, String> {
    match args {
        [] => Ok(Task::Package),
        ["--serve"] => Ok(Task::Serve(8080)),
        ["--serve", "--port", port] => {
            port.parse().map(Task::Serve).map_err(|_| format!("found the port {port}, wanted 0 to 65535"))
        }
        other => Err(format!("web knows --serve and --serve --port N, not {}", other.join(" "))),
    }
}

/// Runs `cargo xtask web` with its arguments.
///
/// # Errors
/// Arguments that it does not know, a step that fails.
pub fn web(args: &[&str]) -> Result<(), String> {
    let task = parse(args)?;
    browser::ensure(&browser::OF_BUILD, Options::default())?;
    package()?;
    if let Task::Serve(port) = task {
        let program = process::build_program("girih-web-build")?;
        run(command(&program, &process::target_dir()?, &["serve", "--port", &port.to_string()]))?;
    }
    Ok(())
}

/// Builds the modules and makes `web` in the target folder of them.
///
/// # Errors
/// A step that fails; then there is no [`SIZES`].
pub fn package() -> Result<(), String> {
    let target = process::target_dir()?;
    let sizes = target.join(SIZES);
    match fs::remove_file(&sizes) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(format!("{SIZES}: {error}")),
        _ => {}
    }
    ensure_target()?;
    let mut build = vec!["build", "--profile", "wasm", "--target", TARGET];
    build.extend(MODULES.iter().flat_map(|module| ["-p", module]));
    run(cargo(&build, &[]))?;
    let program = process::build_program("girih-web-build")?;
    run(command(&program, &target, &["package"]))
}

fn command(program: &Path, target: &Path, args: &[&str]) -> Command {
    println!("$ girih-web-build {} --target {}", args.join(" "), target.display());
    let mut command = Command::new(program);
    command.args(args).arg("--target").arg(target).current_dir(source::root());
    command
}

/// Adds the standard library for WASM to the toolchain, if it is not there.
fn ensure_target() -> Result<(), String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let libraries = asked.map_err(|e| format!("rustc did not start: {e}"))?.stdout;
    if Path::new(String::from_utf8_lossy(&libraries).trim()).is_dir() {
        return Ok(());
    }
    println!("$ rustup target add {TARGET}");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]).current_dir(source::root());
    run(rustup).map_err(|error| without_target(&error))
}

fn without_target(error: &str) -> String {
    format!(
        "{error}\nfound no standard library for {TARGET}, wanted one of this rustc's version: with rustup (and its \
         server in reach) `rustup target add {TARGET}`; with a rustc of a distribution its package, Debian's is \
         libstd-rust-dev-wasm32"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        assert_eq!(parse(&[]), Ok(Task::Package));
        assert_eq!(parse(&["--serve"]), Ok(Task::Serve(8080)));
        assert_eq!(parse(&["--serve", "--port", "0"]), Ok(Task::Serve(0)));
        assert!(parse(&["--serve", "--port", "70000"]).unwrap_err().contains("70000"));
        assert!(parse(&["--port", "1"]).unwrap_err().contains("--serve"));
    }

    #[test]
    fn a_missing_target_comes_with_both_ways_to_get_it() {
        let text = without_target("rustup did not start: not found");
        assert!(text.starts_with("rustup did not start"), "{text}");
        assert!(
            text.contains("rustup target add wasm32") && text.contains("libstd-rust-dev-wasm32"),
            "{text}"
        );
    }

    #[test]
    fn the_modules_are_built_with_the_profile_of_the_workspace() {
        let manifest = fs::read_to_string(source::root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[profile.wasm]"));
    }
}
