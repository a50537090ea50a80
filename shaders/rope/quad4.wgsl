// The contract of quad.wgsl where head_dim and num_pairs are multiples of four. Needs input4(row, c) and cos_sin2.
fn quad(row: Row, c: u32) -> vec4<f32> {
    let own = input4(row, c);
    if STYLE == 0u || c >= 2u * p.num_pairs { return own; }
    if STYLE == 2u {
        let k = cos_sin2(row.position, c / 2u, row.block);
        return vec4<f32>(own.x * k.x - own.y * k.y, own.y * k.x + own.x * k.y,
                         own.z * k.z - own.w * k.w, own.w * k.z + own.z * k.w);
    }
    let is_first = c < p.num_pairs;
    let i = select(c - p.num_pairs, c, is_first);
    var a = own;
    var b = own;
    if STYLE == 1u {
        let other = input4(row, select(i, i + p.num_pairs, is_first));
        a = select(other, own, is_first);
        b = select(own, other, is_first);
    } else {
        let u = input4(row, 2u * i);
        let v = input4(row, 2u * i + 4u);
        a = vec4<f32>(u.x, u.z, v.x, v.z);
        b = vec4<f32>(u.y, u.w, v.y, v.w);
    }
    let k = cos_sin2(row.position, i, row.block);
    let l = cos_sin2(row.position, i + 2u, row.block);
    let cosine = vec4<f32>(k.x, k.z, l.x, l.z);
    let sine = vec4<f32>(k.y, k.w, l.y, l.w);
    return select(b * cosine + a * sine, a * cosine - b * sine, is_first);
}
