//! `cargo xtask setup`: makes a Vulkan adapter available, a CPU one (Mesa's lavapipe) where there is no GPU.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::apt::{self, Backports};
use crate::install::{Host, Installation, Step};

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

const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/girih-backports.sources";
const WHAT: &str = "a Vulkan driver";
const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

fn plan(host: &Host) -> Installation {
    match host.os.as_str() {
        "linux" => {}
        "macos" => {
            return Installation::Manual(
                "macOS brings Metal; no adapter was found. A virtual machine may have none.".into(),
            );
        }
        "windows" => {
            return Installation::Manual(
                "Windows brings Direct3D 12; no adapter was found. Update the GPU driver.".into(),
            );
        }
        other => return Installation::Manual(format!("install a Vulkan driver for {other}")),
    }
    let manual = format!("apt-get update && apt-get install -y {}", PACKAGES.join(" "));
    if !host.has_apt {
        return Installation::Manual(format!(
            "install a Vulkan loader and driver, as root:\n  \
             Fedora:       dnf install vulkan-loader mesa-vulkan-drivers\n  \
             Arch:         pacman -S vulkan-icd-loader vulkan-swrast\n  \
             openSUSE:     zypper install libvulkan1 libvulkan_lvp\n  \
             Alpine:       apk add vulkan-loader mesa-vulkan-swrast\n  \
             Debian-like:  {manual}"
        ));
    }
    let install = |from: &[&str]| {
        host.apt_get(&[&["install", "-y", "--no-install-recommends"], from, PACKAGES.as_slice()].concat())
    };
    let from_backports = install(&["-t", "bookworm-backports"]);
    let (Some(update), Some(install), Some(from_backports)) =
        (host.apt_get(&["update"]), install(&[]), from_backports)
    else {
        return Installation::Manual(format!("neither root nor sudo here; as root run:\n  {manual}"));
    };
    let plain = vec![update.clone(), install];
    // Mesa 25.0.7 instead of 22.3.6: 10 to 60 % less time in lavapipe.
    let backported = host.release.id == "debian" && host.release.codename == "bookworm";
    match apt::backports(&host.sources, &host.release.codename) {
        Backports::Present if backported => {
            Installation::Install { attempts: vec![vec![update, from_backports], plain], undo: vec![] }
        }
        Backports::Add(text) if backported => Installation::Install {
            attempts: vec![vec![Step::Write { path: BACKPORTS_FILE, text }, update, from_backports], plain],
            undo: vec![Step::Remove { path: BACKPORTS_FILE }],
        },
        _ => Installation::Install { attempts: vec![plain], undo: vec![] },
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
        print!("{}", plan(&host).describe(WHAT));
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
    let advice = |error| format!("{error}\nBy hand, as root: apt-get install {}", PACKAGES.join(" "));
    let plan = plan(&host);
    plan.perform(&host, WHAT)
        .map_err(|e| if matches!(plan, Installation::Manual(_)) { e } else { advice(e) })?;
    match probe(girih) {
        Probe::Found(adapter) => {
            println!("adapter: {adapter}");
            Ok(adapter)
        }
        other => Err(format!("the driver was installed, but there is still no adapter: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::OsRelease;

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
        let Installation::Install { attempts, undo } = plan(&host) else { panic!("apt is there") };
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
        let Installation::Install { attempts, undo } = plan(&host) else { panic!("apt is there") };
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
            let Installation::Install { attempts, .. } = plan(&host) else { panic!("apt is there") };
            assert_eq!(attempts.len(), 1);
            assert!(!attempts[0].iter().any(|s| s.to_string().contains("backports")));
        }
    }

    #[test]
    fn sudo_stands_before_every_command() {
        let host = Host { root: Some(vec!["sudo", "-n"]), ..debian("trixie", "") };
        let Installation::Install { attempts, .. } = plan(&host) else { panic!("sudo is there") };
        assert!(attempts[0].iter().all(|s| s.to_string().starts_with("sudo -n env ")));
    }

    #[test]
    fn where_nothing_can_be_done_the_user_is_told_what_to_do() {
        let tell = |host: &Host| match plan(host) {
            Installation::Manual(text) => text,
            Installation::Install { .. } => panic!("cannot be installed"),
        };
        assert!(tell(&Host { root: None, ..debian("bookworm", "") }).contains("apt-get install"));
        let fedora = tell(&Host { has_apt: false, ..debian("", "") });
        assert!(fedora.contains("dnf install") && fedora.contains("pacman -S"));
        assert!(tell(&Host { os: "macos".into(), ..Host::default() }).contains("Metal"));
        assert!(tell(&Host { os: "windows".into(), ..Host::default() }).contains("Direct3D"));
    }
}
