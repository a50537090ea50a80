//! What a device can do at best, as text and as JSON.

use girih_kernels::probe::{Bandwidth, Ceilings};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// Lines of text, the first of memory.
pub fn lines(c: &Ceilings) -> Vec<String> {
    let memory = |b: &Bandwidth| {
        let [read, write, copy] = [b.read, b.write, b.copy].map(|rate| rate / 1e9);
        format!(
            "memory, {} MiB: read {read:.1} GB/s, write {write:.1} GB/s, copy {copy:.1} GB/s (read and written)",
            b.set_bytes / MIB
        )
    };
    let mut lines: Vec<String> = c.memory.iter().map(memory).collect();
    let f16 = c.f16_flops.map_or("no f16".to_owned(), |rate| format!("f16 {:.1} GFLOP/s", rate / 1e9));
    lines.push(format!(
        "arithmetic: f32 {:.1} GFLOP/s, {f16}, int8 {:.1} GOP/s (dot products of 4 bytes)",
        c.f32_flops / 1e9,
        c.int8_ops / 1e9
    ));
    lines.push(format!("dispatch {:.1} us, workgroup barrier {:.3} us", c.dispatch * 1e6, c.barrier * 1e6));
    lines
}

/// The same as JSON.
pub fn json(c: &Ceilings) -> Value {
    let memory: Vec<Value> = c
        .memory
        .iter()
        .map(|b| {
            json!({ "set_mib": b.set_bytes / MIB, "read_gb_per_s": b.read / 1e9, "write_gb_per_s": b.write / 1e9,
                "copy_gb_per_s": b.copy / 1e9 })
        })
        .collect();
    json!({ "memory": memory, "f32_gflop_per_s": c.f32_flops / 1e9, "f16_gflop_per_s": c.f16_flops.map(|rate| rate / 1e9),
        "int8_gop_per_s": c.int8_ops / 1e9, "dispatch_us": c.dispatch * 1e6, "barrier_us": c.barrier * 1e6 })
}
