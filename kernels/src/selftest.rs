//! Known-answer tests on a device that was not seen before.

use std::fmt::Write as _;
use std::path::Path;

use crate::Caps;
use crate::caps::Tier;
use crate::gpu::Gpu;
use crate::pipeline_cache::fingerprint;
use crate::registry::KERNELS;
use crate::testing::{Launch, Mismatch, run_case, runs_here};

/// Verdict of [`run`].
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Launches that ran.
    pub ran: usize,
    /// `kernel/variant` of every variant with a wrong result.
    pub blocked: Vec<String>,
    /// What was wrong.
    pub mismatches: Vec<Mismatch>,
}

/// Runs the first case of every kernel in the variants that the tier in force prefers.
pub async fn run(gpu: &Gpu) -> Report {
    let mut report = Report::default();
    for kernel in KERNELS {
        let Some(mut case) = (kernel.cases)().into_iter().next() else { continue };
        let launches = std::mem::take(&mut case.launches);
        for launch in preferred(gpu, launches) {
            let name = format!("{}/{}", kernel.spec.name, launch.choice.variant);
            case.launches = vec![launch];
            let (mismatches, ran) = run_case(gpu, kernel.spec, &case).await;
            report.ran += ran;
            if !mismatches.is_empty() && !report.blocked.contains(&name) {
                report.blocked.push(name);
            }
            report.mismatches.extend(mismatches);
        }
    }
    report
}

/// The launches whose variants the tier is likely to select: its own kind where the kernel has one.
fn preferred(gpu: &Gpu, launches: Vec<Launch>) -> Vec<Launch> {
    let kinds: &[&str] = match gpu.caps().tier {
        Tier::Portable => &["portable"],
        Tier::Cpu => &["cpu", "subgroup", "portable"],
        Tier::Subgroup | Tier::Matrix | Tier::Large => &["subgroup", "portable"],
    };
    let runnable: Vec<Launch> = launches.into_iter().filter(|l| runs_here(gpu, &l.choice)).collect();
    let of_kind = |kind: &&&str| runnable.iter().any(|l| l.choice.variant.contains(**kind));
    match kinds.iter().find(of_kind) {
        Some(kind) => runnable.into_iter().filter(|l| l.choice.variant.contains(kind)).collect(),
        None => runnable,
    }
}

/// The verdict that is kept in `dir` for this adapter, driver, version and tier; runs the test and keeps its
/// verdict where there is none. A folder that cannot be written costs the next start a test.
pub async fn cached(gpu: &Gpu, dir: Option<&Path>) -> Report {
    let caps = gpu.caps();
    let path = dir.map(|d| d.join(format!("selftest-{:016x}-{}.txt", fingerprint(&caps.adapter), caps.tier)));
    if let Some(text) = path.as_ref().and_then(|p| std::fs::read_to_string(p).ok())
        && let Some(blocked) = text.strip_prefix(HEADER)
    {
        let blocked = blocked.lines().map(ToOwned::to_owned).collect();
        return Report { blocked, ..Report::default() };
    }
    let report = run(gpu).await;
    if let Some(path) = path {
        let mut text = HEADER.to_owned();
        for name in &report.blocked {
            let _ = writeln!(text, "{name}");
        }
        let part = path.with_extension("part");
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&part, text))
            .and_then(|()| std::fs::rename(&part, &path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&part);
            tracing::warn!("the self-test verdict {} was not saved: {error}", path.display());
        }
    }
    report
}

const HEADER: &str = "girih self-test: kernel variants with wrong results, one a line\n";

/// The capabilities with the failed variants on the block list, so that `select` passes them over.
#[must_use]
pub fn apply(caps: &Caps, report: &Report) -> Caps {
    let mut caps = caps.clone();
    caps.blocked.extend(report.blocked.iter().cloned());
    caps
}
