//! NAK's assembly for NVIDIA: `r22 = ffma.ftz r23 r6 r22 // delay=1 wt=000010 rd:0 wr:1`.

use super::{Class, Instruction, Line, Wait, class_of};

/// By the beginning of the operation; the first that fits.
const STARTS: &[(&str, Class)] = &[
    ("nop", Class::Wait),
    ("bar", Class::Barrier),
    ("membar", Class::Barrier),
    ("bra", Class::Branch),
    ("bsync", Class::Branch),
    ("bssy", Class::Branch),
    ("bclear", Class::Branch),
    ("exit", Class::Branch),
    ("hmma", Class::Matrix),
    ("imma", Class::Matrix),
    ("ffma", Class::Fma),
    ("hfma2", Class::PackedFma),
    ("fmul", Class::Mul),
    ("fadd", Class::Add),
    ("fsetp", Class::Compare),
    ("isetp", Class::Compare),
    ("frnd", Class::Convert),
    ("f2", Class::Convert),
    ("i2", Class::Convert),
    ("fs", Class::Select),
    ("f", Class::Float),
    ("h", Class::Float),
    ("idp4", Class::Dot4),
    ("imad", Class::IntMul),
    ("mufu", Class::Transcendental),
    ("sel", Class::Select),
    ("mov", Class::Move),
    ("shfl", Class::Lane),
    ("vote", Class::Lane),
    ("redux", Class::Lane),
    ("ldc", Class::ScalarLoad),
    ("r2ur", Class::Scalar),
    ("s2", Class::Scalar),
    ("ld.global", Class::Load),
    ("st.global", Class::Store),
    ("ld.shared", Class::SharedLoad),
    ("st.shared", Class::SharedStore),
    ("ld.local", Class::Scratch),
    ("st.local", Class::Scratch),
];

pub(super) fn lines(text: &str) -> Vec<Line> {
    text.lines().filter_map(line).collect()
}

fn line(raw: &str) -> Option<Line> {
    let (text, schedule) = raw.split_once("//").unwrap_or((raw, ""));
    let text = text.trim();
    if text.starts_with("block") {
        // block.u 3 L2 [1, 2] -> {
        return text
            .split_whitespace()
            .find(|word| word.starts_with('L'))
            .map(|label| Line::Label(label.into()));
    }
    if text.is_empty() || text.starts_with('}') {
        return None;
    }
    let (result, operation) = text.split_once(" = ").unwrap_or(("", text));
    // Integers of the uniform registers run beside the lanes.
    let is_uniform = result.split_whitespace().any(|word| word.starts_with("ur") || word.starts_with("up"));
    let mut words = operation.split_whitespace().filter(|word| !word.starts_with('@'));
    let name = words.next()?;
    let found = class_of(name, STARTS).unwrap_or(Class::Int);
    let is_scalar = is_uniform && matches!(found, Class::Int | Class::IntMul | Class::Move | Class::Compare);
    let class = if is_scalar { Class::Scalar } else { found };
    let field = |name: &str| schedule.split_whitespace().find_map(|word| word.strip_prefix(name));
    let waits = field("wt=").and_then(|bits| u32::from_str_radix(bits, 2).ok());
    Some(Line::Instruction(Instruction {
        bytes: width(name),
        matrix: if class == Class::Matrix { shape(name) } else { 0 },
        wait: waits.map_or(Wait::Nothing, Wait::Tokens),
        token: field("wr:").and_then(|token| token.parse().ok()).unwrap_or(0),
        target: words.next_back().filter(|_| name == "bra").map(str::to_owned),
        ..Instruction::new(class)
    }))
}

fn width(name: &str) -> u32 {
    let bits = name.split('.').find_map(|part| part.strip_prefix(['b', 'u', 'i'])?.parse::<u32>().ok());
    bits.unwrap_or(32) / 8
}

/// Multiply-adds of `hmma.m16n8k16.f32`.
fn shape(name: &str) -> u32 {
    let part = name.split('.').find(|part| part.starts_with('m') && part.contains('n') && part.contains('k'));
    part.map_or(0, |part| {
        part.split(['m', 'n', 'k']).filter(|n| !n.is_empty()).map(|n| n.parse().unwrap_or(0)).product()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Driver;
    use crate::listing::loops;

    const NV174: &str = "\
block.u 0 L2 [] -> {
      ur0    = s2r sr[0x25]                             // delay=1 wr:0
               bra !up0 L1                              // delay=1 wt=000011
} -> [1, 31]
block 2 L8 [1] -> {
      ur1    = shf.l.w.i32 ur0 rZ 0x1                   // delay=4
      r6 p0  = iadd3 r5 c[0x2][0x0] rZ                  // delay=1
      r5     = ld.global.a64.constant.b32 [r6..8], p0   // delay=2 rd:0 wr:1
      r6     = ld.global.a64.constant.b128 [r6..8]      // delay=2 rd:0 wr:2
      r7     = fadd.ftz r5 r13                          // delay=1 wt=000010
      r8     = ld.global.a64.constant.b32 [r8..10], p0  // delay=2 wt=000100 rd:0 wr:3
      r22    = i2f.f32.u8.re r22                        // delay=1 wt=001000 wr:0
      r22    = ffma.ftz r23 r6 r22                      // delay=1 wt=000010
      r9     = idp4.i8.i8 r1 r2 r3                      // delay=1
      r9     = imad r1 r2 r3                            // delay=1
@!p0           bra pT L8                                // delay=1
} -> [2, 12]
";

    #[test]
    fn the_loop_of_a_listing_is_counted() {
        let found = loops(Driver::Nvidia, NV174).expect("a listing");
        assert_eq!(found.len(), 1);
        let counts: Vec<(String, u32)> = found[0].counts().into_iter().collect();
        let want = [
            ("add", 1),
            ("branch", 1),
            ("convert", 1),
            ("dot4", 1),
            ("fma", 1),
            ("imul", 1),
            ("int", 1),
            ("load16", 1),
            ("load4", 2),
            ("scalar", 1),
        ];
        assert_eq!(counts, want.map(|(name, count)| (name.to_owned(), count)));
        // The first is waited for before the third starts.
        assert_eq!((found[0].loaded_bytes(), found[0].bytes_in_flight), (24, 20));
    }

    #[test]
    fn widths_and_shapes_are_read() {
        assert_eq!(width("ld.shared.strong.cta.b64"), 8);
        assert_eq!(shape("hmma.m16n8k16.f32"), 2048);
    }
}
