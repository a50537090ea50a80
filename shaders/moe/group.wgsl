// Slots by their experts, in tiles of at most `height` slots of one expert: counted, counts added up, then placed in the order of
// the slots. One workgroup for all of them, so the result is the same every time.
//   groups: tiles (expert, first row, rows, 0), those behind the last with no rows; then the slot of each row
//   grids: two of (columns, tiles, 1, 0)
const WG: u32 = 256u; //!spec
// Room for this many experts.
const EXPERTS: u32 = 64u; //!spec
const NONE: u32 = 0xffffffffu;
struct Params { num_slots: u32, num_experts: u32, height: u32, max_tiles: u32, first_columns: u32, second_columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> routes: array<vec2<u32>>;        // [slots]: expert, bits of its weight
@group(0) @binding(2) var<storage, read_write> groups: array<u32>;        // [max_tiles, 4], [slots]
@group(0) @binding(3) var<storage, read_write> grids: array<u32>;         // [2, 4]
var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> next_row: array<u32, EXPERTS>;
var<workgroup> first_tile: array<u32, EXPERTS>;
var<workgroup> totals: vec2<u32>;                                         // rows, tiles
var<workgroup> ids: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var e = lane; e < p.num_experts; e += WG) { atomicStore(&counts[e], 0u); }
    workgroupBarrier();
    for (var slot = lane; slot < p.num_slots; slot += WG) {
        let e = routes[slot].x;
        if e < p.num_experts { atomicAdd(&counts[e], 1u); }
    }
    workgroupBarrier();
    if lane == 0u {
        var rows = 0u;
        var tiles = 0u;
        for (var e = 0u; e < p.num_experts; e++) {
            let count = atomicLoad(&counts[e]);
            next_row[e] = rows;
            first_tile[e] = tiles;
            rows += count;
            tiles += (count + p.height - 1u) / p.height;
        }
        totals = vec2<u32>(rows, tiles);
        grids[0] = p.first_columns;
        grids[1] = tiles;
        grids[2] = 1u;
        grids[3] = 0u;
        grids[4] = p.second_columns;
        grids[5] = tiles;
        grids[6] = 1u;
        grids[7] = 0u;
    }
    workgroupBarrier();
    for (var e = lane; e < p.num_experts; e += WG) {
        let count = atomicLoad(&counts[e]);
        for (var i = 0u; i * p.height < count; i++) {
            let at = 4u * (first_tile[e] + i);
            groups[at] = e;
            groups[at + 1u] = next_row[e] + i * p.height;
            groups[at + 2u] = min(p.height, count - i * p.height);
            groups[at + 3u] = 0u;
        }
    }
    for (var i = 4u * totals.y + lane; i < 4u * p.max_tiles; i += WG) { groups[i] = 0u; }
    let order = 4u * p.max_tiles;
    for (var i = totals.x + lane; i < p.num_slots; i += WG) { groups[order + i] = NONE; }
    workgroupBarrier();
    // Of a run of WG slots each has as many of its expert's before it as a count says; the last one moves the expert on.
    for (var first = 0u; first < p.num_slots; first += WG) {
        let slot = first + lane;
        var e = NONE;
        if slot < p.num_slots { e = routes[slot].x; }
        ids[lane] = e;
        workgroupBarrier();
        var before = 0u;
        var behind = 0u;
        if e < p.num_experts {
            for (var i = 0u; i < WG; i++) {
                if ids[i] == e { if i < lane { before++; } else { behind++; } }
            }
            groups[order + next_row[e] + before] = slot;
        }
        workgroupBarrier();
        if behind == 1u { next_row[e] += before + 1u; }
        workgroupBarrier();
    }
}
