//! Every kernel, every variant, every case against its twin on poisoned, guard-banded buffers.
//!
//! Runs at the tier of `GIRIH_TIER` (the device's best if unset). `GIRIH_KERNEL=name` picks one kernel.

use girih_kernels::Gpu;
use girih_kernels::registry::KERNELS;
use girih_kernels::testing::run_case;
use girih_tests::on_device;

#[on_device]
async fn every_kernel_agrees_with_its_twin(gpu: Gpu) {
    let only = on_device::variable("GIRIH_KERNEL");
    let mut failures = Vec::new();
    for kernel in KERNELS {
        if only.as_deref().is_some_and(|name| name != kernel.spec.name) {
            continue;
        }
        let start = web_time::Instant::now();
        let mut launches = 0;
        for case in (kernel.cases)() {
            let (mismatches, ran) = run_case(&gpu, kernel.spec, &case).await;
            launches += ran;
            failures.extend(mismatches.iter().map(|m| format!("{}: {m}", kernel.spec.name)));
        }
        // Some cases are of one variant only; a kernel that no case of runs is not tested here.
        assert!(launches > 0, "{}: no launch runs on this device", kernel.spec.name);
        println!("{}: {launches} launches, {:.1} s", kernel.spec.name, start.elapsed().as_secs_f64());
    }
    assert!(failures.is_empty(), "{} mismatches:\n{}", failures.len(), failures.join("\n"));
}
