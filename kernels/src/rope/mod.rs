//! Rotary position embedding.

pub mod latent_append;
pub mod rope_append;
pub mod rotate;

use girih_shaders::Selection;

use crate::choice::{Choice, Data, Requires};
use crate::rows;
use crate::twin::TwinCall;

/// Which channels form a pair, of the R that are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// `(i, i + R/2)`
    Half,
    /// `(2i, 2i + 1)`
    Interleaved,
    /// `(2i, 2i + 1)`, written as `[all first | all second]`.
    InterleavedToHalf,
}

impl Style {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Half, Self::Interleaved, Self::InterleavedToHalf];

    pub(crate) fn code(self) -> u32 {
        self as u32 + 1
    }
}

/// Where cos and sin come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Angles {
    /// A table of (cos, sin), `[blocks * max_positions, R/2]`.
    Table,
    /// Computed in the shader from (inv_freq, attention factor), `[blocks, R/2]`.
    Computed,
}

const COMPUTED: &str = "rope/angle_computed.wgsl";

/// Fills the parts of a file that imports `rope/angle_table.wgsl` and `rope/quad.wgsl`.
pub(crate) fn parts(selection: Selection, angles: Angles, vec4: bool) -> Selection {
    let selection = if vec4 { selection.part("quad", "rope/quad4.wgsl") } else { selection };
    match angles {
        Angles::Table if vec4 => selection.part("angle_table", "rope/angle_table4.wgsl"),
        Angles::Table => selection,
        Angles::Computed => selection.part("angle_table", COMPUTED),
    }
}

/// What the twins of rotating kernels need to know.
pub(crate) struct Rotation {
    style: u32,
    computed: bool,
    num_pairs: usize,
    max_positions: u32,
    table: Vec<f32>,
}

impl Rotation {
    pub(crate) fn new(call: &TwinCall<'_>, table: usize, num_pairs: u32, max_positions: u32) -> Self {
        Self {
            style: call.selection.get_u32("STYLE").unwrap_or(1),
            computed: call.selection.get_part("angle_table") == Some(COMPUTED),
            num_pairs: num_pairs as usize,
            max_positions,
            table: call.get(table),
        }
    }

    fn cos_sin(&self, position: u32, i: usize, block: u32) -> (f64, f64) {
        if self.computed {
            let at = 2 * (block as usize * self.num_pairs + i);
            let angle = f64::from(position as f32 * self.table[at]);
            let factor = f64::from(self.table[at + 1]);
            return (angle.cos() * factor, angle.sin() * factor);
        }
        let row = (block * self.max_positions + position.min(self.max_positions - 1)) as usize;
        let at = 2 * (row * self.num_pairs + i);
        (f64::from(self.table[at]), f64::from(self.table[at + 1]))
    }

    /// The rotated head.
    pub(crate) fn apply(&self, x: &[f64], position: u32, block: u32) -> Vec<f64> {
        let mut y = x.to_vec();
        let n = self.num_pairs;
        for i in 0..if self.style == 0 { 0 } else { n } {
            let (cos, sin) = self.cos_sin(position, i, block);
            let (from, to) = match self.style {
                1 => ((i, i + n), (i, i + n)),
                2 => ((2 * i, 2 * i + 1), (2 * i, 2 * i + 1)),
                _ => ((2 * i, 2 * i + 1), (i, i + n)),
            };
            y[to.0] = x[from.0] * cos - x[from.1] * sin;
            y[to.1] = x[from.1] * cos + x[from.0] * sin;
        }
        y
    }
}

/// A choice of a file that imports `common/reduce.wgsl` and a part that writes keys in f32, one by one: `stores` are those of four
/// f32, of f16 and of four f16.
fn appending(
    file: &'static str,
    wg: u32,
    (vec4, subgroup): (bool, bool),
    mut selection: Selection,
    f16: bool,
    (slot, stores): (&'static str, [&'static str; 3]),
) -> Choice {
    let store = match (f16, vec4) {
        (false, false) => None,
        (false, true) => Some(stores[0]),
        (true, false) => Some(stores[1]),
        (true, true) => Some(stores[2]),
    };
    if let Some(store) = store {
        selection = selection.part(slot, store);
    }
    if subgroup {
        selection = selection.part("reduce", "common/reduce_subgroup.wgsl");
    }
    Choice {
        file,
        variant: rows::variant(vec4, subgroup),
        selection,
        invocations: wg,
        workgroup_bytes: if subgroup { wg } else { 4 * wg },
        requires: Requires::subgroups_if(subgroup),
        data: Data::KeysValues { f16 },
    }
}

/// As f16; NaN where f16 cannot hold it.
pub(crate) fn half_or_nan(v: f32) -> half::f16 {
    if v.abs() <= half::f16::MAX.to_f32() { half::f16::from_f32(v) } else { half::f16::NAN }
}

/// A table for tests: two blocks of `max_positions` rows, or two sets of (inv_freq, attention factor).
pub(crate) fn test_table(angles: Angles, num_pairs: u32, max_positions: u32) -> Vec<f32> {
    let inv_freq = |block: u32, i: u32| {
        (10_000f64.powf(-f64::from(i) / f64::from(num_pairs.max(1))) / f64::from(1 + block)) as f32
    };
    let mut table = Vec::new();
    if num_pairs == 0 {
        return vec![0.0; 4]; // an entry that is not read: bindings are not empty
    }
    for block in 0..2 {
        let factor = 1.0 + 0.25 * block as f32;
        if angles == Angles::Computed {
            table.extend((0..num_pairs).flat_map(|i| [inv_freq(block, i), factor]));
            continue;
        }
        for position in 0..max_positions {
            for i in 0..num_pairs {
                let angle = f64::from(position as f32 * inv_freq(block, i));
                table.push((angle.cos() * f64::from(factor)) as f32);
                table.push((angle.sin() * f64::from(factor)) as f32);
            }
        }
    }
    table
}
