// Four 8-bit integers in a u32, for browsers whose WGSL lacks packed_4x8_integer_dot_product. The functions have the
// names and the meaning of the builtins (WGSL, "Data packing" and "Data unpacking built-in functions"), which they hide.

// sum_i a_i * b_i of four signed bytes
fn dot4I8Packed(a: u32, b: u32) -> i32 {
  let x = (vec4<i32>(bitcast<i32>(a)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
  let y = (vec4<i32>(bitcast<i32>(b)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
  return x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
}

// Four signed bytes, the lowest first
fn unpack4xI8(e: u32) -> vec4<i32> {
  return (vec4<i32>(bitcast<i32>(e)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
}

// Four unsigned bytes, the lowest first
fn unpack4xU8(e: u32) -> vec4<u32> {
  return (vec4<u32>(e) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu);
}

// The low byte of each element, the first lowest
fn pack4xI8(e: vec4<i32>) -> u32 {
  let bytes = bitcast<vec4<u32>>(e) & vec4<u32>(0xffu);
  return bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
}
