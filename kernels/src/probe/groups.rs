//! What a grid costs that the host does not know: workgroups beyond a count leave at once, or the grid comes from a buffer.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{exact, portable};
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Element, Regime, TestCase};
use crate::choice::{Choice, Launch};
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

const WG: u32 = 64;

/// Same layout as `Params` in `groups.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    /// Workgroups along x; more continue along y.
    grid_x: u32,
    pad: [u32; 3],
}

const SPEC: KernelSpec = KernelSpec {
    name: "probe_groups",
    bindings: &[read("count"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices: || vec![choice()],
    cases,
    benches,
    cases_of: None,
    tuning: None,
    cost: None,
};

fn choice() -> Choice {
    portable("probe/groups.wgsl", WG, Selection::new())
}

/// `groups` workgroups, as many as possible along x.
fn launch(groups: u32, most_x: u32) -> Launch {
    let grid_x = groups.min(most_x);
    Launch::new(choice(), &Params { grid_x, pad: [0; 3] }, [grid_x, groups.div_ceil(grid_x), 1])
}

fn twin(call: &mut TwinCall<'_>) {
    let (count, mut y): (Vec<u32>, Vec<u32>) = (call.get(0), call.get(1));
    for (i, y) in (0..).zip(y.iter_mut()).take((WG * count[0]) as usize) {
        *y = i;
    }
    call.put(1, &y);
}

/// Each with workgroups to spare, and with a grid from a buffer.
fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    [("one", OneTile, 1), ("some", PartialTile, 7), ("many", ManyTiles, 33), ("as_measured", Model, 256)]
        .into_iter()
        .map(|(name, regime, groups)| {
            let poison = vec![0xdead_beef_u32; (2 * groups * WG) as usize];
            let mut case = exact(name, regime).input(&[groups]).in_out(&poison, Element::Bits);
            case.launches.push(launch(2 * groups, 5));
            case.launches.push(Launch { indirect: true, ..launch(groups, 5) });
            case
        })
        .collect()
}

/// Called `WORK of GRID`, or `WORK indirect`.
fn benches() -> Vec<BenchCase> {
    ["256 of 256", "256 of 2048", "256 indirect", "8 of 2048", "8 indirect"]
        .into_iter()
        .filter_map(|name| {
            let (groups, _) = parse(name)?;
            let bytes = 4 * u64::from(groups * WG);
            Some(BenchCase {
                name: name.into(),
                bytes,
                written: bytes,
                arithmetic: Arithmetic::F32,
                buffers: vec![BenchBuffer::U32(vec![groups]), BenchBuffer::F32((groups * WG) as usize)],
                launches: bench_launches,
                flops: 0,
            })
        })
        .collect()
}

/// Workgroups with work, and all of them where the host says how many.
fn parse(name: &str) -> Option<(u32, Option<u32>)> {
    let (groups, rest) = name.split_once(' ')?;
    Some((groups.parse().ok()?, rest.strip_prefix("of ").and_then(|all| all.parse().ok())))
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let of = |(groups, all): (u32, Option<u32>)| match all {
        Some(all) => launch(all, caps.workgroups),
        None => Launch { indirect: true, ..launch(groups, caps.workgroups) },
    };
    parse(name).map(of).into_iter().collect()
}
