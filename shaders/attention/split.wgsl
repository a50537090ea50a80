// Which of a row's visible keys a split takes. Splits beyond the keys are empty.
const SPLIT_ALIGN: u32 = 64u;

fn split_keys(seq: Seq, split: u32) -> Keys {
    let all = visible(seq, 0u);
    let count = max(all.hi, all.lo) - all.lo;
    let share = (count + p.splits - 1u) / p.splits;
    let chunk = (share + SPLIT_ALIGN - 1u) / SPLIT_ALIGN * SPLIT_ALIGN;
    let lo = all.lo + min(split * chunk, count);
    return Keys(lo, min(lo + chunk, all.lo + count));
}
