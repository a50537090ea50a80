// A row of a ternary matrix: words of 16 bits that each name a string of the dictionary, of up to 14 pairs of symbols.
@group(0) @binding(1) var<storage, read> dictionary: array<vec2<u32>>;    // [2^16]: number of pairs, 14 pairs
@group(0) @binding(2) var<storage, read> codes: array<u32>;               // two words each
@group(0) @binding(3) var<storage, read> starts: array<u32>;              // [N + 1]
@group(0) @binding(4) var<storage, read> levels: array<u32>;              // [N]: bits of the values of symbols 1 and 2

fn string_of(word: u32) -> vec2<u32> { return dictionary[(codes[word / 2u] >> (16u * (word % 2u))) & 0xffffu]; }

// Places of the symbols that are not 0 among those of 7 pairs: bit 2 i of symbol i.
fn places(symbols: u32) -> u32 { return (symbols | (symbols >> 1u)) & 0x5555555u; }

fn least_of(row: u32) -> f32 { return bitcast<f32>(levels[row] << 16u); }
fn largest_of(row: u32) -> f32 { return bitcast<f32>(levels[row] & 0xffff0000u); }
