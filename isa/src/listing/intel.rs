//! brw's assembly for Intel: `mad(16) g20<1>F ... { align1 1H F@2 $3.dst };`, of messages on two or three lines.

use super::{Class, Instruction, Line, Wait, class_of};

/// By the name of the operation, without conditions and width.
const STARTS: &[(&str, Class)] = &[
    ("sync", Class::Wait),
    ("nop", Class::Wait),
    ("if", Class::Branch),
    ("else", Class::Branch),
    ("endif", Class::Branch),
    ("break", Class::Branch),
    ("cont", Class::Branch),
    ("while", Class::Branch),
    ("halt", Class::Branch),
    ("jmpi", Class::Branch),
    ("dpas", Class::Matrix),
    ("dp4a", Class::Dot4),
    ("math", Class::Transcendental),
    ("cmp", Class::Compare),
    ("sel", Class::Select),
    ("csel", Class::Select),
    ("rnd", Class::Convert),
];

pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    // A message goes on until its options in braces end.
    let mut open = String::new();
    for raw in text.lines() {
        let text = raw.trim();
        if let Some(label) = text.strip_suffix(':').filter(|label| label.starts_with("LABEL")) {
            lines.push(Line::Label(label.to_owned()));
            continue;
        }
        if text.is_empty() {
            continue;
        }
        open.push(' ');
        open.push_str(text);
        if text.ends_with("};") {
            lines.extend(instruction(open.trim()).map(Line::Instruction));
            open.clear();
        }
    }
    lines
}

fn instruction(text: &str) -> Option<Instruction> {
    // (+f0.0) before what depends on a flag.
    let text =
        if text.starts_with('(') { text.split_once(") ").map_or(text, |(_, rest)| rest) } else { text };
    let (head, operands) = text.split_once(' ')?;
    let (name, lanes) = match head.split_once('(') {
        Some((name, width)) => (name, width.trim_end_matches(')').parse().ok()),
        // sync nop(1), send(1) with a space
        None => (head, operands.split_once('(').and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok())),
    };
    let name = name.split('.').next().unwrap_or(name);
    let options = text.rsplit_once('{').map_or("", |(_, options)| options);
    let mut found = if name.starts_with("send") {
        message(text)
    } else {
        Instruction::new(class_of(name, STARTS).unwrap_or_else(|| arithmetic(name, operands)))
    };
    found.lanes = lanes;
    if found.class == Class::Matrix {
        // dpas.8x8: eight deep, of pairs of f16, for eight rows.
        found.matrix = 8 * 8 * 2 * lanes.unwrap_or(8);
    }
    if head.starts_with("while") {
        found.target =
            operands.split_once("JIP:").and_then(|(_, rest)| rest.split_whitespace().next()).map(Into::into);
    }
    found.wait = wait(operands, options);
    Some(found)
}

/// Floats are told by the type of the result: `g20<1>F`.
fn arithmetic(name: &str, operands: &str) -> Class {
    let result = operands.split_whitespace().next().unwrap_or_default();
    let kind = result.rsplit('>').next().unwrap_or_default();
    let from_kind =
        operands.split_whitespace().nth(1).unwrap_or_default().rsplit('>').next().unwrap_or_default();
    let is_float = |kind: &str| matches!(kind, "F" | "HF" | "BF");
    match name {
        "mov" if is_float(kind) != is_float(from_kind) && !from_kind.is_empty() => Class::Convert,
        "mov" => Class::Move,
        "mad" if is_float(kind) => Class::Fma,
        "mul" if is_float(kind) => Class::Mul,
        "add" if is_float(kind) => Class::Add,
        "mul" | "mach" | "mad" => Class::IntMul,
        _ if is_float(kind) => Class::Float,
        _ => Class::Int,
    }
}

/// `ugm MsgDesc: ( load, a32, d32, V4, ... bti )`, `hdc1 MsgDesc: (untyped surface read, Surface = 254, SIMD8, Mask = 0xe)`.
fn message(text: &str) -> Instruction {
    let unit =
        text.split(" MsgDesc:").next().and_then(|before| before.split_whitespace().last()).unwrap_or("");
    let description = text.split_once("MsgDesc:").map_or("", |(_, rest)| rest).trim_start();
    let token = text.rsplit_once('{').and_then(|(_, options)| token(options));
    let is_shared = unit == "slm" || description.contains("Surface = 254");
    let is_scratch = description.contains("OWORD block")
        || description.contains(", ss )")
        || description.contains(" ss )");
    let is_load = description.contains("load,") || description.contains("surface read");
    let is_store = description.contains("store,") || description.contains("surface write");
    let class = if description.contains("barrier") || description.contains("fence") {
        Class::Barrier
    } else if is_scratch {
        Class::Scratch
    } else if description.contains("transpose") || unit.starts_with("hdc:ro") {
        Class::ScalarLoad
    } else {
        match (is_load, is_store, is_shared) {
            (true, _, true) => Class::SharedLoad,
            (true, _, false) => Class::Load,
            (_, true, true) => Class::SharedStore,
            (_, true, false) => Class::Store,
            _ => Class::Branch, // the end of a thread
        }
    };
    Instruction { bytes: 4 * components(description), token: token.unwrap_or(0), ..Instruction::new(class) }
}

/// `V4`, or four less those that a mask turns off.
fn components(description: &str) -> u32 {
    let vector = description.split([',', ' ']).find_map(|word| word.strip_prefix('V')?.parse().ok());
    let masked = || {
        let mask = description.split_once("Mask = 0x")?.1;
        let digits: String = mask.chars().take_while(char::is_ascii_hexdigit).collect();
        Some(4 - u32::from_str_radix(&digits, 16).ok()?.count_ones().min(4))
    };
    vector.or_else(masked).unwrap_or(1)
}

/// `$3` of a message: its token.
fn token(options: &str) -> Option<u32> {
    let words = options.split([' ', ',']).filter_map(|word| word.strip_prefix('$'));
    words.filter_map(|word| word.parse().ok()).next_back()
}

/// `$3.dst`: the result of a message.
fn wait(operands: &str, options: &str) -> Wait {
    if operands.starts_with("allwr") {
        return Wait::AllBut(0);
    }
    let words = options.split([' ', ',']).filter_map(|word| word.strip_prefix('$')?.strip_suffix(".dst"));
    let mask = words.filter_map(|word| word.parse::<u32>().ok()).fold(0, |mask, token| mask | 1 << token);
    if mask == 0 { Wait::Nothing } else { Wait::Tokens(mask) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Driver;
    use crate::listing::loops;

    const A770: &str = "\
mov(8)          g66<1>UD        g0.1<0,1,0>UD                   { align1 WE_all 1Q };

LABEL2:
cmp.z.f0.1(16)  g84<1>D         g19<8,8,1>D     0D              { align1 1H A@2 };
(+f0.0) break(16) JIP:  LABEL1        UIP:  LABEL1              { align1 1H };
send(16)        g9UD            g85UD           nullUD          0x64803500                0x02000000
                ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 8, src0_len = 2, src1_len = 0 bti )  BTI 2  base_offset 0  { align1 1H $1 };
send(16)        g61UD           g17UD           nullUD          0x64200500                0x04000000
                ugm MsgDesc: ( load, a32, d32, V1, L1STATE_L3MOCS dst_len = 2, src0_len = 2, src1_len = 0 bti )  BTI 4  base_offset 0  { align1 1H $2 };
sync nop(1)                     null<0,1,0>UB                   { align1 WE_all 1N $1.dst };
mad(16)         g20<1>F         g9<8,8,1>F      g11<8,8,1>F     g20<1,1,1>F { align1 1H F@2 };
mul(8)          g82<1>D         g76<0,1,0>D     g55.10<0,1,0>UW { align1 WE_all 1Q @7 $2.dst };
mov(16)         g30<1>F         g31<8,8,1>UB                    { align1 1H };
dp4a(16)        g1<1>D          g2<8,8,1>D      g3<8,8,1>D      g4<1,1,1>D { align1 1H };
send(16)        g31UD           g29UD           nullUD          0x04200500                0x00000000
                slm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 4, src0_len = 1, src1_len = 0 flat )  base_offset 0  { align1 1Q $3 };
LABEL1:
while(16)       JIP:  LABEL2                                    { align1 1H };
";

    #[test]
    fn the_loop_of_a_listing_is_counted() {
        let found = loops(Driver::Intel, A770).expect("a listing");
        assert_eq!(found.len(), 1);
        let counts: Vec<(String, u32)> = found[0].counts().into_iter().collect();
        let want = [
            ("branch", 2),
            ("compare", 1),
            ("convert", 1),
            ("dot4", 1),
            ("fma", 1),
            ("imul", 1),
            ("load16", 1),
            ("load4", 1),
            ("shared_load16", 1),
        ];
        assert_eq!(counts, want.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(found[0].bytes_in_flight, 20);
        let lanes: Vec<_> = found[0].own.iter().map(|i| i.lanes).take(2).collect();
        assert_eq!(lanes, [Some(16), Some(16)]);
    }

    #[test]
    fn messages_of_older_devices_are_read() {
        let read = message(
            "send(8) g1UD g2UD hdc1 MsgDesc: (untyped surface read, Surface = 1, SIMD8, Mask = 0xe)  mlen 1 { align1 1Q };",
        );
        assert_eq!((read.class, read.bytes), (Class::Load, 4));
        let shared = message(
            "send(8) g1UD g2UD hdc1 MsgDesc: (DC untyped surface write, Surface = 254, SIMD8, Mask = 0x0)  mlen 1 { };",
        );
        assert_eq!((shared.class, shared.bytes), (Class::SharedStore, 16));
        let spilled = message(
            "send(8) g1UD g2UD hdc0 MsgDesc: (DC OWORD block read, bti 253, owords = 2, aligned = 0) { };",
        );
        assert_eq!(spilled.class, Class::Scratch);
    }
}
