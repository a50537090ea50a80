//! Every selectable shader is composed, parsed and validated with naga; what the host declares about it holds.

use girih_kernels::registry::KERNELS;
use girih_kernels::shaders::{Dialect, compose};
use girih_tests::shaders::check;
use naga::valid::Capabilities;

#[test]
fn every_selectable_shader_is_valid() {
    let mut failures = Vec::new();
    let mut count = 0;
    for kernel in KERNELS {
        for choice in (kernel.choices)() {
            count += 1;
            if let Err(error) = check(kernel.spec, &choice, Capabilities::all()) {
                failures
                    .push(format!("{}/{} [{}]: {error}", kernel.spec.name, choice.variant, choice.selection));
            }
        }
    }
    println!("{count} shaders validated");
    assert!(failures.is_empty(), "{} invalid:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_browser_dialect_enables_subgroups_and_naga_does_not() {
    let subgroup = girih_kernels::shaders::Selection::new().part("reduce", "common/reduce_subgroup.wgsl");
    let file = "norm/rms_norm.wgsl";
    let browser = compose(file, &subgroup, Dialect::Browser).expect("composes");
    let naga = compose(file, &subgroup, Dialect::Naga).expect("composes");
    assert!(browser.wgsl.starts_with("enable subgroups;"));
    assert!(!naga.wgsl.contains("enable subgroups;"));
}
