// scan.wgsl for four logits.
fn scan(so_far: Best, v: vec4<f32>, i: u32) -> Best {
    var best = so_far;
    let x = order_key(v.x);
    if x > best.key { best = Best(x, 4u * i); }
    let y = order_key(v.y);
    if y > best.key { best = Best(y, 4u * i + 1u); }
    let z = order_key(v.z);
    if z > best.key { best = Best(z, 4u * i + 2u); }
    let w = order_key(v.w);
    if w > best.key { best = Best(w, 4u * i + 3u); }
    return best;
}
