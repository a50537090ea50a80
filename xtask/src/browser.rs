//! The programs that the package for browsers and its tests need: node and npm, Chromium and chromedriver. Found
//! where they are; installed by apt where they are not.

use std::path::PathBuf;

use crate::install::{Host, Installation};
use crate::setup::Options;

/// A program, the names that it goes by, and Debian's package of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// What it is called in messages.
    name: &'static str,
    commands: &'static [&'static str],
    package: &'static str,
}

/// Runs the TypeScript compiler and binaryen.
pub const NODE: Program = Program { name: "node", commands: &["node", "nodejs"], package: "nodejs" };
/// Installs them.
pub const NPM: Program = Program { name: "npm", commands: &["npm"], package: "npm" };
/// The browser of the tests.
pub const CHROMIUM: Program = Program {
    name: "Chromium",
    commands: &[
        "chromium",
        "chromium-browser",
        "google-chrome-stable",
        "google-chrome",
        "chrome",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ],
    package: "chromium",
};
/// Drives it.
pub const CHROMEDRIVER: Program = Program {
    name: "chromedriver",
    commands: &["chromedriver", "/usr/lib/chromium-browser/chromedriver"],
    package: "chromium-driver",
};

/// What `cargo xtask web` needs.
pub const OF_BUILD: [Program; 2] = [NODE, NPM];
/// What the tests in a browser need.
pub const OF_TESTS: [Program; 4] = [NODE, NPM, CHROMIUM, CHROMEDRIVER];

impl Program {
    /// Looks in `PATH`, and where it is installed otherwise.
    pub fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).collect::<Vec<_>>();
        places.push(PathBuf::from("/")); // joined with an absolute path, a folder is dropped
        let suffixes: &[&str] = if cfg!(windows) { &[".exe", ".cmd"] } else { &[""] };
        self.commands.iter().find_map(|command| {
            let files =
                places.iter().flat_map(|dir| suffixes.iter().map(move |s| dir.join(format!("{command}{s}"))));
            files.into_iter().find(|file| file.is_file())
        })
    }

    /// [`Program::find`], or what to do.
    ///
    /// # Errors
    /// A program that is not there.
    pub fn require(&self) -> Result<PathBuf, String> {
        self.find().ok_or_else(|| {
            format!("found no {}, wanted {}: `cargo xtask setup` installs it", self.name, self.commands[0])
        })
    }
}

/// How missing programs can be had.
fn plan(host: &Host, missing: &[Program]) -> Installation {
    let names = missing.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    let manual = format!("apt-get update && apt-get install -y {}", packages.join(" "));
    let needs_browser = missing.contains(&CHROMIUM) || missing.contains(&CHROMEDRIVER);
    if host.os != "linux" {
        return Installation::Manual(format!(
            "install {names} (nodejs.org; Chrome, and the chromedriver of its version from \
             googlechromelabs.github.io/chrome-for-testing), and put them in PATH"
        ));
    }
    if !host.has_apt {
        return Installation::Manual(format!(
            "install {names}, as root:\n  \
             Fedora:       dnf install nodejs npm chromium chromedriver\n  \
             Arch:         pacman -S nodejs npm chromium\n  \
             openSUSE:     zypper install nodejs npm chromium chromedriver\n  \
             Alpine:       apk add nodejs npm chromium chromium-chromedriver\n  \
             Debian:       {manual}"
        ));
    }
    if host.release.id == "ubuntu" && needs_browser {
        return Installation::Manual(format!(
            "install {names}: Ubuntu has Chromium as a snap only, which takes no folders of a test; use Chrome and \
             the chromedriver of its version from googlechromelabs.github.io/chrome-for-testing, in PATH"
        ));
    }
    let install =
        host.apt_get(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat());
    match (host.apt_get(&["update"]), install) {
        (Some(update), Some(install)) => {
            Installation::Install { attempts: vec![vec![update, install]], undo: vec![] }
        }
        _ => Installation::Manual(format!("neither root nor sudo here; as root run:\n  {manual}")),
    }
}

/// Makes sure that programs are there.
///
/// # Errors
/// Programs that are not there and cannot be installed: the message says what to do.
pub fn ensure(programs: &[Program], options: Options) -> Result<(), String> {
    let missing = || programs.iter().filter(|program| program.find().is_none()).copied().collect::<Vec<_>>();
    for program in programs {
        if let Some(path) = program.find() {
            println!("{}: {}", program.name, path.display());
        }
    }
    let absent = missing();
    let host = Host::here();
    if options.dry_run {
        let all = if absent.is_empty() { programs } else { &absent };
        println!("without {} this would happen here:", names(all));
        print!("{}", plan(&host, all).describe(&names(all)));
        return Ok(());
    }
    if absent.is_empty() {
        return Ok(());
    }
    if options.check {
        return Err(format!("no {}; `cargo xtask setup` installs what is missing", names(&absent)));
    }
    plan(&host, &absent).perform(&host, &names(&absent))?;
    match missing() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(format!("apt-get succeeded, but there is still no {}", names(&missing))),
    }
}

fn names(programs: &[Program]) -> String {
    programs.iter().map(|program| program.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::OsRelease;

    fn debian() -> Host {
        Host {
            os: "linux".into(),
            release: OsRelease { id: "debian".into(), codename: "bookworm".into() },
            has_apt: true,
            root: Some(vec!["sudo", "-n"]),
            sources: vec![],
        }
    }

    #[test]
    fn debian_installs_only_what_is_missing() {
        let steps = |missing: &[Program]| match plan(&debian(), missing) {
            Installation::Install { attempts, .. } => {
                attempts[0].iter().map(ToString::to_string).collect::<Vec<_>>()
            }
            Installation::Manual(text) => panic!("{text}"),
        };
        let all = steps(&OF_TESTS);
        assert!(all[0].starts_with("sudo -n env ") && all[0].ends_with("apt-get update"), "{all:?}");
        assert!(all[1].ends_with("--no-install-recommends nodejs npm chromium chromium-driver"), "{all:?}");
        assert!(steps(&[CHROMEDRIVER])[1].ends_with("--no-install-recommends chromium-driver"));
        assert!(OF_TESTS.starts_with(&OF_BUILD), "the tests are built first");
    }

    #[test]
    fn where_nothing_can_be_done_the_user_is_told_what_to_do() {
        let tell = |host: &Host, missing: &[Program]| match plan(host, missing) {
            Installation::Manual(text) => text,
            Installation::Install { .. } => panic!("cannot be installed"),
        };
        let rootless = tell(&Host { root: None, ..debian() }, &[NODE]);
        assert!(rootless.contains("apt-get install -y nodejs"), "{rootless}");
        let fedora = tell(&Host { has_apt: false, ..debian() }, &OF_TESTS);
        assert!(fedora.contains("dnf install") && fedora.contains("pacman -S"));
        assert!(
            tell(&Host { os: "macos".into(), ..debian() }, &[CHROMEDRIVER]).contains("chrome-for-testing")
        );
        let ubuntu = OsRelease { id: "ubuntu".into(), codename: "noble".into() };
        let ubuntu = Host { release: ubuntu, ..debian() };
        assert!(tell(&ubuntu, &[CHROMIUM]).contains("snap"));
        assert!(matches!(plan(&ubuntu, &[NODE, NPM]), Installation::Install { .. }), "node is no snap");
    }

    #[test]
    fn a_program_is_found_or_the_command_is_named() {
        let cargo =
            Program { name: "cargo", commands: &["girih-no-such-program", "cargo"], package: "cargo" };
        assert!(cargo.require().unwrap().is_file());
        let none = Program { commands: &["girih-no-such-program"], ..cargo };
        assert!(none.require().unwrap_err().contains("cargo xtask setup"));
        let absolute = cargo.find().unwrap();
        let absolute: &'static str = Box::leak(absolute.to_string_lossy().into_owned().into_boxed_str());
        let by_path = Program { commands: Box::leak(Box::new([absolute])), ..cargo };
        assert_eq!(by_path.find().unwrap(), PathBuf::from(absolute));
    }
}
