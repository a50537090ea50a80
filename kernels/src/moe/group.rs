//! Slots by their experts, in tiles: what grouped products read.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{MAX_EXPERTS, array_bytes};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Element, Regime, TestCase, Tolerance, hash};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `group.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Slots of all tokens.
    pub num_slots: u32,
    /// Experts E.
    pub num_experts: u32,
    /// Slots of a tile at most.
    pub height: u32,
    /// Tiles that there is room for.
    pub max_tiles: u32,
    /// Workgroups along x of the first product.
    pub first_columns: u32,
    /// Of the second.
    pub second_columns: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// `[slots, 2]`: expert, bits of its weight. Slots whose expert is none of E are in no tile.
    pub routes: &'a Buffer,
    /// [`groups_bytes`]: tiles `[max_tiles, 4]` (expert, first row, rows, 0), those behind the last with no rows; then the slot
    /// of each row, [`NONE`](super::NONE) behind the last row.
    pub groups: &'a Buffer,
    /// Two grids of four words, `(columns, tiles, 1, 0)`, of a buffer that grids may come from.
    pub grids: &'a Buffer,
}

/// Most slots of a tile.
const MAX_HEIGHT: u32 = 1 << 16;

/// Bytes of the grids.
pub const GRIDS_BYTES: u64 = 32;

const SPEC: KernelSpec = KernelSpec {
    name: "moe_group",
    bindings: &[read("routes"), read_write("groups"), read_write("grids")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Tiles of so many slots at most that any routing can have: every expert but the last may end with one that is not full.
pub fn max_tiles(slots: u32, experts: u32, height: u32) -> u32 {
    let started = experts.min(slots);
    (slots / height.max(1)).saturating_add(started).min(slots)
}

/// Bytes of the groups of slots; `u64::MAX` where there are too many.
pub fn groups_bytes(slots: u32, max_tiles: u32) -> u64 {
    4 * (4 * u64::from(max_tiles) + u64::from(slots))
}

/// Appends the groups of slots, with `columns` workgroups along x of two products.
///
/// # Errors
/// No experts or too many, tiles of no slots or of more than 65536, more tiles than workgroups along an axis, buffers that are too short, and as
/// [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    [slots, experts, height]: [u32; 3],
    columns: [u32; 2],
) -> Result<(), KernelError> {
    let bad = |field, got: u32, must_be| {
        Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
    };
    if experts == 0 || experts > MAX_EXPERTS {
        return bad("experts", experts, "1 to 1024");
    }
    if height == 0 || height > MAX_HEIGHT {
        return bad("slots of a tile", height, "1 to 65536");
    }
    let max_tiles = max_tiles(slots, experts, height);
    if max_tiles > rec.caps().workgroups {
        return bad("tiles", max_tiles, "at most the workgroups along an axis");
    }
    rows::check_sizes(
        SPEC.name,
        [
            ("routes", Some(args.routes), rows::product([8, slots.into()])),
            ("groups", Some(args.groups), groups_bytes(slots, max_tiles)),
            ("grids", Some(args.grids), GRIDS_BYTES),
        ],
    )?;
    let wg = workgroup(rec.caps());
    let [first_columns, second_columns] = columns;
    let params =
        Params { num_slots: slots, num_experts: experts, height, max_tiles, first_columns, second_columns };
    rec.dispatch(&SPEC, choice(wg, experts), &params, &[args.routes, args.groups, args.grids], [1, 1, 1])
}

/// A CPU's invocations wait for each other one by one: one does it all.
fn workgroup(caps: &Caps) -> u32 {
    if caps.cpu_variants() { 1 } else { 256.min(caps.invocations) }
}

fn choice(wg: u32, experts: u32) -> Choice {
    let memory = experts.next_power_of_two();
    Choice {
        file: "moe/group.wgsl",
        variant: if wg == 1 { "serial" } else { "portable" },
        selection: Selection::new().set("WG", wg).set("EXPERTS", memory),
        invocations: wg,
        // Counts, rows and tiles of experts; totals; a run of slots.
        workgroup_bytes: 3 * array_bytes(memory) + array_bytes(2) + array_bytes(wg),
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

const WORKGROUPS: [u32; 3] = [1, 128, 256];

fn choices() -> Vec<Choice> {
    WORKGROUPS.into_iter().flat_map(|wg| [1, 64, MAX_EXPERTS].map(|experts| choice(wg, experts))).collect()
}

/// The definition: a stable sort.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let routes: Vec<[u32; 2]> = call.get(0);
    let (mut tiles, mut order) = (Vec::new(), Vec::new());
    for expert in 0..p.num_experts {
        let slots = (0..p.num_slots).filter(|&slot| routes[slot as usize][0] == expert);
        for tile in slots.collect::<Vec<u32>>().chunks(p.height as usize) {
            tiles.extend([expert, order.len() as u32, tile.len() as u32, 0]);
            order.extend(tile);
        }
    }
    let count = tiles.len() as u32 / 4;
    tiles.resize(4 * p.max_tiles as usize, 0);
    order.resize(p.num_slots as usize, super::NONE);
    tiles.extend(order);
    call.put(1, &tiles);
    call.put(2, &[p.first_columns, count, 1, 0, p.second_columns, count, 1, 0]);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    // `spread`: experts that slots go to, one after the other; 0: at random, every 19th to none.
    let case = |(name, regime): (&str, Regime), [slots, experts, height, spread]: [u32; 4]| {
        let route = |slot: u32| match spread {
            0 if slot % 19 == 18 => [super::NONE, 0],
            0 => [hash(slot) % experts, 7],
            spread => [experts - 1 - slot % spread, 7],
        };
        let routes: Vec<[u32; 2]> = (0..slots).map(route).collect();
        let max_tiles = max_tiles(slots, experts, height);
        let words = (groups_bytes(slots, max_tiles) / 4) as usize;
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&routes)
            .in_out(&vec![0xdead_beefu32; words], Element::Bits)
            .in_out(&[0xdead_beefu32; 8], Element::Bits);
        for wg in WORKGROUPS {
            let params = Params {
                num_slots: slots,
                num_experts: experts,
                height,
                max_tiles,
                first_columns: 3,
                second_columns: 5,
            };
            case = case.launch(choice(wg, experts), &params, [1, 1, 1]);
        }
        case
    };
    vec![
        case(("one_slot", OneTile), [1, 1, 8, 0]),
        case(("one_each", PartialTile), [9, 9, 8, 9]),
        case(("all_to_one", ManyTiles), [300, 8, 16, 1]),
        case(("uneven", PartialTile), [130, 7, 8, 0]),
        case(("many", ManyTiles), [1000, 60, 16, 0]),
        case(("most_experts", ManyTiles), [700, MAX_EXPERTS, 8, 0]),
        case(("qwen3_moe", Model), [2048, 128, 16, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::max_tiles;

    /// No routing has more tiles: all experts but one with a slot more than whole tiles is the worst.
    #[test]
    fn tiles_fit() {
        assert_eq!(max_tiles(0, 8, 8), 0);
        assert_eq!(max_tiles(1, 8, 8), 1);
        for slots in 1..200u32 {
            for experts in 1..12u32 {
                let worst = |height: u32| {
                    // Each expert in turn gets one slot, what is left goes to the first.
                    let ones = (experts - 1).min(slots - 1);
                    ones + (slots - ones).div_ceil(height)
                };
                for height in [1, 8, 16] {
                    let most = max_tiles(slots, experts, height);
                    assert!(worst(height) <= most, "{slots} {experts} {height}");
                }
            }
        }
    }
}
