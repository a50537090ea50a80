//! Known-answer tests on a device that was not seen before.

use std::path::Path;

use girih_shaders::{file, files};

use crate::caps::Caps;
use crate::choice::Launch;
use crate::device::Gpu;
use crate::device::fingerprint;
use crate::error::KernelError;
use crate::registry::KERNELS;
use crate::sealed::{self, hash};
use crate::testing::{Mismatch, run_case};

/// Workgroups of CPU variants are one subgroup; those of GPU variants have at least this many invocations.
const MAX_CPU_INVOCATIONS: u32 = 16;

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

impl Report {
    /// Whether the verdict is about the kernels: memory that ran out or a lost device say nothing about them.
    fn is_final(&self) -> bool {
        !self.mismatches.iter().any(|m| matches!(m, Mismatch::Failed { source: KernelError::Gpu(_), .. }))
    }
}

/// Runs the first case of every kernel in every variant that `select` may come to, also where others are blocked.
pub async fn run(gpu: &Gpu) -> Report {
    let mut report = Report::default();
    for kernel in KERNELS {
        let Some(mut case) = (kernel.cases)().into_iter().next() else { continue };
        let launches = std::mem::take(&mut case.launches);
        for launch in candidates(gpu, launches) {
            let name = format!("{}/{}", kernel.spec.name, launch.choice.variant);
            case.launches = vec![launch];
            let (mismatches, ran) = run_case(gpu, kernel.spec, &case).await;
            // In a browser a refused shader is reported to the device, whose later results are not less right.
            drop(gpu.watched().take_error());
            report.ran += ran;
            if !mismatches.is_empty() && !report.blocked.contains(&name) {
                report.blocked.push(name);
            }
            report.mismatches.extend(mismatches);
        }
    }
    report
}

/// The launches of the kind of device that this is, where the kernel has any.
fn candidates(gpu: &Gpu, launches: Vec<Launch>) -> Vec<Launch> {
    let runnable: Vec<Launch> = launches.into_iter().filter(|l| gpu.caps().runs(&l.choice)).collect();
    let is_cpu = gpu.caps().cpu_variants();
    let (own, other): (Vec<Launch>, Vec<Launch>) = runnable.into_iter().partition(|l| {
        if is_cpu {
            l.choice.invocations <= MAX_CPU_INVOCATIONS
        } else {
            l.choice.invocations >= MAX_CPU_INVOCATIONS
        }
    });
    if own.is_empty() { other } else { own }
}

/// Hash of the text of all shaders: a verdict about others says nothing about these.
pub fn shaders() -> u64 {
    files().fold(0, |sum, path| {
        hash(file(path).unwrap_or_default().as_bytes()) ^ hash(path.as_bytes()).rotate_left(1) ^ sum
    })
}

/// The verdict that is kept in `dir` for this adapter, driver, tier and text of the shaders; runs the test and keeps its
/// verdict where there is none. A folder that cannot be written costs the next start a test.
pub async fn cached(gpu: &Gpu, dir: Option<&Path>) -> Report {
    let caps = gpu.caps();
    let shaders = shaders();
    let device = fingerprint(&caps.adapter);
    let path = dir.map(|d| d.join(format!("selftest-{device:016x}-{shaders:016x}-{}.verdict", caps.tier)));
    if let Some(path) = &path
        && let Some(content) = sealed::read(path, "the self-test verdict", "the kernels are tested again")
    {
        if let Some(blocked) = read_verdict(&content) {
            return Report { blocked, ..Report::default() };
        }
        tracing::warn!(
            "the self-test verdict {} says something else; the kernels are tested again",
            path.display()
        );
    }
    let report = run(gpu).await;
    if let Some(path) = path.filter(|_| report.is_final())
        && let Err(error) = sealed::write(&path, &write_verdict(&report.blocked))
    {
        tracing::warn!("the self-test verdict {} was not saved: {error}", path.display());
    }
    report
}

const HEADER: &str = "girih self-test: kernel variants with wrong results, one a line\n";

/// The content of a verdict file, before it is sealed.
pub fn write_verdict(blocked: &[String]) -> Vec<u8> {
    let lines = blocked.iter().flat_map(|name| [name.as_str(), "\n"]);
    std::iter::once(HEADER).chain(lines).collect::<String>().into_bytes()
}

/// The blocked variants of a verdict file's content; `None` if it is not exactly what [`write_verdict`] writes.
pub fn read_verdict(content: &[u8]) -> Option<Vec<String>> {
    let names = std::str::from_utf8(content).ok()?.strip_prefix(HEADER)?;
    if names.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<String> = names.strip_suffix('\n')?.split('\n').map(str::to_owned).collect();
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

/// The capabilities with the failed variants on the block list, so that `select` passes them over.
#[must_use]
pub fn apply(caps: &Caps, report: &Report) -> Caps {
    let mut caps = caps.clone();
    caps.blocked.extend(report.blocked.iter().cloned());
    caps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_as_they_are_written() {
        for blocked in [vec![], vec!["a/b".to_owned()], vec!["gemv/t0".to_owned(), "norm/t1".to_owned()]] {
            let written = write_verdict(&blocked);
            assert_eq!(read_verdict(&written), Some(blocked.clone()));
            for cut in 0..written.len() {
                // Whole lines are a verdict of fewer; the seal around it tells.
                let read = read_verdict(&written[..cut]);
                assert!(read.is_none_or(|read| read.len() < blocked.len()), "{cut}");
            }
        }
        assert_eq!(read_verdict(b"a/b\n"), None);
    }

    #[test]
    fn a_verdict_is_final_unless_the_device_failed() {
        let failed = |source| Report {
            mismatches: vec![Mismatch::Failed { case: String::new(), variant: String::new(), source }],
            ..Report::default()
        };
        let (kernel, selection, message) = ("k", String::new(), String::new());
        assert!(Report::default().is_final());
        assert!(failed(KernelError::Refused { kernel, selection, message }).is_final());
        assert!(!failed(crate::GpuError::Lost(String::new()).into()).is_final());
    }
}
