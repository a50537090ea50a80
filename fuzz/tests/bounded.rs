//! A bounded run of every target with every test of the workspace: all inputs that failed once, all seeds, then mutations
//! for a minute in all. Without counters: instrumenting would build the workspace a second time.

use std::path::PathBuf;
use std::process::{Command, Output};

use girih_fuzz::targets;

fn fuzz(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_girih-fuzz")).args(args).output().expect("the fuzzer starts")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[test]
fn inputs_that_failed_once_and_seeds_pass() {
    for target in targets::ALL {
        let output = fuzz(&["--replay", target.name]);
        assert!(output.status.success(), "{}: {}", target.name, said(&output));
    }
}

#[test]
fn mutations_pass_for_half_a_minute() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    let _ = std::fs::remove_dir_all(&dir);
    let output = fuzz(&["--seconds", "30", "--seed", "1", "--output", dir.to_str().expect("a path")]);
    assert!(output.status.success(), "{}", said(&output));
    let table = said(&output);
    for target in targets::ALL {
        assert!(table.contains(target.name), "{} did not run: {table}", target.name);
    }
}

/// A worker whose input takes too long, or overflows the stack, is seen: the bounds hold in the program too.
#[test]
fn unknown_targets_and_options_are_errors() {
    for args in [&["--replay", "none"][..], &["none"], &["--runs"], &["--what"]] {
        let output = fuzz(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", said(&output));
    }
}
