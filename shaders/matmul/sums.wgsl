// NUM_SUMS sums over a workgroup at once, through workgroup memory. The importer declares `const WG: u32`
// (a power of two, the workgroup size) and `const NUM_SUMS: u32`, and calls from uniform control flow:
// put_sum for the first `count` sums, finish_sums(count), get_sum. Between two rounds: free_sums.
struct Lane { @builtin(local_invocation_index) id: u32 }
var<workgroup> sums: array<f32, NUM_SUMS * WG>;

fn put_sum(i: u32, share: f32, lane: Lane) { sums[i * WG + lane.id] = share; }

fn finish_sums(count: u32, lane: Lane) {
    workgroupBarrier();
    for (var span = WG / 2u; span > 0u; span /= 2u) {
        for (var i = lane.id; i < count * span; i += WG) {
            let at = i / span * WG + i % span;
            sums[at] += sums[at + span];
        }
        workgroupBarrier();
    }
}

fn get_sum(i: u32, lane: Lane) -> f32 { return sums[i * WG]; }

fn free_sums() { workgroupBarrier(); }
