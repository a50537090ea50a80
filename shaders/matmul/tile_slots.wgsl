// The rows of a tile of grouped products: slots that go to one expert. `groups` holds tiles (expert, first row, rows, 0), and
// from slots_at on the slot of each row. Slot s is row s of y and row s / x_slots of x. The importer declares groups.
struct TileRows { first: u32, end: u32, w0: u32 }
fn tile_rows(tile: u32, height: u32) -> TileRows {
    let expert = groups[4u * tile] - p.first_expert;
    let first = groups[4u * tile + 1u];
    bias_expert_at = groups[4u * tile] * p.num_n;
    // None, where the expert is of another part of W.
    let count = select(0u, groups[4u * tile + 2u], expert < p.num_experts);
    return TileRows(first, first + count, expert * p.num_n);
}

const GATHERS: bool = true;
fn y_row(row: u32) -> u32 { return groups[p.slots_at + row]; }
fn x_row(row: u32) -> u32 { return y_row(row) / p.x_slots; }
