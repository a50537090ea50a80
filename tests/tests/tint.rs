//! Every selectable shader in the browsers' dialect against tint, Chromium's compiler: it refuses barriers and
//! subgroup operations that it cannot prove uniform, which naga lets through and lavapipe hides. Where the `tint`
//! command is not installed there is nothing to run, and the test counts as skipped.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use girih_kernels::registry::KERNELS;
use girih_kernels::shaders::{Dialect, compose};

/// What tint has against a shader; `None` if nothing.
fn refusal(path: &Path, text: &str) -> std::io::Result<Option<String>> {
    std::fs::write(path, text)?;
    let out = Command::new("tint").args(["--format", "wgsl"]).arg(path).output()?;
    Ok((!out.status.success()).then(|| String::from_utf8_lossy(&out.stderr).into_owned()))
}

#[test]
fn tint_accepts_every_selectable_shader() {
    let dir = std::env::temp_dir().join(format!("girih-tint-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary folder");
    let divergent = "@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) {
        if i > 3u { workgroupBarrier(); }
    }";
    match refusal(&dir.join("control.wgsl"), divergent) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            girih_tests::skipped("tint is not installed");
            return;
        }
        verdict => assert!(verdict.expect("tint runs").is_some(), "tint accepts a divergent barrier"),
    }
    let mut seen = HashSet::new();
    let mut shaders = Vec::new();
    for kernel in KERNELS {
        let dialects = [Dialect::Browser, Dialect::BrowserBase];
        for (choice, dialect) in (kernel.choices)().into_iter().flat_map(|c| dialects.map(|d| (c.clone(), d)))
        {
            let composed = compose(choice.file, &choice.selection, dialect).expect("composes");
            if !girih_tests::shaders::has_int64(&composed.wgsl) && seen.insert(composed.wgsl.clone()) {
                let name = format!("{}/{} [{}]", kernel.spec.name, choice.variant, choice.selection);
                shaders.push((name, composed.wgsl));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let path = dir.join(format!("{worker}.wgsl"));
            let (next, failures, shaders) = (&next, &failures, &shaders);
            scope.spawn(move || {
                while let Some((name, text)) = shaders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(message) = refusal(&path, text).expect("tint runs") {
                        failures.lock().expect("no panic").push(format!("{name}: {message}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    println!("{} shaders checked", shaders.len());
    let _ = std::fs::remove_dir_all(&dir);
    assert!(failures.is_empty(), "{} refused:\n{}", failures.len(), failures.join("\n"));
}
