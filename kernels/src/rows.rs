//! What kernels that work row by row or element by element have in common: grids, widths, variant names.

use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;

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
    pick_for(caps, kernel, Data::Plain, vec4, subgroup)
}

/// [`pick`] of a kernel that comes with several readers of data.
pub(crate) fn pick_for(caps: &Caps, kernel: &str, data: Data, vec4: bool, subgroup: bool) -> (bool, bool) {
    VARIANTS
        .iter()
        .filter(|((v, s), _)| (vec4 || !v) && (subgroup && caps.subgroups() || !s))
        .find(|(_, name)| !caps.is_blocked(kernel, name, data))
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
        requires: Requires::subgroups_if(subgroup),
        data: Data::Plain,
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
        requires: Requires::NOTHING,
        data: Data::Plain,
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

/// `num_rows · num_channels`, which shaders count in 32 bits.
pub(crate) fn elements(kernel: &'static str, num_rows: u32, num_channels: u32) -> Result<u32, KernelError> {
    num_rows.checked_mul(num_channels).ok_or(KernelError::BadParam {
        kernel,
        field: "number of elements",
        got: u64::from(num_rows) * u64::from(num_channels),
        must_be: "below 2^32",
    })
}

/// Refuses buffers of fewer bytes than wanted.
pub(crate) fn check_sizes<const N: usize>(
    kernel: &'static str,
    buffers: [(&'static str, Option<&Buffer>, u64); N],
) -> Result<(), KernelError> {
    for (binding, buffer, want) in buffers {
        if let Some(got) = buffer.map(Buffer::size).filter(|&size| size < want) {
            return Err(KernelError::BadBuffer { kernel, binding, got, want });
        }
    }
    Ok(())
}

/// A product of sizes; `u64::MAX`, which no buffer has, where it does not fit.
pub(crate) fn product<const N: usize>(factors: [u64; N]) -> u64 {
    if factors.contains(&0) { 0 } else { factors.into_iter().fold(1, u64::saturating_mul) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Tier;

    /// Sizes whose product wraps 64 bits to 0 or something small are larger than any buffer.
    #[test]
    fn products_do_not_wrap() {
        assert_eq!(product([4, 3, 5]), 60);
        assert_eq!(product([4, 1 << 31, 1 << 31]), u64::MAX);
        assert_eq!(product([4, 1 << 31, 1 << 31, 0]), 0);
        assert!(elements("k", 1 << 16, 1 << 16).is_err());
    }

    #[test]
    fn the_width_follows_the_shape_and_the_device() {
        let baseline = Caps::baseline();
        assert_eq!(pick(&baseline, "k", true, true), (true, false));
        assert_eq!(pick(&baseline, "k", false, true), (false, false));
        let subgroups = Caps { subgroup_size: Some((32, 32)), ..baseline.clone() }.at_tier(Tier::Subgroup);
        assert_eq!(pick(&subgroups, "k", true, true), (true, true));
        assert_eq!(pick(&subgroups, "k", true, false), (true, false));
        assert_eq!(pick(&subgroups, "k", false, true), (false, true));
    }

    #[test]
    fn a_variant_that_failed_its_self_test_is_passed_over() {
        let mut caps = Caps { subgroup_size: Some((8, 8)), ..Caps::baseline() }.at_tier(Tier::Subgroup);
        caps.blocked.insert("k/subgroup_vec4".into());
        assert_eq!(pick(&caps, "k", true, true), (true, false));
        assert_eq!(pick(&caps, "other", true, true), (true, true));
        caps.blocked.insert("k/portable_vec4".into());
        assert_eq!(pick(&caps, "k", true, true), (false, true));
    }

    #[test]
    fn workgroups_fit_the_device_and_the_row() {
        let compat = Caps { invocations: 128, ..Caps::baseline() };
        assert_eq!(row_wg(&compat, 4096), 128);
        assert_eq!(row_wg(&Caps::baseline(), 4096), 256);
        assert_eq!(row_wg(&Caps::baseline(), 1), 64);
        assert_eq!(row_wg(&Caps { is_cpu: true, ..Caps::baseline() }.at_tier(Tier::Cpu), 4096), 16);
    }

    #[test]
    fn long_grids_wrap() {
        assert_eq!(wrapped_grid(0, 65535), [0, 0, 1]);
        assert_eq!(wrapped_grid(65535, 65535), [65535, 1, 1]);
        assert_eq!(wrapped_grid(65536, 65535), [65535, 2, 1]);
    }
}
