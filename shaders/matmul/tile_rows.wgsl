// Which rows a tile of many rows takes: the next ones of x, all of W. tile_slots.wgsl takes rows by groups.
// Rows first .. end of the tile, beginning with row w0 of W.
struct TileRows { first: u32, end: u32, w0: u32 }
fn tile_rows(tile: u32, height: u32) -> TileRows { return TileRows(tile * height, p.num_m, 0u); }

// Where a row is in x and in y; with GATHERS somewhere else.
const GATHERS: bool = false;
fn x_row(row: u32) -> u32 { return row; }
fn y_row(row: u32) -> u32 { return row; }
