//! The values of a ternary matrix.

use bytemuck::{Pod, Zeroable};

use super::{Matrix, Seeded, TEAMS, bindings, choice, grid, pick, values};
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `ternary_decode.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows N.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
}

const FILE: &str = "ternary/ternary_decode.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "ternary_decode",
    bindings: &[read("dictionary"), read("codes"), read("starts"), read("levels"), read_write("w")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends the values of a matrix `[N, K]`, f32.
///
/// # Errors
/// No rows or columns, buffers that are too short, sizes beyond 32 bits, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, of: Matrix<'_>, w: &Buffer) -> Result<(), KernelError> {
    let [dictionary, codes, starts, levels] = bindings(SPEC.name, of)?;
    let want = 4 * u64::from(of.n) * u64::from(of.k);
    rows::check_sizes(SPEC.name, [("w", Some(w), want)])?;
    let team = pick(rec.caps(), SPEC.name, of.k);
    let grid = grid(of.n, team, rec.caps().workgroups);
    let params = Params { n: of.n, k: of.k, grid_x: grid[0] };
    rec.dispatch(&SPEC, choice(FILE, team), &params, &[dictionary, codes, starts, levels, w], grid)
}

fn choices() -> Vec<Choice> {
    TEAMS.map(|team| choice(FILE, team)).into()
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let w = values(call, p.n, p.k);
    call.put(4, &w);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), [n, k]: [u32; 2]| {
        let case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 });
        let mut case = Seeded::new(n, k).inputs(case).output((n * k) as usize);
        for team in TEAMS {
            let grid = grid(n, team, 3);
            let params = Params { n, k, grid_x: grid[0] };
            case = case.launch(choice(FILE, team), &params, grid);
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 1]),
        case(("odd", PartialTile), [5, 131]),
        case(("many", ManyTiles), [37, 600]),
        case(("switch", Model), [3, 3072]),
    ]
}

#[cfg(test)]
mod tests {
    use super::Seeded;
    use crate::quant::dictionary::TernaryRows;

    #[test]
    fn seeded_rows_decode() {
        for (n, k) in [(1, 1), (5, 131), (3, 3072)] {
            let seeded = Seeded::new(n, k);
            let Seeded { starts, codes, levels } = &seeded;
            let values = TernaryRows { n, k, starts, codes, levels }.values().expect("rows of k columns");
            let zeros = values.iter().filter(|&&v| v == 0.0).count();
            assert!(
                k < 100 || (zeros < values.len() && 2 * zeros > values.len()),
                "{zeros} of {}",
                values.len()
            );
        }
    }
}
