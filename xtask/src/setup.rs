//! `cargo xtask setup`: makes a Vulkan adapter available, a CPU one (Mesa's lavapipe) where there is no GPU.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fmt, fs};

use crate::apt::{self, Backports, OsRelease, Source};
use crate::process;

/// What `girih doctor --probe` answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// There is an adapter; what girih printed about it.
    Found(String),
    /// There is none.
    Missing,
    /// The command failed in another way.
    Failed(String),
}

/// Reads the answer of `girih doctor --probe`: 0 is an adapter, 2 is none.
fn interpret(code: Option<i32>, stdout: &str, stderr: &str) -> Probe {
    match code {
        // An argument parser also exits with 2.
        _ if stderr.contains("unrecognized subcommand") || stderr.contains("unexpected argument") => {
            Probe::Failed(format!("this girih has no `doctor --probe`: {}", stderr.trim()))
        }
        Some(0) => Probe::Found(stdout.trim().to_owned()),
        Some(2) => Probe::Missing,
        code => Probe::Failed(format!("exit status {code:?}: {}", stderr.trim())),
    }
}

/// Asks the built `girih` for an adapter.
pub fn probe(girih: &Path) -> Probe {
    match Command::new(girih).args(["doctor", "--probe"]).stdin(Stdio::null()).output() {
        Err(error) => Probe::Failed(format!("{} did not start: {error}", girih.display())),
        Ok(out) => interpret(
            out.status.code(),
            &String::from_utf8_lossy(&out.stdout),
            &String::from_utf8_lossy(&out.stderr),
        ),
    }
}

/// What decides how an adapter can be had.
#[derive(Clone, Debug, Default)]
struct Host {
    /// `linux`, `macos`, `windows`, ...
    os: String,
    release: OsRelease,
    has_apt: bool,
    /// Words before a command that needs root: none for root, `sudo`, or `None` if it cannot be had.
    root: Option<Vec<&'static str>>,
    sources: Vec<Source>,
}

impl Host {
    fn here() -> Self {
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
}

fn succeeds(program: &str, args: &[&str]) -> bool {
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
enum Step {
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

/// How an adapter can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// Attempts in order; the first whose steps all succeed is enough. `undo` runs after a failed attempt.
    Install { attempts: Vec<Vec<Step>>, undo: Vec<Step> },
    /// Not by this program: what to tell the user.
    Manual(String),
}

const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/girih-backports.sources";
const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

fn plan(host: &Host) -> Plan {
    match host.os.as_str() {
        "linux" => {}
        "macos" => {
            return Plan::Manual(
                "macOS brings Metal; no adapter was found. A virtual machine may have none.".into(),
            );
        }
        "windows" => {
            return Plan::Manual(
                "Windows brings Direct3D 12; no adapter was found. Update the GPU driver.".into(),
            );
        }
        other => return Plan::Manual(format!("install a Vulkan driver for {other}")),
    }
    let manual = format!("apt-get update && apt-get install -y {}", PACKAGES.join(" "));
    if !host.has_apt {
        return Plan::Manual(format!(
            "install a Vulkan loader and driver, as root:\n  \
             Fedora:       dnf install vulkan-loader mesa-vulkan-drivers\n  \
             Arch:         pacman -S vulkan-icd-loader vulkan-swrast\n  \
             openSUSE:     zypper install libvulkan1 libvulkan_lvp\n  \
             Alpine:       apk add vulkan-loader mesa-vulkan-swrast\n  \
             Debian-like:  {manual}"
        ));
    }
    let Some(prefix) = &host.root else {
        return Plan::Manual(format!("neither root nor sudo here; as root run:\n  {manual}"));
    };
    let apt_get = |args: &[&str]| {
        let env = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        Step::Run(prefix.iter().chain(&env).chain(args).map(|&w| w.to_owned()).collect())
    };
    let update = apt_get(&["update"]);
    let install = |from: &[&str]| {
        apt_get(&[&["install", "-y", "--no-install-recommends"], from, PACKAGES.as_slice()].concat())
    };
    let plain = vec![update.clone(), install(&[])];
    // Mesa 25.0.7 instead of 22.3.6: 10 to 60 % less time in lavapipe.
    let backported = host.release.id == "debian" && host.release.codename == "bookworm";
    let from_backports = install(&["-t", "bookworm-backports"]);
    match apt::backports(&host.sources, &host.release.codename) {
        Backports::Present if backported => {
            Plan::Install { attempts: vec![vec![update, from_backports], plain], undo: vec![] }
        }
        Backports::Add(text) if backported => Plan::Install {
            attempts: vec![vec![Step::Write { path: BACKPORTS_FILE, text }, update, from_backports], plain],
            undo: vec![Step::Remove { path: BACKPORTS_FILE }],
        },
        _ => Plan::Install { attempts: vec![plain], undo: vec![] },
    }
}

/// Options of `setup`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only says whether there is an adapter.
    pub check: bool,
    /// Only prints what would be done if there were none.
    pub dry_run: bool,
}

/// Makes sure that there is an adapter; returns what girih says about it.
///
/// # Errors
/// No adapter, and none can be installed: the message says what to do.
pub fn ensure_adapter(girih: &Path, options: Options) -> Result<String, String> {
    let host = Host::here();
    if options.dry_run {
        println!("probe: {:?}\nwithout an adapter this would happen here:", probe(girih));
        print!("{}", describe(&plan(&host)));
        return Ok(String::new());
    }
    match probe(girih) {
        Probe::Found(adapter) => {
            println!("adapter: {}", if adapter.is_empty() { "found" } else { &adapter });
            return Ok(adapter);
        }
        Probe::Failed(why) => return Err(format!("asking for an adapter failed: {why}")),
        Probe::Missing if options.check => {
            return Err("no adapter; `cargo xtask setup` installs one".into());
        }
        Probe::Missing => println!("no adapter"),
    }
    let plan = plan(&host);
    let Plan::Install { attempts, undo } = &plan else {
        return Err(describe(&plan));
    };
    print!("{}", describe(&plan));
    if std::io::stdin().is_terminal() && !confirmed() {
        return Err("nothing was changed".into());
    }
    let prefix = host.root.unwrap_or_default();
    let mut failures = Vec::new();
    for steps in attempts {
        match steps.iter().try_for_each(|step| perform(step, &prefix)) {
            Ok(()) => {
                failures.clear();
                break;
            }
            Err(error) => {
                println!("{error}");
                failures.push(error);
                if failures.len() < attempts.len() {
                    undo.iter().try_for_each(|step| perform(step, &prefix))?;
                }
            }
        }
    }
    if let Some(error) = failures.last() {
        return Err(format!("{error}\nBy hand, as root: apt-get install {}", PACKAGES.join(" ")));
    }
    match probe(girih) {
        Probe::Found(adapter) => {
            println!("adapter: {adapter}");
            Ok(adapter)
        }
        other => Err(format!("the driver was installed, but there is still no adapter: {other:?}")),
    }
}

fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    match plan {
        Plan::Manual(what) => text = format!("{what}\n"),
        Plan::Install { attempts, undo } => {
            for (i, steps) in attempts.iter().enumerate() {
                text += if i == 0 { "Installing a Vulkan driver:\n" } else { "and if that fails:\n" };
                for step in undo.iter().filter(|_| i > 0).chain(steps) {
                    let _ = writeln!(text, "  {step}");
                }
            }
        }
    }
    text
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

    fn debian(codename: &str, sources: &str) -> Host {
        Host {
            os: "linux".into(),
            release: OsRelease { id: "debian".into(), codename: codename.into() },
            has_apt: true,
            root: Some(vec![]),
            sources: apt::sources("sources.list", sources),
        }
    }

    #[test]
    fn answers_of_the_probe() {
        assert_eq!(interpret(Some(0), "llvmpipe, tier t4\n", ""), Probe::Found("llvmpipe, tier t4".into()));
        assert_eq!(interpret(Some(2), "", "no adapter"), Probe::Missing);
        assert!(matches!(
            interpret(Some(2), "", "error: unrecognized subcommand 'doctor'"),
            Probe::Failed(_)
        ));
        assert!(matches!(interpret(Some(101), "", "panicked"), Probe::Failed(_)));
        assert!(matches!(interpret(None, "", ""), Probe::Failed(_)));
    }

    #[test]
    fn bookworm_takes_backports_and_falls_back() {
        let host = debian("bookworm", "deb http://m.example/debian bookworm main");
        let Plan::Install { attempts, undo } = plan(&host) else { panic!("apt is there") };
        assert_eq!(attempts.len(), 2);
        let first: Vec<String> = attempts[0].iter().map(ToString::to_string).collect();
        assert!(first[0].contains("URIs: http://m.example/debian; Suites: bookworm-backports"), "{first:?}");
        assert!(first[1].ends_with("apt-get update"), "{first:?}");
        assert!(first[2].ends_with("-t bookworm-backports libvulkan1 mesa-vulkan-drivers"), "{first:?}");
        assert!(
            attempts[1][1].to_string().ends_with("--no-install-recommends libvulkan1 mesa-vulkan-drivers")
        );
        assert_eq!(undo, [Step::Remove { path: BACKPORTS_FILE }], "a failed update must not stay broken");
    }

    #[test]
    fn sources_that_are_there_are_not_written_again() {
        let host = debian("bookworm", "deb http://m/d bookworm main\ndeb http://m/d bookworm-backports main");
        let Plan::Install { attempts, undo } = plan(&host) else { panic!("apt is there") };
        assert!(undo.is_empty() && attempts[0].iter().all(|s| matches!(s, Step::Run(_))));
    }

    #[test]
    fn other_releases_take_the_plain_package() {
        let mut hosts = vec![debian("trixie", "deb http://m/d trixie main"), debian("bookworm", "")];
        hosts.push(Host {
            release: OsRelease { id: "ubuntu".into(), codename: "noble".into() },
            ..debian("", "deb http://m/u noble main\ndeb http://m/u noble-backports main")
        });
        for host in hosts {
            let Plan::Install { attempts, .. } = plan(&host) else { panic!("apt is there") };
            assert_eq!(attempts.len(), 1);
            assert!(!attempts[0].iter().any(|s| s.to_string().contains("backports")));
        }
    }

    #[test]
    fn sudo_stands_before_every_command() {
        let host = Host { root: Some(vec!["sudo", "-n"]), ..debian("trixie", "") };
        let Plan::Install { attempts, .. } = plan(&host) else { panic!("sudo is there") };
        assert!(attempts[0].iter().all(|s| s.to_string().starts_with("sudo -n env ")));
    }

    #[test]
    fn where_nothing_can_be_done_the_user_is_told_what_to_do() {
        let tell = |host: &Host| match plan(host) {
            Plan::Manual(text) => text,
            Plan::Install { .. } => panic!("cannot be installed"),
        };
        assert!(tell(&Host { root: None, ..debian("bookworm", "") }).contains("apt-get install"));
        let fedora = tell(&Host { has_apt: false, ..debian("", "") });
        assert!(fedora.contains("dnf install") && fedora.contains("pacman -S"));
        assert!(tell(&Host { os: "macos".into(), ..Host::default() }).contains("Metal"));
        assert!(tell(&Host { os: "windows".into(), ..Host::default() }).contains("Direct3D"));
    }
}
