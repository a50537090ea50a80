// Sum over the 8 invocations 8·n .. 8·n + 7, through workgroup memory; called from uniform control flow.
var<workgroup> dot_scratch: array<f32, WG>;

fn dot_sum(x: f32, id: u32) -> f32 {
    workgroupBarrier();
    dot_scratch[id] = x;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) { sum += dot_scratch[id / 8u * 8u + i]; }
    return sum;
}
