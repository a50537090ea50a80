//! Installing what is missing: what the host is, the steps that change it, asking, performing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::{fmt, fs};

use crate::apt::{self, OsRelease, Source};
use crate::process;

/// What decides how a program can be had.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// `linux`, `macos`, `windows`, ...
    pub(crate) os: String,
    pub(crate) release: OsRelease,
    pub(crate) has_apt: bool,
    /// Words before a command that needs root: none for root, `sudo`, or `None` if it cannot be had.
    pub(crate) root: Option<Vec<&'static str>>,
    pub(crate) sources: Vec<Source>,
}

impl Host {
    pub(crate) fn here() -> Self {
        let mut sources = Vec::new();
        let lists = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        let files = lists.map(|e| e.path()).chain(["/etc/apt/sources.list".into()]);
        for path in files.filter(|p| p.extension().is_some_and(|e| e == "list" || e == "sources")) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            sources.extend(apt::sources(&path.to_string_lossy(), &text));
        }
        Self {
            os: std::env::consts::OS.into(),
            release: apt::os_release(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            has_apt: succeeds("apt-get", &["--version"]),
            root: root_prefix(),
            sources,
        }
    }

    /// `apt-get` with arguments, as root; `None` if root cannot be had.
    pub(crate) fn apt_get(&self, args: &[&str]) -> Option<Step> {
        let env = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        Some(Step::Run(self.root.as_ref()?.iter().chain(&env).chain(args).map(|&w| w.to_owned()).collect()))
    }
}

/// Whether a program starts and succeeds, without a sound.
pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    let silent = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    silent.is_ok_and(|s| s.success())
}

fn root_prefix() -> Option<Vec<&'static str>> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() == b"0" {
        return Some(Vec::new());
    }
    if succeeds("sudo", &["-n", "true"]) {
        return Some(vec!["sudo", "-n"]);
    }
    // A password can only be asked of someone.
    (std::io::stdin().is_terminal() && succeeds("sudo", &["--version"])).then(|| vec!["sudo"])
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Run(Vec<String>),
    Write { path: &'static str, text: String },
    Remove { path: &'static str },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(words) => write!(f, "{}", words.join(" ")),
            Self::Write { path, text } => write!(f, "write {path}: {}", text.trim_end().replace('\n', "; ")),
            Self::Remove { path } => write!(f, "remove {path}"),
        }
    }
}

/// How something can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Installation {
    /// Attempts in order; the first whose steps all succeed is enough. `undo` runs after a failed attempt.
    Install { attempts: Vec<Vec<Step>>, undo: Vec<Step> },
    /// Not by this program: what to tell the user.
    Manual(String),
}

impl Installation {
    /// The plan in words; `what` is installed.
    pub(crate) fn describe(&self, what: &str) -> String {
        let mut text = String::new();
        match self {
            Self::Manual(advice) => text = format!("{advice}\n"),
            Self::Install { attempts, undo } => {
                for (i, steps) in attempts.iter().enumerate() {
                    if i == 0 {
                        let _ = writeln!(text, "Installing {what}:");
                    } else {
                        text += "and if that fails:\n";
                    }
                    for step in undo.iter().filter(|_| i > 0).chain(steps) {
                        let _ = writeln!(text, "  {step}");
                    }
                }
            }
        }
        text
    }

    /// Says what will be done, asks at a terminal, does it.
    ///
    /// # Errors
    /// A plan that is for the user, a user who says no, attempts that all fail.
    pub(crate) fn perform(&self, host: &Host, what: &str) -> Result<(), String> {
        let Self::Install { attempts, undo } = self else { return Err(self.describe(what)) };
        print!("{}", self.describe(what));
        if std::io::stdin().is_terminal() && !confirmed() {
            return Err("nothing was changed".into());
        }
        let prefix = host.root.as_deref().unwrap_or_default();
        let mut failure = None;
        for (left, steps) in (0..attempts.len()).rev().zip(attempts) {
            match steps.iter().try_for_each(|step| perform(step, prefix)) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    println!("{error}");
                    failure = Some(error);
                    if left > 0 {
                        undo.iter().try_for_each(|step| perform(step, prefix))?;
                    }
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn confirmed() -> bool {
    print!("Do this? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok()
        && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

fn perform(step: &Step, prefix: &[&str]) -> Result<(), String> {
    println!("$ {step}");
    let as_root = |words: &[&str], input: &str| {
        let words: Vec<&str> = prefix.iter().chain(words).copied().collect();
        let fail = |e: std::io::Error| format!("{}: {e}", words.join(" "));
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(fail)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(fail)?;
        }
        let status = child.wait().map_err(fail)?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", words.join(" "))) }
    };
    match step {
        Step::Write { path, text } => as_root(&["tee", path], text),
        Step::Remove { path } => as_root(&["rm", "-f", path], ""),
        Step::Run(words) => {
            let once = || {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                process::run(command).map_err(|e| format!("`{}`: {e}", words.join(" ")))
            };
            // Mirrors fail now and then, and an update does no harm twice.
            once().or_else(|error| {
                if words.last().is_some_and(|w| w == "update") {
                    println!("{error}; once more");
                    once()
                } else {
                    Err(error)
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_follow_each_other_until_one_succeeds() {
        let words = |line: &str| Step::Run(line.split(' ').map(str::to_owned).collect());
        let host = Host { root: Some(vec![]), ..Host::default() };
        let plan = |attempts: &[&str]| Installation::Install {
            attempts: attempts.iter().map(|line| vec![words(line)]).collect(),
            undo: vec![],
        };
        assert_eq!(plan(&["girih-no-such-program", "rustc --version"]).perform(&host, "x"), Ok(()));
        let error =
            plan(&["rustc --version-of-what", "girih-no-such-program"]).perform(&host, "x").unwrap_err();
        assert!(error.contains("girih-no-such-program"), "{error}");
        assert_eq!(Installation::Manual("by hand".into()).perform(&host, "x"), Err("by hand\n".into()));
    }

    #[test]
    fn a_plan_is_told_before_it_is_performed() {
        let run = |word: &str| Step::Run(vec![word.into()]);
        let plan = Installation::Install {
            attempts: vec![vec![run("first")], vec![run("second")]],
            undo: vec![Step::Remove { path: "/x" }],
        };
        assert_eq!(
            plan.describe("a driver"),
            "Installing a driver:\n  first\nand if that fails:\n  remove /x\n  second\n"
        );
    }
}
