//! Every selectable shader through the browser's own compiler.

use std::collections::HashSet;

use girih_kernels::registry::KERNELS;
use girih_kernels::shaders::{Dialect, compose};
use girih_kernels::testing::run_case;
use girih_kernels::{Caps, Gpu, selftest, wgpu};
use girih_tests::on_device;

/// Whether a shader enables only what the device has.
fn is_for(gpu: &Gpu, wgsl: &str) -> bool {
    let enables = |feature: &str| wgsl.contains(&format!("enable {feature};"));
    let int64 = wgsl.contains("u64");
    !int64 && (gpu.caps().f16 || !enables("f16")) && (gpu.caps().subgroup_size.is_some() || !enables("subgroups"))
}

#[on_device]
async fn every_selectable_shader_compiles_without_warnings(gpu: Gpu) {
    let mut seen = HashSet::new();
    let mut left_out = 0;
    let mut failures = Vec::new();
    for kernel in KERNELS {
        let dialects = [Dialect::Browser, Dialect::BrowserBase];
        for (choice, dialect) in (kernel.choices)().into_iter().flat_map(|c| dialects.map(|d| (c.clone(), d))) {
            let composed = compose(choice.file, &choice.selection, dialect).expect("composes");
            if !seen.insert(composed.wgsl.clone()) {
                continue;
            }
            if !is_for(&gpu, &composed.wgsl) {
                left_out += 1;
                continue;
            }
            let module = gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(kernel.spec.name),
                source: wgpu::ShaderSource::Wgsl(composed.wgsl.into()),
            });
            for message in module.get_compilation_info().await.messages {
                let at = message.location.map(|l| format!("{}:{}", l.line_number, l.line_position));
                failures.push(format!(
                    "{}/{} [{}] {}: {:?}: {}",
                    kernel.spec.name,
                    choice.variant,
                    choice.selection,
                    at.unwrap_or_default(),
                    message.message_type,
                    message.message
                ));
            }
        }
    }
    println!("{} shaders compiled, {left_out} need what this device lacks", seen.len() - left_out);
    assert!(seen.len() - left_out > 100, "{} shaders of {}", seen.len() - left_out, seen.len());
    assert!(failures.is_empty(), "{} messages:\n{}", failures.len(), failures.join("\n"));
    gpu.check().expect("no error of the device");
}

/// The functions that stand in for WGSL's packed integers compute what those do.
#[on_device]
async fn kernels_without_packed_integers_agree_with_their_twins(gpu: Gpu) {
    let gpu = gpu.with_caps(Caps { dialect: Dialect::BrowserBase, ..gpu.caps().clone() });
    let mut launches = 0;
    for kernel in KERNELS.iter().filter(|k| ["gemv_int", "gemm_int", "transform_rows"].contains(&k.spec.name)) {
        for case in (kernel.cases)().into_iter().take(2) {
            let (mismatches, ran) = run_case(&gpu, kernel.spec, &case).await;
            let mismatches: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
            assert!(mismatches.is_empty(), "{}:\n{}", kernel.spec.name, mismatches.join("\n"));
            launches += ran;
        }
    }
    assert!(launches > 5, "{launches} launches");
}

/// Pipelines too, of what the self-test runs: it blocks a variant that a browser refuses.
#[on_device]
async fn the_self_test_blocks_nothing(gpu: Gpu) {
    let report = selftest::run(&gpu).await;
    println!("{} launches", report.ran);
    assert!(report.ran >= KERNELS.len(), "{} launches", report.ran);
    let mismatches: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
    assert!(report.blocked.is_empty(), "{:?}:\n{}", report.blocked, mismatches.join("\n"));
}
