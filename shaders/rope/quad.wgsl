// Four channels c.. of a rotated head. STYLE 0: not rotated; 1: pairs (i, i + R/2); 2: pairs (2i, 2i + 1);
// 3: pairs (2i, 2i + 1), written as [all first | all second]. Channels from R on pass through. R/2 = num_pairs.
// Needs input(row, c) and cos_sin. quad4.wgsl is for heads and num_pairs that are multiples of four.
fn rotated(row: Row, c: u32) -> f32 {
    if STYLE == 0u || c >= 2u * p.num_pairs { return input(row, c); }
    var i = select(c, c - p.num_pairs, c >= p.num_pairs);
    var is_first = c < p.num_pairs;
    if STYLE == 2u {
        i = c / 2u;
        is_first = c % 2u == 0u;
    }
    var a = 0.0;
    var b = 0.0;
    if STYLE == 1u {
        a = input(row, i);
        b = input(row, i + p.num_pairs);
    } else {
        a = input(row, 2u * i);
        b = input(row, 2u * i + 1u);
    }
    let cs = cos_sin(row.position, i, row.block);
    return select(b * cs.x + a * cs.y, a * cs.x - b * cs.y, is_first);
}

fn quad(row: Row, c: u32) -> vec4<f32> {
    var v = vec4<f32>(0.0);
    for (var j = 0u; j < min(p.head_dim - c, 4u); j++) { v[j] = rotated(row, c + j); }
    return v;
}
