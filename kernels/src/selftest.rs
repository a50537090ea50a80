//! Known-answer tests on a device that was not seen before.

use crate::Caps;
use crate::gpu::Gpu;
use crate::registry::KERNELS;
use crate::testing::{Mismatch, run_case};

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

/// Runs the first case of every kernel in every variant that this device can run.
pub async fn run(gpu: &Gpu) -> Report {
    let mut report = Report::default();
    for kernel in KERNELS {
        let Some(mut case) = (kernel.cases)().into_iter().next() else { continue };
        for launch in std::mem::take(&mut case.launches) {
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

/// The capabilities with the failed variants on the block list, so that `select` passes them over.
#[must_use]
pub fn apply(caps: &Caps, report: &Report) -> Caps {
    let mut caps = caps.clone();
    caps.blocked.extend(report.blocked.iter().cloned());
    caps
}
