//! ir3's assembly for Adreno: `(sy)(rpt2)mad.f32 r9.z, r10.x, r18.x, (last)r9.z`.

use super::{Class, Instruction, Line, Wait, class_of};

/// By the beginning of the operation; the first that fits.
const STARTS: &[(&str, Class)] = &[
    ("nop", Class::Wait),
    ("bar", Class::Barrier),
    ("fence", Class::Barrier),
    ("br", Class::Branch),
    ("jump", Class::Branch),
    ("shp", Class::Branch),
    ("pred", Class::Branch),
    ("get", Class::Branch),
    ("end", Class::Branch),
    ("dp4acc", Class::Dot4),
    ("dp2acc", Class::Int),
    ("mad.f16", Class::Fma),
    ("mad.f32", Class::Fma),
    ("mul.f", Class::Mul),
    ("add.f", Class::Add),
    ("mull", Class::IntMul),
    ("mad", Class::IntMul),
    ("mul.", Class::IntMul),
    ("cmps", Class::Compare),
    ("sel", Class::Select),
    ("cov", Class::Convert),
    ("rndne", Class::Convert),
    ("trunc", Class::Convert),
    ("mov", Class::Move),
    ("rcp", Class::Transcendental),
    ("rsq", Class::Transcendental),
    ("sqrt", Class::Transcendental),
    ("exp2", Class::Transcendental),
    ("log2", Class::Transcendental),
    ("shfl", Class::Lane),
    ("brcst", Class::Lane),
    ("ldc", Class::ScalarLoad),
    ("stc", Class::ScalarLoad),
    ("resinfo", Class::ScalarLoad),
    ("isam", Class::Load),
    ("ldib", Class::Load),
    ("ldg", Class::Load),
    ("stib", Class::Store),
    ("stg", Class::Store),
    ("ldl", Class::SharedLoad),
    ("stl", Class::SharedStore),
    ("ldp", Class::Scratch),
    ("stp", Class::Scratch),
    ("max.f", Class::Float),
    ("min.f", Class::Float),
];

pub(super) fn lines(text: &str) -> Vec<Line> {
    text.lines().filter_map(line).collect()
}

fn line(raw: &str) -> Option<Line> {
    let text = raw.split(';').next().unwrap_or_default().trim();
    if let Some(label) = text.strip_suffix(':') {
        return Some(Line::Label(label.to_owned()));
    }
    if text.is_empty() || text.starts_with(['@', 'N']) {
        return None; // inputs and constants, and the title
    }
    let (flags, rest) = flags(text);
    let (name, operands) = rest.split_once(' ').unwrap_or((rest, ""));
    // What brcst is to lanes, br is to the program.
    let class =
        if name.starts_with("brcst") { Class::Lane } else { class_of(name, STARTS).unwrap_or(Class::Int) };
    let repeat = flags.iter().find_map(|flag| flag.strip_prefix("rpt")?.parse::<u32>().ok()).unwrap_or(0);
    let bytes = width(name, operands);
    Some(Line::Instruction(Instruction {
        repeat: 1 + repeat,
        bytes,
        wait: if flags.contains(&"sy") { Wait::AllBut(0) } else { Wait::Nothing },
        target: operands.split_whitespace().last().and_then(|word| word.strip_prefix('#')).map(str::to_owned),
        ..Instruction::new(class)
    }))
}

/// What stands in brackets before an operation.
fn flags(text: &str) -> (Vec<&str>, &str) {
    let (mut flags, mut rest) = (Vec::new(), text);
    while let Some((flag, behind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        flags.push(flag);
        rest = behind;
    }
    (flags, rest)
}

/// `isam.v (u32)(xyzw)r2.x` loads what it names, `stib.b.untyped.1d.u32.4` counts, `ldl.u32 r3.w, l[r3.z], 1` ends with it.
fn width(name: &str, operands: &str) -> u32 {
    let components = if name.starts_with("isam") {
        let written = flags(operands).0.into_iter().find(|flag| flag.chars().all(|c| "xyzw".contains(c)));
        written.map_or(1, |written| written.len() as u32)
    } else if name.contains(".1d.") {
        name.split('.').find_map(|part| part.parse().ok()).unwrap_or(1)
    } else {
        operands.rsplit(", ").next().and_then(|count| count.parse().ok()).unwrap_or(1)
    };
    let is_half = name.contains("16") || operands.contains("16)");
    components * if is_half { 2 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Driver;
    use crate::listing::loops;

    const ADRENO740: &str = "\
Native code for unnamed CL shader (null) with blake3 dc36f5:
; num_ubos:           0
@in(r48.x)	in0 (wrmask=0x7)
shps #l76
l98:
(rpt2)add.u r49.w, (r)r48.x, (r)c1.x
isam.v.base0 (u32)(xyzw)r2.y, r2.x, s#0, t#0
isam.v.base0 (u32)(x)r14.x, r13.x, s#0, t#2
(rpt1)nop
(sy)shr.b r15.x, (last)r15.x, (last)r13.z
(ss)mad.f32 r9.z, r10.x, r18.x, (last)r9.z
madsh.m16 r1.x, r1.y, r1.z, r1.w
ldl.u32 r3.w, l[r3.z], 4
brcst.active.w8 r1.x, r2.x
br p0.y, #l164
jump #l98
l164:
stib.b.untyped.1d.u32.4.imm.base0 r3.y, r4.x, 8
end
";

    #[test]
    fn the_loop_of_a_listing_is_counted() {
        let found = loops(Driver::Adreno, ADRENO740).expect("a listing");
        assert_eq!(found.len(), 1);
        let counts: Vec<(String, u32)> = found[0].counts().into_iter().collect();
        let want = [
            ("branch", 2),
            ("fma", 1),
            ("imul", 1),
            ("int", 4),
            ("lane", 1),
            ("load16", 1),
            ("load4", 1),
            ("shared_load16", 1),
        ];
        assert_eq!(counts, want.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(found[0].bytes_in_flight, 20);
        assert_eq!(width("stib.b.untyped.1d.u32.4.imm.base0", "r3.y, r4.x, 8"), 16);
    }
}
