//! Every kernel, every variant, every case against its twin on poisoned, guard-banded buffers.
//!
//! Runs at the tier of `GIRIH_TIER` (the device's best if unset). `GIRIH_KERNEL=name` picks one kernel and prints the time of
//! each of its cases, most of which is compiling where nothing is cached.

use std::collections::BTreeSet;

use girih_kernels::quant::WeightFormat;
use girih_kernels::registry::KERNELS;
use girih_kernels::testing::run_case;
use girih_kernels::{Choice, Data, Gpu};
use girih_tests::on_device;

#[on_device]
async fn every_kernel_agrees_with_its_twin_1_of_2(gpu: Gpu) {
    part(&gpu, 0, 2).await;
}

#[on_device]
async fn every_kernel_agrees_with_its_twin_2_of_2(gpu: Gpu) {
    part(&gpu, 1, 2).await;
}

/// Every `of`-th kernel from the `part`-th on: all together would take a slow machine with a browser more than a test may.
async fn part(gpu: &Gpu, part: usize, of: usize) {
    let only = on_device::variable("GIRIH_KERNEL");
    let mut failures = Vec::new();
    for kernel in KERNELS.iter().skip(part).step_by(of) {
        if only.as_deref().is_some_and(|name| name != kernel.spec.name) {
            continue;
        }
        let start = web_time::Instant::now();
        let mut launches = 0;
        let mut ran = BTreeSet::new();
        for case in (kernel.cases)() {
            let began = web_time::Instant::now();
            let (mismatches, count) = run_case(gpu, kernel.spec, &case).await;
            launches += count;
            if only.is_some() {
                println!("  {}: {count} launches, {:.1} s", case.name, began.elapsed().as_secs_f64());
            }
            ran.extend(
                case.launches.iter().filter(|l| gpu.caps().runs(&l.choice)).map(|l| reader(&l.choice)),
            );
            failures.extend(mismatches.iter().map(|m| format!("{}: {m}", kernel.spec.name)));
        }
        // A variant that never ran has not passed.
        let runs = |choice: &Choice| gpu.caps().runs(choice);
        let missing: BTreeSet<String> =
            (kernel.choices)().iter().filter(|c| runs(c)).map(reader).filter(|r| !ran.contains(r)).collect();
        // Variants for subgroups of 4 lanes (SwiftShader) are the same text with another constant: some cases run them.
        let wide = gpu.caps().subgroup_size.is_none_or(|(smallest, _)| smallest >= 8);
        assert!(!wide || missing.is_empty(), "{}: no case of {missing:?} runs here", kernel.spec.name);
        println!("{}: {launches} launches, {:.1} s", kernel.spec.name, start.elapsed().as_secs_f64());
    }
    assert!(failures.is_empty(), "{} mismatches:\n{}", failures.len(), failures.join("\n"));
}

/// A variant with its reader of data; all quantised formats have one reader.
fn reader(choice: &Choice) -> String {
    match choice.data {
        Data::Weights(WeightFormat::Quant(_)) => format!("{}/quantised", choice.variant),
        data => format!("{}/{data}", choice.variant),
    }
}

/// What no case launches is not tested by any of them.
#[test]
fn every_variant_has_cases_of_every_regime() {
    use std::collections::BTreeMap;

    use girih_kernels::testing::Regime;

    let mut missing = Vec::new();
    for kernel in KERNELS {
        let mut launched: BTreeMap<String, BTreeSet<Regime>> = BTreeMap::new();
        for case in (kernel.cases)() {
            for launch in &case.launches {
                launched.entry(reader(&launch.choice)).or_default().insert(case.regime);
            }
        }
        let selectable: BTreeSet<String> = (kernel.choices)().iter().map(reader).collect();
        assert!(!selectable.is_empty(), "{}: no choices", kernel.spec.name);
        for reader in selectable {
            let found = launched.remove(&reader).unwrap_or_default();
            let lacks: Vec<Regime> = Regime::ALL.into_iter().filter(|r| !found.contains(r)).collect();
            if !lacks.is_empty() {
                missing.push(format!("{}/{reader}: {lacks:?}", kernel.spec.name));
            }
        }
        missing
            .extend(launched.keys().map(|r| format!("{}/{r} is launched but no choice", kernel.spec.name)));
    }
    assert!(missing.is_empty(), "{} without cases:\n{}", missing.len(), missing.join("\n"));
}
