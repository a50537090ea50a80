//! Tests of what kernels list for being measured.

use super::KERNELS;
use crate::caps::{Caps, Tier};
use crate::case::TestCase;
use crate::choice::{Choice, Data};

/// Constants that say how work is divided.
const SIZES: [&str; 9] = ["WG", "ROWS", "TM", "TN", "TX", "TY", "LANES", "R", "KG"];

/// Whether two choices are of one variant, read the same data and divide the work in the same way.
fn is_alike(one: &Choice, other: &Choice) -> bool {
    let sizes = |c: &Choice| SIZES.map(|name| c.selection.get_u32(name));
    (one.variant, one.data, one.invocations, sizes(one))
        == (other.variant, other.data, other.invocations, sizes(other))
}

fn device(tier: Tier, lanes: Option<u32>) -> Caps {
    let subgroup_size = lanes.map(|n| (n, n));
    Caps { tier, subgroup_size, is_cpu: tier == Tier::Cpu, ..Caps::baseline() }
}

/// Whatever may be selected has cases of the same sizes, with the same reader of data; and ways are told apart.
#[test]
fn every_way_has_a_known_answer() {
    let mut devices = vec![device(Tier::Portable, None)];
    devices.extend([32, 4].map(|lanes| device(Tier::Subgroup, Some(lanes))));
    devices.extend([Some(8), Some(4), None].map(|lanes| device(Tier::Cpu, lanes)));
    let mut checked = 0;
    for kernel in KERNELS {
        let Some(tuning) = kernel.tuning else { continue };
        let cases = (kernel.cases)();
        for (caps, case) in devices.iter().flat_map(|caps| cases.iter().map(move |case| (caps, case))) {
            let Some(ways) = (tuning.ways)(caps, &case.launches[0]) else { continue };
            let mut names: Vec<&str> = ways.ways.iter().map(|way| way.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), ways.ways.len(), "{}: {names:?}", kernel.spec.name);
            assert!(!ways.shape.contains(' ') && !ways.ways.is_empty());
            for way in &ways.ways {
                let choice = &way.steps[0].launch.choice;
                let what = format!("{} {} of {}", kernel.spec.name, way.name, case.name);
                assert!(caps.runs(choice), "{what}");
                let has = |cases: &[TestCase]| {
                    cases.iter().flat_map(|case| &case.launches).any(|l| is_alike(&l.choice, choice))
                };
                let of_format = || match (kernel.cases_of, choice.data) {
                    (Some(cases_of), Data::Weights(format)) => cases_of(format),
                    _ => Vec::new(),
                };
                assert!(has(&cases) || has(&of_format()), "no case of {what}");
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "{checked} ways");
}
