// Maxima and sums over the 8 invocations of a row (8·n .. 8·n + 7), for up to 4 rows at once, through workgroup
// memory. The importer declares `const WG: u32`. Both contain a barrier; another barrier must lie between calls.
var<workgroup> row_scratch: array<vec4<f32>, WG>;

fn row_max(x: vec4<f32>, id: u32) -> vec4<f32> {
    row_scratch[id] = x;
    workgroupBarrier();
    var result = x;
    for (var i = 0u; i < 8u; i++) { result = max(result, row_scratch[id / 8u * 8u + i]); }
    return result;
}

fn row_sum(x: vec4<f32>, id: u32) -> vec4<f32> {
    row_scratch[id] = x;
    workgroupBarrier();
    var result = vec4<f32>(0.0);
    for (var i = 0u; i < 8u; i++) { result += row_scratch[id / 8u * 8u + i]; }
    return result;
}
