//! `cargo xtask isa`: brings Mesa's drivers and the libraries that stand in for kernel drivers, unpacked below cargo's target
//! folder, and starts the program `isa` with them. Nothing is installed, nothing needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Source;
use crate::install::{Host, succeeds};
use crate::process::{self, run};
use crate::source;

/// Debian's release whose backports have the drivers: one for every machine, so that records can be compared.
const RELEASE: &str = "trixie";

/// Drivers, loader, shims, and the headers of the kernel's interface to drivers.
const PACKAGES: [&str; 4] = ["mesa-vulkan-drivers", "libvulkan1", "mesa-drm-shim", "linux-libc-dev"];

/// What Debian signs with, where a source does not say.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Compiles the kernels for devices that are not here: `args` are those of the program `isa`.
///
/// # Errors
/// A system without what is needed: the message says what was found and wanted. A download, a build or a device that fails.
pub fn isa(args: &[&str]) -> Result<bool, String> {
    let program = process::build_program("isa")?;
    let mut command = Command::new(&program);
    if !args.contains(&"--list") {
        let folder = process::target_dir()?.join("isa");
        let packages = packages(&Host::here(), &folder)?;
        command.arg("--packages").arg(&packages).arg("--out").arg(folder.join("out"));
        if let Some(library) = i915(&packages, &folder)? {
            command.arg("--i915").arg(library);
        }
    }
    println!("$ {} {}", program.display(), args.join(" "));
    let status = command.args(args).current_dir(source::root()).status();
    Ok(status.map_err(|e| format!("{}: {e}", program.display()))?.success())
}

/// The folder with the unpacked packages, which are downloaded if it is not there.
fn packages(host: &Host, folder: &Path) -> Result<PathBuf, String> {
    let packages = folder.join("mesa");
    if packages.exists() {
        return Ok(packages);
    }
    let mirror = mirror(host, std::env::consts::ARCH)?;
    let work = folder.join("apt");
    let _ = fs::remove_dir_all(&work);
    for below in ["etc/none", "lists/partial", "cache/archives/partial", "root"] {
        let path = work.join(below);
        fs::create_dir_all(&path).map_err(|e| at(&path, &e))?;
    }
    for (name, text) in [("etc/debian.sources", sources(mirror)), ("status", String::new())] {
        let path = work.join(name);
        fs::write(&path, text).map_err(|e| at(&path, &e))?;
    }
    // Mirrors fail now and then, and an update does no harm twice.
    apt_get(&work, &["update"]).or_else(|_| apt_get(&work, &["update"]))?;
    let backports = format!("{RELEASE}-backports");
    let download = ["install", "--yes", "--download-only", "--no-install-recommends", "-t", &backports];
    apt_get(&work, &[&download, PACKAGES.as_slice()].concat())?;
    let archives = work.join("cache/archives");
    for entry in fs::read_dir(&archives).map_err(|e| at(&archives, &e))?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            let mut unpack = Command::new("dpkg");
            unpack.arg("--extract").arg(entry.path()).arg(work.join("root"));
            run(unpack)?;
        }
    }
    fs::rename(work.join("root"), &packages).map_err(|e| at(&packages, &e))?;
    fs::remove_dir_all(&work).map_err(|e| at(&work, &e))?;
    Ok(packages)
}

/// The mirror that this machine takes Debian from.
fn mirror<'a>(host: &'a Host, architecture: &str) -> Result<&'a Source, String> {
    let found = |what: String| {
        Err(format!(
            "found {what}, wanted Debian's apt on Linux for x86_64: Mesa's drivers come from {RELEASE}-backports"
        ))
    };
    if host.os != "linux" || architecture != "x86_64" {
        return found(format!("{} on {architecture}", host.os));
    }
    if !host.has_apt {
        return found("no apt-get".into());
    }
    let codename = &host.release.codename;
    let is_debian = |source: &&Source| {
        source.suites.iter().any(|suite| suite == codename) && source.components.iter().any(|c| c == "main")
    };
    let mirror = host.sources.iter().find(is_debian).filter(|_| host.release.id == "debian");
    mirror.map_or_else(|| found(format!("{} {codename} without a mirror of Debian", host.release.id)), Ok)
}

/// A `.sources` file of the release and its backports.
fn sources(mirror: &Source) -> String {
    let keyring = if mirror.signed_by.is_empty() { KEYRING } else { &mirror.signed_by };
    format!(
        "Types: deb\nURIs: {}\nSuites: {RELEASE} {RELEASE}-backports\nComponents: main\nSigned-By: {keyring}\n",
        mirror.uri
    )
}

/// Runs `apt-get` on a state of its own: nothing is installed there, so every dependency is downloaded.
fn apt_get(work: &Path, args: &[&str]) -> Result<(), String> {
    println!("$ apt-get {}", args.join(" "));
    let mut command = Command::new("apt-get");
    for (option, below) in [
        ("Dir::Etc::SourceList", "etc/debian.sources"),
        ("Dir::Etc::SourceParts", "etc/none"),
        ("Dir::Etc::Preferences", "etc/preferences"),
        ("Dir::Etc::PreferencesParts", "etc/none"),
        ("Dir::State::Lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
    ] {
        command.arg(format!("-o{option}={}", work.join(below).display()));
    }
    // Without locks and a user of its own it writes where we may.
    command.args(["-oDebug::NoLocking=1", "-oAPT::Sandbox::User=", "-qq"]).args(args);
    run(command).map_err(|e| format!("`apt-get {}`: {e}", args.join(" ")))
}

/// The library that answers for i915, built; `None` without a C compiler, which only Intel's devices need.
fn i915(packages: &Path, folder: &Path) -> Result<Option<PathBuf>, String> {
    if !succeeds("cc", &["--version"]) {
        println!("no C compiler `cc`: Intel's devices cannot be had");
        return Ok(None);
    }
    let (text, library) = (source::root().join("isa/src/i915.c"), folder.join("i915.so"));
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-I"]).arg(packages.join("usr/include"));
    compile.arg("-I").arg(packages.join("usr/include/drm")).arg(text).arg("-o").arg(&library).arg("-ldl");
    run(compile)?;
    Ok(Some(library))
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::{self, OsRelease};

    fn debian() -> Host {
        Host {
            os: "linux".into(),
            release: OsRelease { id: "debian".into(), codename: "bookworm".into() },
            has_apt: true,
            root: None,
            sources: apt::sources(
                "sources.list",
                "deb https://other.example/apt bookworm contrib\n\
                 deb [signed-by=/k.gpg] http://m.example/debian bookworm main",
            ),
        }
    }

    #[test]
    fn packages_come_from_the_mirror_of_the_machine() {
        let host = debian();
        let text = sources(mirror(&host, "x86_64").expect("a mirror"));
        let read = apt::sources("debian.sources", &text);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].uri, "http://m.example/debian");
        assert_eq!(read[0].suites, ["trixie", "trixie-backports"]);
        assert_eq!(read[0].signed_by, "/k.gpg");
        let unsigned = Source { uri: "http://m.example/debian".into(), ..Source::default() };
        assert!(sources(&unsigned).contains(KEYRING));
    }

    #[test]
    fn other_systems_are_told_what_is_wanted() {
        let tell = |host: &Host, architecture| mirror(host, architecture).expect_err("not here");
        let wanted = "wanted Debian's apt on Linux for x86_64";
        for (host, architecture, found) in [
            (Host { os: "macos".into(), ..debian() }, "aarch64", "found macos on aarch64"),
            (debian(), "aarch64", "found linux on aarch64"),
            (Host { has_apt: false, ..debian() }, "x86_64", "found no apt-get"),
            (Host { sources: vec![], ..debian() }, "x86_64", "found debian bookworm without a mirror"),
            (
                Host { release: OsRelease { id: "ubuntu".into(), codename: "bookworm".into() }, ..debian() },
                "x86_64",
                "found ubuntu",
            ),
        ] {
            let error = tell(&host, architecture);
            assert!(error.contains(wanted) && error.contains(found), "{error}");
        }
    }
}
