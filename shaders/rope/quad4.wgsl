// The contract of quad.wgsl where head_dim and num_pairs are multiples of four. Needs input4(row, c).
fn quad(row: Row, c: u32) -> vec4<f32> {
    let own = input4(row, c);
    if STYLE == 0u || c >= 2u * p.num_pairs { return own; }
    if STYLE == 2u {
        let x = cos_sin(row.position, c / 2u, row.block);
        let y = cos_sin(row.position, c / 2u + 1u, row.block);
        return vec4<f32>(own.x * x.x - own.y * x.y, own.y * x.x + own.x * x.y,
                         own.z * y.x - own.w * y.y, own.w * y.x + own.z * y.y);
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
    let k = cos_sin(row.position, i, row.block);
    let l = cos_sin(row.position, i + 1u, row.block);
    let m = cos_sin(row.position, i + 2u, row.block);
    let n = cos_sin(row.position, i + 3u, row.block);
    let cosine = vec4<f32>(k.x, l.x, m.x, n.x);
    let sine = vec4<f32>(k.y, l.y, m.y, n.y);
    return select(b * cosine + a * sine, a * cosine - b * sine, is_first);
}
