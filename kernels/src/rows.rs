//! What kernels that work row by row or element by element have in common: grids, widths, variant names.

use girih_shaders::Selection;

use crate::caps::Caps;
use crate::error::KernelError;
use crate::spec::Choice;

/// `(vec4, subgroup)` of each variant name, the preferred one first.
const VARIANTS: [((bool, bool), &str); 4] = [
    ((true, true), "subgroup_vec4"),
    ((true, false), "portable_vec4"),
    ((false, true), "subgroup"),
    ((false, false), "portable"),
];

/// Name of a variant.
pub(crate) fn variant(vec4: bool, subgroup: bool) -> &'static str {
    VARIANTS.iter().find(|(key, _)| *key == (vec4, subgroup)).map_or("portable", |(_, name)| name)
}

/// The best variant that the device can run and that passed its self-test.
pub(crate) fn pick(caps: &Caps, kernel: &str, vec4: bool, subgroup: bool) -> (bool, bool) {
    VARIANTS
        .iter()
        .filter(|((v, s), _)| (vec4 || !v) && (subgroup && caps.subgroups() || !s))
        .find(|(_, name)| !caps.is_blocked(kernel, name))
        .map_or((false, false), |(key, _)| *key)
}

/// Workgroup size for a row of `steps` loads.
pub(crate) fn row_wg(caps: &Caps, steps: u32) -> u32 {
    if caps.cpu_variants() { 16 } else { steps.clamp(64, 256).next_power_of_two().min(caps.invocations) }
}

/// One workgroup per row; rows beyond the device's limit along x continue along y.
pub(crate) fn row_grid(caps: &Caps, num_rows: u32) -> [u32; 3] {
    wrapped_grid(num_rows, caps.workgroups)
}

/// As [`row_grid`] with a given width.
pub(crate) fn wrapped_grid(groups: u32, width: u32) -> [u32; 3] {
    let x = groups.min(width);
    [x, groups.div_ceil(x.max(1)), 1]
}

/// Invocations of a kernel without reductions that visits elements one by one.
pub(crate) fn flat_wg(caps: &Caps) -> u32 {
    256.min(caps.invocations)
}

/// The width as a part, for files that import `common/lanes.wgsl`.
pub(crate) fn lanes(selection: Selection, vec4: bool) -> Selection {
    if vec4 { selection.part("lanes", "common/lanes4.wgsl") } else { selection }
}

/// A choice of a file that imports `common/lanes.wgsl` and `common/reduce.wgsl` and declares `WG`.
pub(crate) fn reducing(
    file: &'static str,
    wg: u32,
    vec4: bool,
    subgroup: bool,
    selection: Selection,
) -> Choice {
    let selection = lanes(selection.set("WG", wg), vec4);
    Choice {
        file,
        variant: variant(vec4, subgroup),
        selection: if subgroup { selection.part("reduce", "common/reduce_subgroup.wgsl") } else { selection },
        invocations: wg,
        // One f32 for each invocation, or for each subgroup of at least 4.
        workgroup_bytes: if subgroup { wg } else { 4 * wg },
    }
}

/// A choice of a file that imports `common/lanes.wgsl` and declares `WG`, without workgroup memory.
pub(crate) fn streaming(file: &'static str, wg: u32, vec4: bool, selection: Selection) -> Choice {
    Choice {
        file,
        variant: variant(vec4, false),
        selection: lanes(selection.set("WG", wg), vec4),
        invocations: wg,
        workgroup_bytes: 0,
    }
}

/// `(vec4, subgroup)`, all four.
pub(crate) fn widths() -> impl Iterator<Item = (bool, bool)> {
    VARIANTS.iter().map(|(key, _)| *key)
}

/// A count that must not be zero.
pub(crate) fn positive(kernel: &'static str, field: &'static str, got: u32) -> Result<(), KernelError> {
    if got > 0 {
        return Ok(());
    }
    Err(KernelError::BadParam { kernel, field, got: 0, must_be: "positive" })
}
