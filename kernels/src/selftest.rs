//! Known-answer tests of the kernels that will be used, on a device that was not seen before.
//!
//! What will be used is what recordings hold ([`Needs`]): a model is recorded on a handle without memory
//! ([`Gpu::recording_only`]) before its weights are placed. Of each variant with each reader of data one launch is
//! compared with its twin; what is known already ([`Verdicts`]) is not tested again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use girih_shaders::{file, files};

use crate::caps::Caps;
use crate::case::TestCase;
use crate::choice::{Choice, Data, Launch};
use crate::device::{Gpu, fingerprint};
use crate::error::KernelError;
use crate::recorder::Dispatch;
use crate::registry::KERNELS;
use crate::sealed::{self, hash};
use crate::spec::Kernel;
use crate::testing::{Mismatch, run_case};

/// Workgroups of CPU variants are one subgroup; those of GPU variants have at least this many invocations.
const MAX_CPU_INVOCATIONS: u32 = 16;

/// What is to be tested: for each [`key`](crate::choice::key) a choice like those that will be dispatched.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    choices: BTreeMap<(&'static str, String), Choice>,
}

impl Needs {
    /// What recorded dispatches use.
    pub fn of<'a>(dispatches: impl IntoIterator<Item = &'a Dispatch>) -> Self {
        let mut needs = Self::default();
        needs.add(dispatches);
        needs
    }

    /// Adds what recorded dispatches use.
    pub fn add<'a>(&mut self, dispatches: impl IntoIterator<Item = &'a Dispatch>) {
        for d in dispatches {
            self.insert(d.spec.name, &d.choice);
        }
    }

    fn insert(&mut self, kernel: &'static str, choice: &Choice) {
        let key = choice.key(kernel);
        self.choices.entry((kernel, key)).or_insert_with(|| choice.clone());
    }

    /// Everything that the cases launch of the kind of device that this is, where a kernel has any of it.
    pub fn everything(caps: &Caps) -> Self {
        let mut needs = Self::default();
        let own = |choice: &Choice| {
            if caps.cpu_variants() {
                choice.invocations <= MAX_CPU_INVOCATIONS
            } else {
                choice.invocations >= MAX_CPU_INVOCATIONS
            }
        };
        for kernel in KERNELS {
            let cases = (kernel.cases)();
            let launches = || cases.iter().flat_map(|case| &case.launches).filter(|l| caps.runs(&l.choice));
            let has_own = launches().any(|launch| own(&launch.choice));
            for launch in launches().filter(|launch| !has_own || own(&launch.choice)) {
                needs.insert(kernel.spec.name, &launch.choice);
            }
        }
        needs
    }

    /// How many of them have no verdict.
    pub fn unknown(&self, verdicts: &Verdicts) -> usize {
        self.keys().filter(|key| !verdicts.knows(key)).count()
    }

    /// Keys of all that is needed.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.choices.keys().map(|(_, key)| key.as_str())
    }
}

/// What is known of the kernels of a device, by [`key`](crate::choice::key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Agrees with its twin.
    pub right: BTreeSet<String>,
    /// Does not.
    pub wrong: BTreeSet<String>,
}

impl Verdicts {
    /// Whether there is a verdict.
    pub fn knows(&self, key: &str) -> bool {
        self.right.contains(key) || self.wrong.contains(key)
    }

    /// The capabilities with all that is wrong on the block list, so that `select` passes it over.
    #[must_use]
    pub fn apply(&self, caps: &Caps) -> Caps {
        let mut caps = caps.clone();
        caps.blocked.extend(self.wrong.iter().cloned());
        caps
    }

    /// The device with what is wrong blocked; itself where nothing is that was not blocked before.
    #[must_use]
    pub fn block(&self, gpu: &Gpu) -> Gpu {
        if self.wrong.is_subset(&gpu.caps().blocked) {
            gpu.clone()
        } else {
            gpu.with_caps(self.apply(gpu.caps()))
        }
    }
}

/// What a test found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Launches that ran.
    pub ran: usize,
    /// Keys of what gave a wrong result.
    pub blocked: Vec<String>,
    /// What was wrong.
    pub mismatches: Vec<Mismatch>,
}

impl Report {
    /// Adds what another test found.
    pub fn extend(&mut self, other: Self) {
        self.ran += other.ran;
        self.blocked.extend(other.blocked);
        self.mismatches.extend(other.mismatches);
    }
}

/// Whether a mismatch is about the kernel: memory that ran out or a lost device say nothing about it.
fn is_final(mismatch: &Mismatch) -> bool {
    !matches!(mismatch, Mismatch::Failed { source: KernelError::Gpu(_), .. })
}

/// Tests everything that the device can run of its kind, also where others are blocked.
pub async fn run(gpu: &Gpu) -> Report {
    test(gpu, &Needs::everything(gpu.caps()), &mut Verdicts::default()).await
}

/// Tests what is needed and not known yet. What the device could not run for reasons of its own (memory, a loss) is
/// reported as wrong, and stays unknown.
pub async fn test(gpu: &Gpu, needs: &Needs, verdicts: &mut Verdicts) -> Report {
    test_among(KERNELS, gpu, needs, verdicts).await
}

/// [`test()`] with other kernels than those of the registry.
pub async fn test_among(kernels: &[&Kernel], gpu: &Gpu, needs: &Needs, verdicts: &mut Verdicts) -> Report {
    // What was blocked may be tested: the verdict is about the device, not about what is in force on it.
    let tested = gpu.with_caps(Caps { blocked: BTreeSet::new(), ..gpu.caps().clone() });
    let mut report = Report::default();
    let mut cases: Option<(&'static str, Vec<TestCase>)> = None;
    for ((name, key), choice) in &needs.choices {
        let Some(kernel) = kernels.iter().find(|k| k.spec.name == *name) else { continue };
        if verdicts.knows(key) {
            continue;
        }
        let known = match cases.take() {
            Some((of, known)) if of == *name => known,
            _ => (kernel.cases)(),
        };
        let case = known_answer(kernel, &known, gpu.caps(), choice);
        cases = Some((name, known));
        let Some(case) = case else {
            tracing::warn!("{key} is used without a test: it has no case that this device can run");
            continue;
        };
        let (mismatches, ran) = run_case(&tested, kernel.spec, &case).await;
        // In a browser a refused shader is reported to the device, whose later results are not less right.
        drop(gpu.watched().take_error());
        report.ran += ran;
        if mismatches.is_empty() {
            verdicts.right.insert(key.clone());
        } else {
            if mismatches.iter().all(is_final) {
                verdicts.wrong.insert(key.clone());
            }
            report.blocked.push(key.clone());
        }
        report.mismatches.extend(mismatches);
    }
    report
}

/// The case and launch of the same variant and reader of data that agree most with a choice: often the very pipeline,
/// which is compiled then for the model too.
fn known_answer(kernel: &Kernel, cases: &[TestCase], caps: &Caps, choice: &Choice) -> Option<TestCase> {
    let of_format = match (kernel.cases_of, choice.data) {
        (Some(cases_of), Data::Weights(format)) => cases_of(format),
        _ => Vec::new(),
    };
    let agreement = |launch: &Launch| {
        let same = launch.choice.invocations == choice.invocations;
        usize::from(same) + launch.choice.selection.agreement(&choice.selection)
    };
    let fits = |launch: &&Launch| {
        let c = &launch.choice;
        c.variant == choice.variant && c.data == choice.data && caps.runs(c)
    };
    let all = of_format.iter().chain(cases);
    let pairs = all.flat_map(|case| case.launches.iter().filter(fits).map(move |l| (case, l)));
    let (case, launch) = pairs.max_by_key(|(_, launch)| agreement(launch))?;
    let (name, regime, tolerance) = (case.name.clone(), case.regime, case.tolerance);
    Some(TestCase { name, regime, buffers: case.buffers.clone(), launches: vec![launch.clone()], tolerance })
}

/// Hash of the text of all shaders: a verdict about others says nothing about these.
pub fn shaders() -> u64 {
    files().fold(0, |sum, path| {
        hash(file(path).unwrap_or_default().as_bytes()) ^ hash(path.as_bytes()).rotate_left(1) ^ sum
    })
}

/// Verdicts that are kept in a folder, of one adapter, driver, tier and text of the shaders.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// What is known.
    pub verdicts: Verdicts,
    path: Option<PathBuf>,
    saved: Verdicts,
}

impl Kept {
    /// The verdicts about a device that `dir` holds; none where there is no folder, or no file that is whole.
    pub fn open(gpu: &Gpu, dir: Option<&Path>) -> Self {
        let (caps, shaders) = (gpu.caps(), shaders());
        let device = fingerprint(&caps.adapter);
        let path =
            dir.map(|d| d.join(format!("selftest-{device:016x}-{shaders:016x}-{}.verdict", caps.tier)));
        let read = path.as_ref().and_then(|path| {
            let content = sealed::read(path, "the self-test verdict", "the kernels are tested again")?;
            let verdicts = read_verdict(&content);
            if verdicts.is_none() {
                tracing::warn!(
                    "the self-test verdict {} says something else; the kernels are tested again",
                    path.display()
                );
            }
            verdicts
        });
        let verdicts = read.unwrap_or_default();
        Self { saved: verdicts.clone(), verdicts, path }
    }

    /// Writes what is new. A folder that cannot be written costs the next start a test.
    pub fn save(&mut self) {
        if self.saved == self.verdicts {
            return;
        }
        if let Some(path) = &self.path
            && let Err(error) = sealed::write(path, &write_verdict(&self.verdicts))
        {
            tracing::warn!("the self-test verdict {} was not saved: {error}", path.display());
        }
        self.saved = self.verdicts.clone();
    }
}

const HEADER: &str = "girih self-test: right and wrong kernel variants, one a line\n";

/// The content of a verdict file, before it is sealed.
pub fn write_verdict(verdicts: &Verdicts) -> Vec<u8> {
    let mut text = HEADER.to_owned();
    for (word, keys) in [("right", &verdicts.right), ("wrong", &verdicts.wrong)] {
        for key in keys {
            let _ = writeln!(text, "{word} {key}");
        }
    }
    text.into_bytes()
}

/// The verdicts of a file's content; `None` if it is not exactly what [`write_verdict`] writes.
pub fn read_verdict(content: &[u8]) -> Option<Verdicts> {
    let lines = std::str::from_utf8(content).ok()?.strip_prefix(HEADER)?;
    let mut verdicts = Verdicts::default();
    for line in lines.lines() {
        let (word, key) = line.split_once(' ')?;
        let keys = if word == "right" { &mut verdicts.right } else { &mut verdicts.wrong };
        keys.insert(key.to_owned());
    }
    (write_verdict(&verdicts) == content).then_some(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Code, Format, WeightFormat};

    fn verdicts(right: &[&str], wrong: &[&str]) -> Verdicts {
        let set = |keys: &[&str]| keys.iter().map(|&k| k.to_owned()).collect();
        Verdicts { right: set(right), wrong: set(wrong) }
    }

    #[test]
    fn verdicts_are_read_as_they_are_written() {
        for known in
            [verdicts(&[], &[]), verdicts(&["a/b"], &[]), verdicts(&["gemv/t0/f16", "norm/t1"], &["a/b"])]
        {
            let written = write_verdict(&known);
            assert_eq!(read_verdict(&written), Some(known.clone()));
            for cut in 0..written.len() {
                // Whole lines are verdicts of fewer; the seal around them tells.
                let read = read_verdict(&written[..cut]);
                assert!(
                    read.is_none_or(
                        |read| read.right.len() + read.wrong.len() < known.right.len() + known.wrong.len()
                    ),
                    "{cut}"
                );
            }
        }
        for foreign in ["right a/b\n", "maybe a/b\n", "wrong b\nright a\n", "right b\nright a\n"] {
            assert_eq!(read_verdict(format!("{HEADER}{foreign}x").as_bytes()), None);
            assert_eq!(read_verdict(foreign.as_bytes()), None);
        }
    }

    #[test]
    fn failures_of_the_device_are_no_verdict() {
        let failed = |source| Mismatch::Failed { case: String::new(), variant: String::new(), source };
        let (kernel, selection, message) = ("k", String::new(), String::new());
        assert!(is_final(&failed(KernelError::Refused { kernel, selection, message })));
        assert!(!is_final(&failed(crate::error::GpuError::Lost(String::new()).into())));
    }

    /// Every choice that a device can come to has a case, also with weights in formats that no list holds.
    #[test]
    fn every_choice_has_a_known_answer() {
        let caps = Caps { subgroup_size: Some((32, 32)), f16: true, int64: true, ..Caps::baseline() };
        let formats = [Format::symmetric(Code::Int4, 64), Format::asymmetric(Code::Int8, 128)];
        for kernel in KERNELS {
            let cases = (kernel.cases)();
            for mut choice in (kernel.choices)() {
                let found =
                    known_answer(kernel, &cases, &caps, &choice).map(|case| case.launches[0].choice.clone());
                let found = found.map(|c| (c.variant, c.data));
                assert_eq!(found, Some((choice.variant, choice.data)), "{}", kernel.spec.name);
                if let Data::Weights(_) = choice.data {
                    for format in formats {
                        choice.data = Data::Weights(WeightFormat::Quant(format));
                        assert!(
                            known_answer(kernel, &cases, &caps, &choice).is_some(),
                            "{}: {format}",
                            kernel.spec.name
                        );
                    }
                }
            }
        }
    }
}
