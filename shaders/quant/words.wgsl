// Words of quantised weights, as weights.wgsl reads them.
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;         // [N, code_stride()]
fn words_at(i: u32) -> vec4<u32> { return w[i]; }
fn word_at(i: u32, j: u32) -> u32 { return w[i][j]; }
