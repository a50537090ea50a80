//! Every selectable shader, as browsers get it, through `tint` (Chromium's compiler), where that tool is installed.
//! It enforces what naga lets through: uniform control flow at barriers and subgroup operations, no constants that
//! are not finite, `enable` directives.

use std::collections::BTreeMap;
use std::process::Command;

use girih_kernels::registry::KERNELS;
use girih_kernels::shaders::{Dialect, compose};

#[test]
fn every_selectable_shader_is_valid_for_browsers() {
    if Command::new("tint").arg("--version").output().is_err() {
        println!("no tint on this machine: browsers' rules are not checked");
        return;
    }
    // Text -> the first choice that has it: many choices differ in what the text does not hold.
    let mut texts = BTreeMap::new();
    for kernel in KERNELS {
        for choice in (kernel.choices)() {
            let composed = compose(choice.file, &choice.selection, Dialect::Browser).expect("composes");
            let name = format!("{}/{} [{}]", kernel.spec.name, choice.variant, choice.selection);
            texts.entry(composed.wgsl.clone()).or_insert((name, composed));
        }
    }
    let file = std::env::temp_dir().join(format!("girih-tint-{}.wgsl", std::process::id()));
    let mut failures = Vec::new();
    for (text, (name, composed)) in &texts {
        std::fs::write(&file, text).expect("written");
        let output = Command::new("tint").args(["--format", "wgsl"]).arg(&file).output().expect("tint runs");
        if output.status.success() {
            continue;
        }
        let message = String::from_utf8_lossy(&output.stderr);
        let first = message.lines().next().unwrap_or_default();
        let line = first.split(':').nth(1).and_then(|line| line.parse().ok());
        let origin = line.and_then(|line| composed.origin(line)).unwrap_or_default();
        failures.push(format!("{name} at {origin}: {first}"));
    }
    let _ = std::fs::remove_file(&file);
    println!("{} shaders", texts.len());
    assert!(failures.is_empty(), "{} refused:\n{}", failures.len(), failures.join("\n"));
}
