// Which K of N = R C memory slots a query goes to, by scores of R rows and C columns: slot i C + j has the score rows[i] + columns[j].
//   the K best scores; among equals the better row, then the better column; of equal rows or columns the first; NaN never
//   weight = softmax among the chosen (PEER), softmax(rows)_i · softmax(columns)_j (OmniMoE), relu of the score, or the score
// One workgroup for a query. K rounds find the best rows, K the best columns. Of each row the best column that is left is its
// candidate; a round takes the best of those: K candidates at any time, never K² sums.
const WG: u32 = 64u; //!spec
// 0 softmax of the chosen, 1 the product of probabilities, 2 relu, 3 the score
const WEIGHT: u32 = 0u; //!spec
const MAX_K: u32 = 64u;
const MINUS_INFINITY: u32 = 0x007fffffu;        // as keys
const INFINITY: u32 = 0xff800000u;
struct Params { num_queries: u32, num_rows: u32, num_columns: u32, num_slots: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> rows: array<f32>;                // [Q, R]
@group(0) @binding(2) var<storage, read> columns: array<f32>;             // [Q, C]
@group(0) @binding(3) var<storage, read_write> routes: array<vec2<u32>>;  // [Q, K]: slot, bits of its weight
//!import common/reduce_key.wgsl
//!import common/exp_below.wgsl
var<workgroup> row_keys: array<u32, MAX_K>;
var<workgroup> row_ids: array<u32, MAX_K>;
var<workgroup> column_keys: array<u32, MAX_K>;
var<workgroup> column_ids: array<u32, MAX_K>;
var<workgroup> next_column: array<u32, MAX_K>;
var<workgroup> partial: array<f32, 2u * WG>;

// Key of a sum of two keys' values; minus infinity wins.
fn key_of_sum(a: u32, b: u32) -> u32 {
    if a == MINUS_INFINITY || b == MINUS_INFINITY { return MINUS_INFINITY; }
    if a == INFINITY || b == INFINITY { return INFINITY; }
    return order_key(key_value(a) + key_value(b));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
    let query = group.y * p.grid_x + group.x;
    if query >= p.num_queries { return; }
    // What is found next goes behind what was found last.
    var last = Best(0xffffffffu, 0u);
    for (var j = 0u; j < p.num_slots; j++) {
        var own = Best(0u, NONE);
        for (var i = lane.id; i < p.num_rows; i += WG) {
            let other = Best(order_key(rows[query * p.num_rows + i]), i);
            if other.key > 0u && better(last, other) && better(other, own) { own = other; }
        }
        last = workgroup_best(own, lane);
        if lane.id == 0u { row_keys[j] = last.key; row_ids[j] = last.index; next_column[j] = 0u; }
    }
    last = Best(0xffffffffu, 0u);
    for (var j = 0u; j < p.num_slots; j++) {
        var own = Best(0u, NONE);
        for (var i = lane.id; i < p.num_columns; i += WG) {
            let other = Best(order_key(columns[query * p.num_columns + i]), i);
            if other.key > 0u && better(last, other) && better(other, own) { own = other; }
        }
        last = workgroup_best(own, lane);
        if lane.id == 0u { column_keys[j] = last.key; column_ids[j] = last.index; }
    }
    workgroupBarrier();
    if WEIGHT == 1u {
        var own = vec2<f32>(0.0);
        for (var i = lane.id; i < p.num_rows; i += WG) {
            let l = rows[query * p.num_rows + i];
            if order_key(l) > 0u { own.x += exp_below(l, key_value(row_keys[0])); }
        }
        for (var i = lane.id; i < p.num_columns; i += WG) {
            let l = columns[query * p.num_columns + i];
            if order_key(l) > 0u { own.y += exp_below(l, key_value(column_keys[0])); }
        }
        partial[2u * lane.id] = own.x;
        partial[2u * lane.id + 1u] = own.y;
        workgroupBarrier();
    }
    let at = query * p.num_slots;
    for (var j = 0u; j < p.num_slots; j++) {
        var own = Best(0u, NONE);
        for (var a = lane.id; a < p.num_slots; a += WG) {
            let b = next_column[a];
            if b < p.num_slots && row_keys[a] > 0u {
                if column_keys[b] > 0u {
                    let other = Best(key_of_sum(row_keys[a], column_keys[b]), a * MAX_K + b);
                    if better(other, own) { own = other; }
                }
            }
        }
        let found = workgroup_best(own, lane);
        let a = found.index / MAX_K;
        if found.index != NONE && a % WG == lane.id { next_column[a] = found.index % MAX_K + 1u; }    // its owner's alone
        if lane.id == 0u { routes[at + j] = vec2<u32>(found.index, found.key); }
    }
    if lane.id > 0u { return; }
    // Ranks and keys become slots and weights.
    let best = routes[at].y;
    var sums = vec2<f32>(0.0);
    if WEIGHT == 0u {
        for (var j = 0u; j < p.num_slots; j++) {
            let route = routes[at + j];
            if route.x != NONE { sums.x += exp_below(key_value(route.y), key_value(best)); }
        }
    }
    if WEIGHT == 1u {
        for (var i = 0u; i < WG; i++) { sums += vec2<f32>(partial[2u * i], partial[2u * i + 1u]); }
    }
    for (var j = 0u; j < p.num_slots; j++) {
        let route = routes[at + j];
        var slot = NONE;
        var w = 0.0;
        if route.x != NONE {
            let a = route.x / MAX_K;
            let b = route.x % MAX_K;
            slot = row_ids[a] * p.num_columns + column_ids[b];
            w = key_value(route.y);
            if WEIGHT == 0u { w = select(0.0, exp_below(w, key_value(best)) / sums.x, sums.x > 0.0); }
            if WEIGHT == 1u {
                let of_row = exp_below(key_value(row_keys[a]), key_value(row_keys[0]));
                let of_column = exp_below(key_value(column_keys[b]), key_value(column_keys[0]));
                w = select(0.0, of_row / sums.x * (of_column / sums.y), sums.x > 0.0 && sums.y > 0.0);
            }
            if WEIGHT == 2u { w = max(w, 0.0); }
        }
        routes[at + j] = vec2<u32>(slot, bitcast<u32>(w));
    }
}
