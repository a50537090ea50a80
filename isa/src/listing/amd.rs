//! ACO's assembly for AMD: `v_fma_f32 v0, v1, v2, v0 ; encoding`.

use super::{Class, Instruction, Line, Wait, class_of};

/// By the beginning of the operation; the first that fits.
const STARTS: &[(&str, Class)] = &[
    ("s_wait", Class::Wait),
    ("s_delay_alu", Class::Wait),
    ("s_nop", Class::Wait),
    ("s_clause", Class::Wait),
    ("s_inst_pref", Class::Wait),
    ("s_set_inst_pref", Class::Wait),
    ("s_barrier", Class::Barrier),
    ("s_cbranch", Class::Branch),
    ("s_branch", Class::Branch),
    ("s_load", Class::ScalarLoad),
    ("s_buffer_load", Class::ScalarLoad),
    ("s_", Class::Scalar),
    ("v_wmma", Class::Matrix),
    ("v_mfma", Class::Matrix),
    ("v_dot4", Class::Dot4),
    ("v_pk_fma_f16", Class::PackedFma),
    ("v_dot2", Class::PackedFma),
    ("buffer_load", Class::Load),
    ("global_load", Class::Load),
    ("buffer_store", Class::Store),
    ("global_store", Class::Store),
    ("scratch_", Class::Scratch),
    ("ds_load", Class::SharedLoad),
    ("ds_read", Class::SharedLoad),
    ("ds_store", Class::SharedStore),
    ("ds_write", Class::SharedStore),
    ("ds_", Class::Lane),
];

/// By what stands somewhere in it.
const PARTS: &[(&[&str], Class)] = &[
    (&["permlane", "readlane", "readfirstlane", "writelane"], Class::Lane),
    (&["fma", "mad_f", "mac_f", "mad_mix"], Class::Fma),
    (&["exp_", "log_", "rcp_", "rsq_", "sqrt_", "sin_", "cos_"], Class::Transcendental),
    (&["cvt"], Class::Convert),
    (&["cndmask"], Class::Select),
    (&["cmp"], Class::Compare),
    (&["mul_lo", "mul_hi", "mad_u64", "mad_co_u64", "_i24", "_u24", "mad_i32", "mad_u32"], Class::IntMul),
    (&["mul_f"], Class::Mul),
    (&["add_f", "sub_f", "subrev_f"], Class::Add),
    (&["_f32", "_f16"], Class::Float),
    (&["mov_b32"], Class::Move),
];

pub(super) fn lines(text: &str) -> Vec<Line> {
    text.lines().flat_map(line).collect()
}

fn line(raw: &str) -> Vec<Line> {
    let text = raw.split(';').next().unwrap_or_default().trim();
    if let Some(label) = text.strip_suffix(':') {
        return vec![Line::Label(label.to_owned())];
    }
    if text.is_empty() || text.starts_with('(') {
        return Vec::new(); // "(then repeated 5 times)": padding
    }
    let operations = text.split(" :: ").enumerate();
    operations.map(|(i, part)| Line::Instruction(instruction(part.trim(), i > 0))).collect()
}

fn instruction(text: &str, paired: bool) -> Instruction {
    let (operation, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    // A permutation of lanes on the way: dot products within a subgroup.
    let permutes = operation.contains("_dpp") || ["row_", "quad_perm"].iter().any(|p| operands.contains(p));
    let part = || PARTS.iter().find(|(parts, _)| parts.iter().any(|p| operation.contains(p)));
    let class = match class_of(operation, STARTS) {
        Some(class) => class,
        None if permutes => Class::Lane,
        None => part().map_or(Class::Int, |&(_, class)| class),
    };
    let jumps = class == Class::Branch;
    Instruction {
        bytes: width(operation),
        matrix: if class == Class::Matrix { shape(operation) } else { 0 },
        paired,
        wait: if class == Class::Wait { wait(operation, operands) } else { Wait::Nothing },
        target: operands.split_whitespace().last().filter(|_| jumps).map(str::to_owned),
        ..Instruction::new(class)
    }
}

fn width(operation: &str) -> u32 {
    let pair = if operation.contains("2addr") || operation.contains("read2") || operation.contains("write2") {
        2
    } else {
        1
    };
    let has = |names: &[&str]| names.iter().any(|name| operation.contains(name));
    pair * if has(&["b128", "x4"]) {
        16
    } else if has(&["b96", "x3"]) {
        12
    } else if has(&["b64", "x2"]) {
        8
    } else if has(&["b16", "u16", "i16", "short"]) {
        2
    } else if has(&["u8", "i8", "byte"]) {
        1
    } else {
        4
    }
}

/// Multiply-adds of `v_wmma_f32_16x16x16_f16`.
fn shape(operation: &str) -> u32 {
    let part = operation.split('_').find(|part| part.matches('x').count() == 2);
    part.map_or(0, |part| part.split('x').map(|n| n.parse().unwrap_or(0)).product())
}

/// `vmcnt(3)` among others; `s_wait_loadcnt 0x3` from gfx12 on.
fn wait(operation: &str, operands: &str) -> Wait {
    let count = if operation == "s_wait_loadcnt" {
        Some(operands)
    } else {
        operands.split_once("vmcnt(").and_then(|(_, rest)| rest.split_once(')')).map(|(count, _)| count)
    };
    count.and_then(number).map_or(Wait::Nothing, Wait::AllBut)
}

fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Driver;
    use crate::listing::loops;

    const NAVI31: &str = "\
BB0:
	s_load_b128 s[8:11], s[0:1], null                           ; f4080200 f8000000
	s_cbranch_scc0 BB42                                         ; bfa10153
	s_nop 0                                                     ; bf800000
	(then repeated 5 times)
BB9:
	v_add_nc_u32_e32 v3, 0x80, v3                               ; 4a0606ff 00000080
	s_clause 0x1                                                ; bf850001
	buffer_load_b128 v[8:11], v4, s[16:19], 0 offen             ; e05c0000 80440804
	buffer_load_b128 v[4:7], v4, s[16:19], 0 offen offset:16    ; e05c0010 80440404
	s_waitcnt vmcnt(1)                                          ; bf8913f7
	buffer_load_b32 v14, v14, s[20:23], 0 offen                 ; e0500000 80450e0e
	s_waitcnt vmcnt(0) lgkmcnt(0)                               ; bf8913f7
	v_cvt_f32_ubyte0_e32 v23, v22                               ; 7e2e2316
	v_mul_f32_e32 v23, v23, v8                                  ; 102e1117
	v_fmac_f32_e32 v23, v24, v9                                 ; 562e1318
	v_fma_mix_f32 v16, v16, 1.0, neg(0) op_sel_hi:[1,0,0]       ; cc200010 8a01e510
	v_dual_mul_f32 v21, v80, v21 :: v_dual_fmac_f32 v10, v10, v80 ; c8c62b50 150aa10a
	v_dot4_i32_iu8 v26, v26, v13, 0 neg_lo:[1,1,0]              ; cc16401a 7a021b1a
	v_add_f32_dpp v1, v1, v1 row_xmask:1 row_mask:0xf           ; 06020300
	ds_load_2addr_stride64_b32 v[0:1], v2 offset0:1             ; d8
	v_mul_lo_u32 v0, v1, v2                                     ; d52c
	v_rcp_f32_e32 v1, v1                                        ; 7e
	s_cbranch_scc1 BB9                                          ; bfa1
BB42:
	s_endpgm                                                    ; bfb0
";

    #[test]
    fn the_loop_of_a_listing_is_counted() {
        let found = loops(Driver::Amd, NAVI31).expect("a listing");
        assert_eq!(found.len(), 1);
        let counts: Vec<(String, u32)> = found[0].counts().into_iter().collect();
        let want = [
            ("branch", 1),
            ("convert", 1),
            ("dot4", 1),
            ("fma", 3),
            ("imul", 1),
            ("int", 1),
            ("lane", 1),
            ("load16", 2),
            ("load4", 1),
            ("mul", 2),
            ("shared_load8", 1),
            ("trans", 1),
        ];
        assert_eq!(counts, want.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!((found[0].total(), found[0].loaded_bytes(), found[0].bytes_in_flight), (16, 36, 32));
        assert_eq!(found[0].own.iter().filter(|i| i.paired).count(), 1);
    }

    #[test]
    fn older_and_newer_names_are_read() {
        assert_eq!(wait("s_wait_loadcnt", "0xa"), Wait::AllBut(10));
        assert_eq!(wait("s_waitcnt", "lgkmcnt(0)"), Wait::Nothing);
        let vega = instruction("buffer_load_dwordx4 v[8:11], v4, s[16:19], 0 offen", false);
        assert_eq!((vega.class, vega.bytes), (Class::Load, 16));
        assert_eq!(instruction("v_mac_f32_e32 v1, v2, v3", false).class, Class::Fma);
        assert_eq!(instruction("v_wmma_f32_16x16x16_f16 v[0:7], v[8:15]", false).matrix, 4096);
    }
}
